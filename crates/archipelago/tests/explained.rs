//! Staged situations, and the first line of what is said about each.

use archipelago::{
    explain::{Cause, Question},
    scenario::{address, run_to_engine},
};
use protocol::Position;

/// What is asked.
enum Ask {
    /// Why two peers do not hear each other.
    Why(&'static str, &'static str),
    /// Why the island of this peer is as it is.
    Island(&'static str),
    /// Where this peer is.
    Peer(&'static str),
    /// What holds here.
    At(f32, f32),
}

use Ask::*;

const CASINO: &str = "rules\n| [[rule]]\n| name = \"casino\"\n| area = { parcels = [\"0,0\"] }\n";
const VOICE: &str = "rules\n| [[rule]]\n| name = \"voice\"\n| transports = [\"livekit\", \"ws-room\"]\n";

/// A situation, how it comes about, what is asked, the cause, and words that the first line has.
type Situation = (&'static str, String, Ask, Cause, &'static str);

fn situations() -> Vec<Situation> {
    let story = |text: &str| text.replace("; ", "\n");
    let ruled = |rules: &str, text: &str| format!("{rules}{}", story(text));
    vec![
        (
            "together",
            story("node w; move a 0 0 0; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::Together,
            "they are together in I000000001 on w",
        ),
        (
            "full island",
            story("limit 2; node w; move a 0 0 0; move b 5 0 0; move c 10 0 0; flush"),
            Why("a", "c"),
            Cause::FullIsland,
            "would have 3 members, and 2 are the most",
        ),
        (
            "exclusive rule",
            ruled(CASINO, "node w; move a 10 0 8; move b 20 0 8; flush"),
            Why("b", "a"),
            Cause::ExclusiveRule,
            "rule `casino` keeps the people of parcel 0,0 to themselves, and only 0x61",
        ),
        (
            "too far",
            story("node w; move a 0 0 0; move c -30 0 0; move b 90 0 0; flush"),
            Why("c", "b"),
            Cause::TooFar,
            "their islands are 90.0 m apart",
        ),
        (
            "hysteresis",
            story("node w; move a 0 0 0; move b 70 0 0; flush"),
            Why("a", "b"),
            Cause::Hysteresis,
            "70.0 m apart: people come together within 64 m, and only stay together up to 80 m",
        ),
        (
            "no seats, waiting",
            story("node w seats 1; move a 0 0 0; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::NoSeats,
            "I000000001 waits for a transport: no rule decides, and w is no place for it: free seats: 1, and they are 2",
        ),
        (
            "no seats, on the next choice",
            ruled(VOICE, "node l kind livekit seats 1; node w; move a 0 0 0; move b 5 0 0; flush"),
            Island("a"),
            Cause::NoSeats,
            "I000000001 is on w: rule `voice` decides, and l is no place for it: free seats: 1, and they are 2",
        ),
        (
            "node dead",
            ruled(VOICE, "node l kind livekit; node w; move a 0 0 0; flush; hush-node l; wait 5s"),
            Island("a"),
            Cause::NodeDead,
            "is on w: rule `voice` decides, and l is no place for it: not heard for 5.0 s",
        ),
        (
            "node dead, and no other",
            story("node w; move a 0 0 0; move b 5 0 0; flush; hush-node w; wait 5s"),
            Why("a", "b"),
            Cause::NodeDead,
            "waits for a transport",
        ),
        (
            "silent peer",
            story("node w; move a 0 0 0; move b 5 0 0; flush; hush b; wait 16s"),
            Why("a", "b"),
            Cause::SilentPeer,
            "0x6200000000000000000000000000000000000000 was not heard for 16.0 s, and 15 s are the most",
        ),
        (
            "signed off",
            story("node w; move a 0 0 0; move b 5 0 0; flush; leave b; flush"),
            Why("a", "b"),
            Cause::Left,
            "0x6200000000000000000000000000000000000000 signed off",
        ),
        (
            "never there",
            story("node w; move a 0 0 0; flush"),
            Why("a", "b"),
            Cause::Unknown,
            "0x6200000000000000000000000000000000000000 is not in the world",
        ),
        (
            "capability",
            story("node w; node l kind livekit; client a ws-room; client b livekit; move a 0 0 0; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::Capability,
            "one island can join ws-room, the other livekit",
        ),
        (
            "capability, of an island",
            ruled(VOICE, "node w; node l kind livekit; client a ws-room; move a 0 0 0; flush"),
            Island("a"),
            Cause::Capability,
            "is on w: rule `voice` decides, and l is no place for it: 0x6100000000000000000000000000000000000000 cannot join livekit",
        ),
        (
            "settling at a border",
            ruled(CASINO, "node w; move a 10 0 8; move b 20 0 8; flush; move b 12 0 8; wait 1s"),
            Why("a", "b"),
            Cause::Settling,
            "0x6200000000000000000000000000000000000000 has crossed a border, which counts when it has lasted, in 2.0 s",
        ),
        (
            "settling, of a peer",
            ruled(CASINO, "node w; move a 10 0 8; move b 20 0 8; flush; move b 12 0 8; wait 1s"),
            Peer("b"),
            Cause::Settling,
            "0x6200000000000000000000000000000000000000 has crossed a border, which counts when it has lasted, in 2.0 s",
        ),
        (
            "settling before a move",
            ruled(VOICE, "node w; move a 0 0 0; flush; node l kind livekit; wait 1s"),
            Island("a"),
            Cause::Settling,
            "is on w: rule `voice` decides, and it goes to l when that has lasted, in 2.2 s",
        ),
        (
            "preference",
            story("limit 2; node w; move a 0 0 0; move b 10 0 0; move d 70 0 0; flush; prefer b a; move c 30 0 0; flush"),
            Why("b", "c"),
            Cause::Preference,
            "0x6200000000000000000000000000000000000000 would like to be in I000000001, and is",
        ),
        (
            "draining",
            story("node w; move a 0 0 0; flush; node w draining; move b 5 0 0; flush"),
            Why("a", "b"),
            Cause::Draining,
            "0x6200000000000000000000000000000000000000 waits: w, where its island is, takes no more people",
        ),
        (
            "draining, of an island",
            story("node w; move a 0 0 0; flush; node w draining; flush"),
            Island("a"),
            Cause::Draining,
            "is on w, which is draining, as nothing else is to be had",
        ),
        (
            "other session",
            story("node w; move a 0 0 0 session 1; move b 5 0 0; flush; connect a 2; move a 0 0 0 session 1; flush"),
            Why("a", "b"),
            Cause::OtherSession,
            "0x6100000000000000000000000000000000000000 signed in again elsewhere",
        ),
        (
            "other session, which is quiet yet",
            story("node w; move a 0 0 0 session 1; move b 5 0 0; flush; connect a 2; flush"),
            Why("b", "a"),
            Cause::OtherSession,
            "in its new session it has not yet said where it is",
        ),
        (
            "outgrown",
            "node p kind p2p size 1\nnode w\nrules\n| [[rule]]\n| name = \"mesh\"\n| transports = [\"p2p\", \"ws-room\"]\nclient a p2p ws-room\nclient b p2p ws-room\nmove a 0 0 0\nmove b 5 0 0\nflush".to_owned(),
            Island("a"),
            Cause::Outgrown,
            "is on w: rule `mesh` decides, and p is no place for it: holds 1 in a room, and they are 2",
        ),
        (
            "no such transport",
            ruled(VOICE, "node w; move a 0 0 0; flush"),
            Island("a"),
            Cause::NoTransport,
            "is on w: rule `voice` decides, and livekit is no place for it: there is none",
        ),
        (
            "another node of the same kind is dead",
            story("node w; move a 0 0 0; flush; node v; flush; hush-node v; wait 5s"),
            Island("a"),
            Cause::AsWanted,
            "I000000001 is on w: no rule decides, and wants no other",
        ),
        (
            "two choices are dead",
            ruled(
                "rules\n| [[rule]]\n| name = \"voice\"\n| transports = [\"livekit\", { node = \"x\" }, \"ws-room\"]\n",
                "node l kind livekit; node x; node w; move a 0 0 0; flush; hush-node l; hush-node x; wait 5s",
            ),
            Island("a"),
            Cause::NodeDead,
            "is on w: rule `voice` decides, and l is no place for it: not heard for",
        ),
        (
            "as wanted",
            ruled(VOICE, "node l kind livekit; node w; move a 0 0 0; flush"),
            Peer("a"),
            Cause::AsWanted,
            "I000000001 is on l: rule `voice` decides, and wants no other",
        ),
        (
            "a place",
            ruled(CASINO, "node w; flush"),
            At(3.0, 3.0),
            Cause::ExclusiveRule,
            "rule `casino` is the first for those who stand here, who are kept to themselves in parcel 0,0",
        ),
    ]
}

#[test]
fn first_line_names_the_cause() {
    let mut failures = Vec::new();
    for (name, text, ask, cause, words) in situations() {
        let (engine, now) =
            run_to_engine(&text).unwrap_or_else(|error| panic!("{name}, {error}\n{text}")).unwrap();
        let question = match ask {
            Why(one, other) => Question::Pair(address(one), address(other)),
            Island(peer) => {
                let peer = engine.peer(address(peer)).unwrap();
                Question::Island(peer.island().unwrap().id())
            }
            Peer(peer) => Question::Peer(address(peer)),
            At(x, z) => Question::At(Position::new(x, 0.0, z)),
        };
        let answer = engine.explain(&question, now);
        let said = answer.to_string();
        let first = said.lines().next().unwrap_or_default();
        println!("{name:34} | {first}");
        if answer.cause != cause || !first.starts_with(cause.as_str()) || !first.contains(words) {
            failures.push(format!("{name}: {cause}: {words}\n{said}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Everything that an answer rests on is in both of its forms.
#[test]
fn text_and_json_state_all_facts() {
    let text = "node w seats 5\nnode l kind livekit\nmove a 10 0 8\nmove b 20 0 8\nflush\nname home a\nprefer a a\n\
                hush-node l\nwait 5s\nmove b 40 0 8\nwait 1s";
    let (engine, now) = run_to_engine(&format!("{CASINO}| transports = [\"livekit\", \"ws-room\"]\n{text}"))
        .unwrap()
        .unwrap();
    let answer = engine.explain(&Question::Pair(address("a"), address("b")), now);
    let said = answer.to_string();
    for part in [
        "exclusive rule: ",
        "peer 0x6100000000000000000000000000000000000000\n",
        "last heard 0.0 s ago at 10,0,8",
        "can join ws-room, livekit",
        "counted to areas: parcel 0,0",
        "counted to areas: none",
        "would like to be in I000000001",
        "was last told of I000000001 on w",
        "1 of at most 100 members, on w",
        "moved 2.",
        "rule `casino` decides",
        "+ rule `casino`: wants livekit, then ws-room",
        "- livekit l: not heard for 6.0 s",
        "+ ws-room w: free seats: 3",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
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
    let place = |x: f32| engine.explain(&Question::At(Position::new(x, 0.0, 0.0)), now).place.unwrap();
    let (inside, outside) = (place(0.0), place(-1.0));
    assert_eq!((inside.limit, inside.join_distance_m, inside.leave_distance_m), (7, 5.0, 6.0));
    assert_eq!((inside.parcel, inside.exclusive.as_deref()), ([0, 0], Some("parcel 0,0")));
    assert_eq!((outside.limit, outside.join_distance_m, outside.rules.len()), (100, 64.0, 0));
}
