//! Explanations of prepared situations: the first line names the expected cause.

use archipelago::{
    explain::{Cause, Question},
    scenario::{address, run_to_engine},
};
use protocol::Position;

/// A question by the names that scenarios use.
enum Query {
    /// Why two peers do not share an island or do not receive each other.
    Why(&'static str, &'static str),
    /// Why the island of this peer is on its node.
    Island(&'static str),
    /// Where this peer is, and why.
    Peer(&'static str),
    /// The rules at this x and z.
    At(f32, f32),
}

use Query::*;

const CASINO: &str = "rules\n| [[rule]]\n| name = \"casino\"\n| area = { parcels = [\"0,0\"] }\n";
const VOICE: &str = "rules\n| [[rule]]\n| name = \"voice\"\n| transports = [\"livekit\", \"ws-room\"]\n";
const MESH: &str = "rules\n| [[rule]]\n| name = \"mesh\"\n| transports = [\"p2p\", \"ws-room\"]\n";

/// Name, scenario, question, expected cause, and a part of the expected first line.
type Situation = (&'static str, String, Query, Cause, &'static str);

/// The steps of a scenario, separated by semicolons, one a line.
fn steps(text: &str) -> String {
    text.replace("; ", "\n")
}

fn with_rules(rules: &str, text: &str) -> String {
    format!("{rules}{}", steps(text))
}

/// Situations that distances, sizes, areas and preferences decide.
fn distance_and_size() -> Vec<Situation> {
    vec![
        (
            "together",
            steps("node w; move a 0 0 0; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::Together,
            "both are in I000000001 on w and were sent that assignment",
        ),
        (
            "full island",
            steps("limit 2; node w; move a 0 0 0; move b 5 0 0; move c 10 0 0; flush"),
            Why("a", "c"),
            Cause::FullIsland,
            "would have 3 members, and the limit is 2",
        ),
        (
            "exclusive rule",
            with_rules(CASINO, "node w; move a 10 0 8; move b 20 0 8; flush"),
            Why("b", "a"),
            Cause::ExclusiveRule,
            "rule `casino` makes parcel 0,0 exclusive, and only 0x61",
        ),
        (
            "too far",
            steps("node w; move a 0 0 0; move c -30 0 0; move b 90 0 0; flush"),
            Why("c", "b"),
            Cause::TooFar,
            "their islands are 90.0 m apart",
        ),
        (
            "hysteresis",
            steps("node w; move a 0 0 0; move b 70 0 0; flush"),
            Why("a", "b"),
            Cause::Hysteresis,
            "70.0 m apart: beyond the join distance of 64 m, within the leave distance of 80 m",
        ),
        (
            "preference",
            steps(
                "limit 2; node w; move a 0 0 0; move b 10 0 0; move d 70 0 0; flush; prefer b a; move c 30 0 0; flush",
            ),
            Why("b", "c"),
            Cause::Preference,
            "0x6200000000000000000000000000000000000000 prefers I000000001 and is in it",
        ),
        (
            "a position",
            with_rules(CASINO, "node w; flush"),
            At(3.0, 3.0),
            Cause::ExclusiveRule,
            "rule `casino` is the first that applies here, in the exclusive area parcel 0,0",
        ),
    ]
}

/// Situations that depend on the presence and the session of a peer.
fn presence() -> Vec<Situation> {
    vec![
        (
            "silent peer",
            steps("node w; move a 0 0 0; move b 5 0 0; flush; hush b; wait 16s"),
            Why("a", "b"),
            Cause::SilentPeer,
            "0x6200000000000000000000000000000000000000 sent no message for 16.0 s, and the limit is 15 s",
        ),
        (
            "disconnected",
            steps("node w; move a 0 0 0; move b 5 0 0; flush; leave b; flush"),
            Why("a", "b"),
            Cause::Left,
            "0x6200000000000000000000000000000000000000 disconnected",
        ),
        (
            "unknown peer",
            steps("node w; move a 0 0 0; flush"),
            Why("a", "b"),
            Cause::Unknown,
            "0x6200000000000000000000000000000000000000 is not in the world",
        ),
        (
            "other session",
            steps(
                "node w; move a 0 0 0 session 1; move b 5 0 0; flush; connect a 2; move a 0 0 0 session 1; flush",
            ),
            Why("a", "b"),
            Cause::OtherSession,
            "0x6100000000000000000000000000000000000000 has a newer session",
        ),
        (
            "other session, without a position yet",
            steps("node w; move a 0 0 0 session 1; move b 5 0 0; flush; connect a 2; flush"),
            Why("b", "a"),
            Cause::OtherSession,
            "has a new session, which has not sent a position yet",
        ),
    ]
}

/// Situations that the reports of a node decide.
fn node_reports() -> Vec<Situation> {
    vec![
        (
            "node down",
            with_rules(VOICE, "node-down l kind livekit it refuses the API key; node w; move a 0 0 0; flush"),
            Island("a"),
            Cause::NodeDead,
            "I000000001 is on w: rule `voice` decides; l does not fit: it is down: it refuses the API key",
        ),
        (
            "no room",
            with_rules(VOICE, "node l kind livekit; node w; move a 0 0 0; flush; no-room a l 5s; flush"),
            Island("a"),
            Cause::NoRoom,
            "I000000001 is on w: rule `voice` decides; l does not fit: it could not open a room for the island; the next attempt is in 5.0 s",
        ),
        (
            "mesh failed",
            with_rules(
                MESH,
                "node p kind p2p; node w; client a p2p ws-room; move a 0 0 0; flush; mesh-failed a p 60s no path from a to b; flush",
            ),
            Island("a"),
            Cause::MeshFailed,
            "I000000001 is on w: rule `mesh` decides; p does not fit: no path from a to b; the next attempt is in 60.0 s",
        ),
        (
            "mesh without relay outgrown",
            with_rules(
                &format!("{MESH}| relay = false\n| max_links = 2\n"),
                "node p kind p2p; node w; client a p2p ws-room; client b p2p ws-room; client c p2p ws-room; \
                 client d p2p ws-room; move a 0 0 0; move b 1 0 0; move c 2 0 0; move d 3 0 0; flush",
            ),
            Island("a"),
            Cause::Outgrown,
            "I000000001 is on w: rule `mesh` decides; p does not fit: without relay a mesh of 2 links a member holds 3, the island has 4 members",
        ),
    ]
}

/// Situations in which nodes lack seats, drain or are gone.
fn seats_and_outages() -> Vec<Situation> {
    vec![
        (
            "no seats, waiting",
            steps("node w seats 1; move a 0 0 0; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::NoSeats,
            "I000000001 waits for a transport: no rule decides; w does not fit: free seats: 1, the island has 2 members",
        ),
        (
            "no seats, on the next choice",
            with_rules(VOICE, "node l kind livekit seats 1; node w; move a 0 0 0; move b 5 0 0; flush"),
            Island("a"),
            Cause::NoSeats,
            "I000000001 is on w: rule `voice` decides; l does not fit: free seats: 1, the island has 2 members",
        ),
        (
            "node dead",
            with_rules(VOICE, "node l kind livekit; node w; move a 0 0 0; flush; hush-node l; wait 5s"),
            Island("a"),
            Cause::NodeDead,
            "is on w: rule `voice` decides; l does not fit: no announcement for 5.0 s",
        ),
        (
            "node dead, and no other",
            steps("node w; move a 0 0 0; move b 5 0 0; flush; hush-node w; wait 5s"),
            Why("a", "b"),
            Cause::NodeDead,
            "waits for a transport",
        ),
        (
            "another node of the same kind is dead",
            steps("node w; move a 0 0 0; flush; node v; flush; hush-node v; wait 5s"),
            Island("a"),
            Cause::AsWanted,
            "I000000001 is on w: no rule decides; no other node is preferred",
        ),
        (
            "two choices are dead",
            with_rules(
                "rules\n| [[rule]]\n| name = \"voice\"\n| transports = [\"livekit\", { node = \"x\" }, \"ws-room\"]\n",
                "node l kind livekit; node x; node w; move a 0 0 0; flush; hush-node l; hush-node x; wait 5s",
            ),
            Island("a"),
            Cause::NodeDead,
            "is on w: rule `voice` decides; l does not fit: no announcement for",
        ),
        (
            "draining",
            steps("node w; move a 0 0 0; flush; node w draining; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::Draining,
            "0x6200000000000000000000000000000000000000 waits: w, the node of its island, accepts no new members",
        ),
        (
            "draining, of an island",
            steps("node w; move a 0 0 0; flush; node w draining; flush"),
            Island("a"),
            Cause::Draining,
            "is on w although it does not fit (draining): no other node fits",
        ),
    ]
}

/// Situations that depend on the transports of rules and clients.
fn transports() -> Vec<Situation> {
    vec![
        (
            "capability",
            steps("node w; node l kind livekit; client a ws-room; client b livekit; move a 0 0 0; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::Capability,
            "one island can join ws-room, the other livekit",
        ),
        (
            "capability, of an island",
            with_rules(VOICE, "node w; node l kind livekit; client a ws-room; move a 0 0 0; flush"),
            Island("a"),
            Cause::Capability,
            "is on w: rule `voice` decides; l does not fit: 0x6100000000000000000000000000000000000000 cannot join livekit",
        ),
        (
            "outgrown",
            "node p kind p2p size 1\nnode w\nrules\n| [[rule]]\n| name = \"mesh\"\n| transports = [\"p2p\", \"ws-room\"]\nclient a p2p ws-room\nclient b p2p ws-room\nmove a 0 0 0\nmove b 5 0 0\nflush".to_owned(),
            Island("a"),
            Cause::Outgrown,
            "is on w: rule `mesh` decides; p does not fit: its rooms hold 1, the island has 2 members",
        ),
        (
            "no such transport",
            with_rules(VOICE, "node w; move a 0 0 0; flush"),
            Island("a"),
            Cause::NoTransport,
            "is on w: rule `voice` decides; livekit does not fit: no node offers it",
        ),
        (
            "as wanted",
            with_rules(VOICE, "node l kind livekit; node w; move a 0 0 0; flush"),
            Peer("a"),
            Cause::AsWanted,
            "I000000001 is on l: rule `voice` decides; no other node is preferred",
        ),
    ]
}

/// Situations in which a change waits.
fn settling() -> Vec<Situation> {
    vec![
        (
            "settling at a border",
            with_rules(CASINO, "node w; move a 10 0 8; move b 20 0 8; flush; move b 12 0 8; wait 1s"),
            Why("a", "b"),
            Cause::Settling,
            "0x6200000000000000000000000000000000000000 has crossed a border, and the crossing takes effect in 2.0 s",
        ),
        (
            "settling, of a peer",
            with_rules(CASINO, "node w; move a 10 0 8; move b 20 0 8; flush; move b 12 0 8; wait 1s"),
            Peer("b"),
            Cause::Settling,
            "0x6200000000000000000000000000000000000000 has crossed a border, and the crossing takes effect in 2.0 s",
        ),
        (
            "settling before a move",
            with_rules(VOICE, "node w; move a 0 0 0; flush; node l kind livekit; wait 1s"),
            Island("a"),
            Cause::Settling,
            "is on w: rule `voice` decides; it moves to l in 2.2 s if nothing changes",
        ),
    ]
}

#[test]
fn first_line_names_the_cause() {
    let situations =
        [distance_and_size(), presence(), seats_and_outages(), node_reports(), transports(), settling()]
            .into_iter()
            .flatten();
    let mut failures = Vec::new();
    for (name, text, query, cause, part) in situations {
        let (engine, now) =
            run_to_engine(&text).unwrap_or_else(|error| panic!("{name}, {error}\n{text}")).unwrap();
        let question = match query {
            Why(one, other) => Question::Pair(address(one), address(other)),
            Island(peer) => {
                let peer = engine.peer(address(peer)).unwrap();
                Question::Island(peer.island().unwrap().id())
            }
            Peer(peer) => Question::Peer(address(peer)),
            At(x, z) => Question::At(Position::new(x, 0.0, z)),
        };
        let answer = engine.explain(&question, now);
        let text = answer.to_string();
        let first = text.lines().next().unwrap_or_default();
        println!("{name:34} | {first}");
        if answer.cause != cause || !first.starts_with(cause.as_str()) || !first.contains(part) {
            failures.push(format!("{name}: {cause}: {part}\n{text}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The text and the JSON form of an explanation contain all its facts.
#[test]
fn text_and_json_state_all_facts() {
    let text = "node w seats 5\nnode l kind livekit\nmove a 10 0 8\nmove b 20 0 8\nflush\nname home a\nprefer a a\n\
                hush-node l\nwait 5s\nmove b 40 0 8\nwait 1s";
    let (engine, now) = run_to_engine(&format!("{CASINO}| transports = [\"livekit\", \"ws-room\"]\n{text}"))
        .unwrap()
        .unwrap();
    let answer = engine.explain(&Question::Pair(address("a"), address("b")), now);
    let text = answer.to_string();
    for part in [
        "exclusive rule: ",
        "peer 0x6100000000000000000000000000000000000000\n",
        "last message 0.0 s ago, at 10,0,8",
        "can join ws-room, livekit",
        "areas in effect: parcel 0,0",
        "areas in effect: none",
        "prefers I000000001",
        "last assignment: I000000001 on w",
        "1 of at most 100 members, on w",
        "moved 2.",
        "rule `casino` decides",
        "+ rule `casino`: prefers livekit, then ws-room",
        "- livekit l: no announcement for 6.0 s",
        "+ ws-room w: free seats: 3",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["cause"], "exclusive-rule");
    assert_eq!(json["peers"][0]["areas"][0], "parcel 0,0");
    assert_eq!(json["islands"][0]["candidates"][0]["fits"], false);
    assert_eq!(json["islands"][0]["rule"], "casino");
    assert!(json["peers"][1]["heard_s_ago"].as_f64().unwrap() < 0.1);
}

#[test]
fn unvisited_position_is_explained() {
    let rules = format!("{CASINO}| island_size = 7\n| join_distance_m = 5\n| leave_distance_m = 6\n");
    let (engine, now) = run_to_engine(&format!("{rules}node w\nflush")).unwrap().unwrap();
    let facts = |x: f32| engine.explain(&Question::At(Position::new(x, 0.0, 0.0)), now).place.unwrap();
    let (inside, outside) = (facts(0.0), facts(-1.0));
    assert_eq!((inside.limit, inside.join_distance_m, inside.leave_distance_m), (7, 5.0, 6.0));
    assert_eq!((inside.parcel, inside.exclusive.as_deref()), ([0, 0], Some("parcel 0,0")));
    assert_eq!((outside.limit, outside.join_distance_m, outside.rules.len()), (100, 64.0, 0));
}
