//! An engine resumed from the clients' assignments continues where another one stopped.

// Test helpers fail by panicking.
#![allow(clippy::unwrap_used)]

mod reports;

use std::{sync::Arc, time::Duration};

use archipelago::{
    ClientReport, Engine, EngineSnapshot, Heartbeat, Input, LastAssignment, Output, PeerSnapshot,
    ReportedAssignment, Settings, Transport,
    rules::Rules,
    sim::{self, address},
};
use protocol::{Address, IslandId, Position, SessionId, timing::ASSIGNMENT_ROUND_TRIP};

const NOW: Duration = Duration::from_secs(1_000);
const LATER: Duration = Duration::from_millis(1_000_250);

fn node(name: &str) -> Transport {
    sim::node(name.parse().unwrap(), 100)
}

fn at(x: f32) -> Position {
    Position::new(x, 0.0, 0.0)
}

fn peer_snapshot(number: u32, x: f32, assigned: Option<(&str, &str)>) -> PeerSnapshot {
    PeerSnapshot {
        peer: address(number),
        session: Some(SessionId::new(1, 1)),
        transports: None,
        position: at(x),
        desired_room: None,
        needs_assignment: false,
        cluster: None,
        last_assigned: assigned.map(|(island, node)| LastAssignment {
            island: island.parse().unwrap(),
            node: node.parse().unwrap(),
        }),
        last_seen: NOW,
        departed_at: None,
        taken_over: false,
    }
}

fn snapshot(peer_snapshots: Vec<PeerSnapshot>) -> EngineSnapshot {
    EngineSnapshot {
        transports: vec![node("one"), node("two")],
        peers: peer_snapshots,
        ..EngineSnapshot::default()
    }
}

fn resume(snapshot: EngineSnapshot) -> Engine {
    Engine::resume(Settings::default(), 7, snapshot, NOW).unwrap()
}

fn flush(engine: &mut Engine, now: Duration) -> Vec<Output> {
    let mut outputs = Vec::new();
    engine.flush(now, &mut outputs);
    outputs
}

fn island_of(engine: &Engine, number: u32) -> String {
    engine.peer(address(number)).unwrap().island().unwrap().id().to_string()
}

/// The assignments in the outputs: peer, island, node and former island.
fn assignments(outputs: &[Output]) -> Vec<(Address, String, String, Option<String>)> {
    let assigned = outputs.iter().filter_map(|output| match output {
        Output::Assigned { peer, island, from, .. } => {
            let from = from.as_ref().map(ToString::to_string);
            Some((*peer, island.id.to_string(), island.node.to_string(), from))
        }
        _ => None,
    });
    assigned.collect()
}

#[test]
fn unchanged_peers_get_no_assignment() {
    // Islands of an engine with the same prefix, and of one with another.
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000055", "one"))),
        peer_snapshot(2, 70.0, Some(("I000000055", "one"))),
        peer_snapshot(3, 500.0, Some(("world-1", "two"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    assert_eq!(
        flush(&mut engine, LATER + Duration::from_secs(60)).len(),
        3,
        "three silent peers are removed"
    );
    let islands = [1, 2, 3].map(|number| engine.peer(address(number)).is_none());
    assert_eq!(islands, [true; 3]);
}

#[test]
fn newcomers_join_and_new_islands_get_unused_ids() {
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000085", "one"))),
        peer_snapshot(2, 10.0, None),
        peer_snapshot(3, 500.0, None),
    ]));
    let outputs = flush(&mut engine, LATER);
    assert_eq!(island_of(&engine, 1), "I000000085");
    assert_eq!(island_of(&engine, 2), "I000000085");
    // The id of the first island is from an engine that started after the start time of this one, so that new
    // ids continue after it.
    assert_eq!(island_of(&engine, 3), "I000000092");
    let mut assigned: Vec<Address> = assignments(&outputs).into_iter().map(|(peer, ..)| peer).collect();
    assigned.sort();
    let mut expected = [address(2), address(3)];
    expected.sort();
    assert_eq!(assigned, expected);
}

#[test]
fn older_of_two_equal_islands_survives() {
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I0000000510", "one"))),
        peer_snapshot(2, 50.0, Some(("I00000005z", "one"))),
    ]));
    let outputs = flush(&mut engine, LATER);
    let from = Some("I0000000510".to_owned());
    assert_eq!(assignments(&outputs), [(address(1), "I00000005z".into(), "one".into(), from)]);
    assert!(outputs.contains(&Output::Closed { island: "I0000000510".parse().unwrap() }), "{outputs:?}");
}

#[test]
fn island_keeps_the_node_assigned_to_most_members() {
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000051", "two"))),
        peer_snapshot(2, 1.0, Some(("I000000051", "one"))),
        peer_snapshot(3, 2.0, Some(("I000000051", "two"))),
    ]));
    let same = Some("I000000051".to_owned());
    assert_eq!(
        assignments(&flush(&mut engine, LATER)),
        [(address(2), "I000000051".into(), "two".into(), same)]
    );
}

#[test]
fn island_of_unknown_node_moves_or_waits() {
    let peer_snapshots = || vec![peer_snapshot(1, 0.0, Some(("I000000051", "lost")))];
    let mut engine = resume(snapshot(peer_snapshots()));
    let moved = flush(&mut engine, LATER);
    assert!(
        moved.iter().any(|output| matches!(output, Output::Moved { from, .. } if from.as_str() == "lost")),
        "{moved:?}"
    );
    assert_eq!(engine.transports().count(), 2, "the third node never announced itself");
    let mut engine = resume(EngineSnapshot { peers: peer_snapshots(), ..EngineSnapshot::default() });
    assert_eq!(flush(&mut engine, LATER), []);
    engine.handle(Input::Transport(node("lost")), LATER);
    assert_eq!(flush(&mut engine, LATER), []);
    assert_eq!(engine.peer(address(1)).unwrap().island().unwrap().transport().unwrap().as_str(), "lost");
}

#[test]
fn departed_peer_rejoins_within_the_return_window() {
    let departed = |number, x, seconds_ago| {
        let mut peer_snapshot = peer_snapshot(number, x, Some(("I000000051", "one")));
        peer_snapshot.departed_at = Some(NOW - Duration::from_secs(seconds_ago));
        peer_snapshot
    };
    let back = |number, x| {
        let session = Some(SessionId::new(1, 1));
        Input::Heartbeat(Heartbeat { session, ..Heartbeat::new(address(number), at(x)) })
    };
    let mut engine = resume(snapshot(vec![departed(1, 0.0, 9), departed(2, 0.0, 4), departed(3, 0.0, 10)]));
    assert_eq!((flush(&mut engine, LATER), engine.islands_count()), (vec![], 0));
    assert_eq!(flush(&mut engine, NOW + Duration::from_secs(2)), [], "peer 1 is forgotten");
    engine.handle(back(2, 79.0), NOW + Duration::from_secs(2));
    let outputs = flush(&mut engine, NOW + Duration::from_secs(2));
    assert_eq!(assignments(&outputs), [(address(2), "I000000051".into(), "one".into(), None)]);

    let mut engine = resume(snapshot(vec![departed(1, 0.0, 9), departed(2, 0.0, 4)]));
    assert_eq!(
        flush(&mut engine, NOW + Duration::from_secs(6)),
        [Output::Closed { island: "I000000051".parse().unwrap() }]
    );
}

#[test]
fn greatest_session_wins_and_invalid_position_is_refused() {
    let newer = SessionId::new(2, 2);
    let other = PeerSnapshot { session: Some(newer), ..peer_snapshot(1, 300.0, Some(("I000000052", "one"))) };
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000051", "one"))),
        other,
        peer_snapshot(2, f32::NAN, Some(("I000000053", "one"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    assert_eq!((engine.peers_count(), engine.counters().positions_refused), (1, 1));
    assert_eq!(engine.peer(address(1)).unwrap().session(), Some(newer));
    assert_eq!(island_of(&engine, 1), "I000000052");
}

#[test]
fn preference_for_a_restored_island_is_kept() {
    let peer_snapshot = |number, x, island: &str| peer_snapshot(number, x, Some((island, "one")));
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, "I000000051"),
        peer_snapshot(2, 100.0, "far_1"),
        PeerSnapshot {
            desired_room: Some("far_1".into()),
            last_assigned: None,
            ..peer_snapshot(3, 45.0, "far_1")
        },
    ]));
    flush(&mut engine, LATER);
    // Island I000000051 is nearer, but all three fit one island: this test is only about the preference.
    assert_eq!(engine.peer(address(3)).unwrap().desired_room().unwrap().as_str(), "far_1");
    assert_eq!(island_of(&engine, 3), "far_1");
}

#[test]
fn restored_border_crossing_waits_for_settling_time() {
    let rules = "[[rule]]\nname = \"casino\"\narea = { parcels = [\"0,0\"] }\nexclusive = true\n";
    let peer_snapshot = |number, x| peer_snapshot(number, x, Some(("I000000051", "one")));
    let snapshot = EngineSnapshot {
        rules: Arc::new(Rules::parse(rules).unwrap()),
        ..snapshot(vec![peer_snapshot(1, 5.0), peer_snapshot(2, 6.0), peer_snapshot(3, 20.0)])
    };
    let mut engine = resume(snapshot);
    assert_eq!(flush(&mut engine, LATER), []);
    let outputs = flush(&mut engine, NOW + Duration::from_secs(3));
    assert_eq!(assignments(&outputs).len(), 1, "{outputs:?}");
    assert_ne!(island_of(&engine, 3), "I000000051");
}

#[test]
fn restored_peer_that_needs_an_assignment_gets_it() {
    let assigned = Some(("I000000055", "one"));
    let lacking = PeerSnapshot { needs_assignment: true, ..peer_snapshot(1, 0.0, assigned) };
    let mut engine = resume(snapshot(vec![lacking, peer_snapshot(2, 70.0, assigned)]));
    let again = (address(1), "I000000055".to_owned(), "one".to_owned(), None);
    assert_eq!(assignments(&flush(&mut engine, LATER)), [again]);
    assert_eq!(flush(&mut engine, LATER), []);
}

#[test]
fn resume_rejects_invalid_settings() {
    let settings = Settings { id_prefix: String::new(), ..Settings::default() };
    assert!(Engine::resume(settings, 7, EngineSnapshot::default(), NOW).is_err());
}

#[test]
fn node_with_new_url_reassigns_its_members() {
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000055", "one"))),
        peer_snapshot(2, 70.0, Some(("I000000055", "one"))),
        peer_snapshot(3, 500.0, Some(("world-1", "two"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    engine.handle(Input::Transport(node("one")), LATER);
    assert_eq!(flush(&mut engine, LATER), [], "the URL is the same");
    engine.handle(Input::Transport(Transport { public_url: "ws://elsewhere".into(), ..node("one") }), LATER);
    let outputs = flush(&mut engine, LATER);
    let again = |number| {
        let island = "I000000055".to_owned();
        (address(number), island.clone(), "one".to_owned(), Some(island))
    };
    assert_eq!(assignments(&outputs), [again(1), again(2)]);
    assert_eq!(outputs.len(), 2, "no other output: {outputs:?}");
}

#[test]
fn restarted_node_reassigns_its_members_once() {
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000055", "one"))),
        peer_snapshot(2, 70.0, Some(("I000000055", "one"))),
        peer_snapshot(3, 500.0, Some(("world-1", "two"))),
    ]));
    let started = |node_name: &str, started_ms| Input::Transport(Transport { started_ms, ..node(node_name) });
    let mut after = |node_name: &str, started_ms| {
        engine.handle(started(node_name, started_ms), LATER);
        let outputs = flush(&mut engine, LATER);
        assert_eq!(assignments(&outputs).len(), outputs.len(), "no other output: {outputs:?}");
        assignments(&outputs)
    };
    let again = |number| {
        let island = "I000000055".to_owned();
        (address(number), island.clone(), "one".to_owned(), Some(island))
    };
    assert_eq!(after("one", 0), []);
    assert_eq!(after("one", 1_000), [again(1), again(2)]);
    assert_eq!(after("one", 1_000), [], "the same process");
    assert_eq!(after("one", 2_000), [again(1), again(2)]);
    // Two processes announce the same name alternately.
    for started_ms in [1_000, 2_000, 1_000, 2_000] {
        assert_eq!(after("one", started_ms), []);
    }
}

#[test]
fn drained_node_that_restarts_causes_no_assignment() {
    let mut engine = resume(snapshot(vec![peer_snapshot(1, 0.0, Some(("I000000055", "one")))]));
    engine.handle(Input::Transport(Transport { draining: true, ..node("one") }), LATER);
    let outputs = flush(&mut engine, LATER);
    let moved = (address(1), "I000000055".to_owned(), "two".to_owned(), Some("I000000055".to_owned()));
    assert_eq!(assignments(&outputs), [moved]);
    engine.handle(Input::Transport(Transport { started_ms: 1_000, ..node("one") }), LATER);
    assert_eq!(flush(&mut engine, LATER), []);
}

#[test]
fn unresumed_session_takes_over_at_the_next_flush_once() {
    let session = |number| Some(SessionId::new(number, 1));
    let connected = |number, resumes| Input::Connected {
        peer: address(1),
        session: session(number),
        transports: None,
        resumes,
    };
    let island: IslandId = "I000000055".parse().unwrap();
    let revoked = Output::TakenOver { island, peer: address(1) };
    let mut engine = resume(snapshot(vec![
        peer_snapshot(1, 0.0, Some(("I000000055", "one"))),
        peer_snapshot(2, 70.0, Some(("I000000055", "one"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    engine.handle(connected(2, session(1)), LATER);
    assert_eq!(flush(&mut engine, LATER), [], "session 2 resumes the current session");
    engine.handle(connected(3, session(1)), LATER);
    engine.handle(connected(4, session(3)), LATER);
    assert_eq!(
        flush(&mut engine, LATER),
        std::slice::from_ref(&revoked),
        "session 3 did not resume session 2"
    );
    assert_eq!(flush(&mut engine, LATER), []);
    // The peer leaves and returns with a session that does not resume the former one.
    let heartbeat = |number| {
        Input::Heartbeat(Heartbeat { session: session(number), ..Heartbeat::new(address(1), at(0.0)) })
    };
    engine.handle(heartbeat(4), LATER);
    assert!(!flush(&mut engine, LATER).contains(&revoked));
    engine.handle(Input::Disconnected { peer: address(1), session: session(4) }, LATER);
    assert!(matches!(flush(&mut engine, LATER)[..], [Output::Left { .. }]));
    engine.handle(connected(5, None), LATER);
    assert_eq!(flush(&mut engine, LATER), [], "the peer is in no island");
    engine.handle(heartbeat(5), LATER);
    let outputs = flush(&mut engine, LATER);
    assert!(
        matches!(&outputs[..], [first, Output::Joined { .. }, Output::Assigned { .. }] if *first == revoked)
    );
}

#[test]
fn pending_session_takeover_is_emitted_after_resume() {
    let newer = PeerSnapshot { taken_over: true, ..peer_snapshot(1, 0.0, Some(("I000000055", "one"))) };
    let mut engine = resume(snapshot(vec![newer, peer_snapshot(2, 70.0, Some(("I000000055", "one")))]));
    let revoked = Output::TakenOver { island: "I000000055".parse().unwrap(), peer: address(1) };
    assert_eq!(flush(&mut engine, LATER), [revoked]);
    assert_eq!(flush(&mut engine, LATER), []);
}
