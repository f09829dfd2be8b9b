//! One engine goes on where another ended.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use archipelago::{
    Engine, EngineSnapshot, Input, LastAssignment, Output, PeerSnapshot, Settings, Transport,
    rules::Rules,
    sim::{self, address},
};
use protocol::{Address, IslandId, Position, SessionId};

const NOW: Duration = Duration::from_secs(1_000);
const LATER: Duration = Duration::from_millis(1_000_250);

fn node(name: &str) -> Transport {
    sim::node(name.parse().unwrap(), 100)
}

fn at(x: f32) -> Position {
    Position::new(x, 0.0, 0.0)
}

fn resident(person: u32, x: f32, told: Option<(&str, &str)>) -> PeerSnapshot {
    PeerSnapshot {
        peer: address(person),
        session: Some(SessionId::new(1, 1)),
        transports: None,
        position: at(x),
        desired_room: None,
        cluster: None,
        last_assigned: told.map(|(island, node)| LastAssignment {
            island: island.parse().unwrap(),
            node: node.parse().unwrap(),
        }),
        last_seen: NOW,
        departed_at: None,
        taken_over: false,
    }
}

fn takeover(residents: Vec<PeerSnapshot>) -> EngineSnapshot {
    EngineSnapshot {
        transports: vec![node("one"), node("two")],
        peers: residents,
        ..EngineSnapshot::default()
    }
}

fn resume(takeover: EngineSnapshot) -> Engine {
    Engine::resume(Settings::default(), 7, takeover, NOW).unwrap()
}

fn flush(engine: &mut Engine, now: Duration) -> Vec<Output> {
    let mut outputs = Vec::new();
    engine.flush(now, &mut outputs);
    outputs
}

fn island_of(engine: &Engine, person: u32) -> String {
    engine.peer(address(person)).unwrap().island().unwrap().id().to_string()
}

/// Who is told of which island and node, and from which.
fn assignments(outputs: &[Output]) -> Vec<(Address, String, String, Option<String>)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Assigned { peer, island, transport, from, .. } => {
            Some((*peer, island.to_string(), transport.to_string(), from.as_ref().map(ToString::to_string)))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn unchanged_peers_get_no_assignment() {
    // Islands of an engine with the same prefix, and of another.
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000055", "one"))),
        resident(2, 70.0, Some(("I000000055", "one"))),
        resident(3, 500.0, Some(("world-1", "two"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    assert_eq!(flush(&mut engine, LATER + Duration::from_secs(60)).len(), 3, "and three fall silent");
    let islands = [1, 2, 3].map(|person| engine.peer(address(person)).is_none());
    assert_eq!(islands, [true; 3]);
}

#[test]
fn newcomers_join_and_new_islands_get_unused_ids() {
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000085", "one"))),
        resident(2, 10.0, None),
        resident(3, 500.0, None),
    ]));
    let outputs = flush(&mut engine, LATER);
    assert_eq!(island_of(&engine, 1), "I000000085");
    assert_eq!(island_of(&engine, 2), "I000000085");
    // The engine of that island started later than this one says it did.
    assert_eq!(island_of(&engine, 3), "I000000092");
    let mut told: Vec<Address> = assignments(&outputs).into_iter().map(|(peer, ..)| peer).collect();
    told.sort();
    let mut expected = [address(2), address(3)];
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn older_of_two_equal_islands_survives() {
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I0000000510", "one"))),
        resident(2, 50.0, Some(("I00000005z", "one"))),
    ]));
    let outputs = flush(&mut engine, LATER);
    let from = Some("I0000000510".to_owned());
    assert_eq!(assignments(&outputs), [(address(1), "I00000005z".into(), "one".into(), from)]);
    assert!(outputs.contains(&Output::Closed { island: "I0000000510".parse().unwrap() }), "{outputs:?}");
}

#[test]
fn island_keeps_the_node_assigned_to_most_members() {
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000051", "two"))),
        resident(2, 1.0, Some(("I000000051", "one"))),
        resident(3, 2.0, Some(("I000000051", "two"))),
    ]));
    let same = Some("I000000051".to_owned());
    assert_eq!(
        assignments(&flush(&mut engine, LATER)),
        [(address(2), "I000000051".into(), "two".into(), same)]
    );
}

#[test]
fn island_of_unknown_node_moves_or_waits() {
    let residents = || vec![resident(1, 0.0, Some(("I000000051", "lost")))];
    let mut engine = resume(takeover(residents()));
    let moved = flush(&mut engine, LATER);
    assert!(
        moved.iter().any(|output| matches!(output, Output::Moved { from, .. } if from.as_str() == "lost")),
        "{moved:?}"
    );
    assert_eq!(engine.transports().count(), 2, "nobody has heard of the third");
    let mut engine = resume(EngineSnapshot { peers: residents(), ..EngineSnapshot::default() });
    assert_eq!(flush(&mut engine, LATER), []);
    engine.handle(Input::Transport(node("lost")), LATER);
    assert_eq!(flush(&mut engine, LATER), []);
    assert_eq!(engine.peer(address(1)).unwrap().island().unwrap().transport().unwrap().as_str(), "lost");
}

#[test]
fn departed_peer_rejoins_within_the_return_window() {
    let left = |person, x, seconds_ago| {
        let mut resident = resident(person, x, Some(("I000000051", "one")));
        resident.departed_at = Some(NOW - Duration::from_secs(seconds_ago));
        resident
    };
    let back = |person, x| Input::Heartbeat {
        peer: address(person),
        session: Some(SessionId::new(1, 1)),
        position: at(x),
        desired_room: None,
    };
    let mut engine = resume(takeover(vec![left(1, 0.0, 9), left(2, 0.0, 4), left(3, 0.0, 10)]));
    assert_eq!((flush(&mut engine, LATER), engine.islands_count()), (vec![], 0));
    assert_eq!(flush(&mut engine, NOW + Duration::from_secs(2)), [], "the first is forgotten");
    engine.handle(back(2, 79.0), NOW + Duration::from_secs(2));
    let outputs = flush(&mut engine, NOW + Duration::from_secs(2));
    assert_eq!(assignments(&outputs), [(address(2), "I000000051".into(), "one".into(), None)]);

    let mut engine = resume(takeover(vec![left(1, 0.0, 9), left(2, 0.0, 4)]));
    assert_eq!(
        flush(&mut engine, NOW + Duration::from_secs(6)),
        [Output::Closed { island: "I000000051".parse().unwrap() }]
    );
}

#[test]
fn greatest_session_wins_and_invalid_position_is_refused() {
    let newer = SessionId::new(2, 2);
    let other = PeerSnapshot { session: Some(newer), ..resident(1, 300.0, Some(("I000000052", "one"))) };
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000051", "one"))),
        other,
        resident(2, f32::NAN, Some(("I000000053", "one"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    assert_eq!((engine.peers_count(), engine.counters().positions_refused), (1, 1));
    assert_eq!(engine.peer(address(1)).unwrap().session(), Some(newer));
    assert_eq!(island_of(&engine, 1), "I000000052");
}

#[test]
fn preference_for_a_restored_island_is_kept() {
    let resident = |person, x, island: &str| resident(person, x, Some((island, "one")));
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, "I000000051"),
        resident(2, 100.0, "far_1"),
        PeerSnapshot {
            desired_room: Some("far_1".into()),
            last_assigned: None,
            ..resident(3, 45.0, "far_1")
        },
    ]));
    flush(&mut engine, LATER);
    // The first is nearer, but all three fit one island, which is not what this is about.
    assert_eq!(engine.peer(address(3)).unwrap().desired_room().unwrap().as_str(), "far_1");
    assert_eq!(island_of(&engine, 3), "far_1");
}

#[test]
fn restored_border_crossing_waits_for_settling_time() {
    let rules = "[[rule]]\nname = \"casino\"\narea = { parcels = [\"0,0\"] }\nexclusive = true\n";
    let resident = |person, x| resident(person, x, Some(("I000000051", "one")));
    let takeover = EngineSnapshot {
        rules: Arc::new(Rules::parse(rules).unwrap()),
        ..takeover(vec![resident(1, 5.0), resident(2, 6.0), resident(3, 20.0)])
    };
    let mut engine = resume(takeover);
    assert_eq!(flush(&mut engine, LATER), []);
    let outputs = flush(&mut engine, NOW + Duration::from_secs(3));
    assert_eq!(assignments(&outputs).len(), 1, "{outputs:?}");
    assert_ne!(island_of(&engine, 3), "I000000051");
}

#[test]
fn missed_assignment_is_sent_again() {
    let island = "I000000051";
    let mut engine = resume(takeover(vec![resident(1, 0.0, Some((island, "one")))]));
    let (peer, session) = (address(1), Some(SessionId::new(1, 1)));
    flush(&mut engine, LATER);
    assert!(engine.matches_last_assignment(peer, session, Some((island, "one"))));
    assert!(engine.matches_last_assignment(peer, None, Some((island, "one"))));
    for other in [None, Some((island, "two")), Some(("I000000052", "one"))] {
        assert!(!engine.matches_last_assignment(peer, session, other), "{other:?}");
        assert!(engine.matches_last_assignment(peer, Some(SessionId::new(2, 2)), other), "another session");
        assert!(engine.matches_last_assignment(address(2), session, other), "nobody");
    }
    engine.handle(Input::ResendAssignment { peer, session: Some(SessionId::new(0, 1)), from: None }, LATER);
    assert_eq!((flush(&mut engine, LATER), engine.counters().stale_messages), (vec![], 1));
    for from in [Some("I000000050a"), Some(island), None] {
        let parsed = from.map(|from| from.parse().unwrap());
        engine.handle(Input::ResendAssignment { peer, session, from: parsed }, LATER);
        assert!(engine.matches_last_assignment(peer, session, None), "it will be told");
        // An island that nobody can have been told of is none to come from.
        let from = from.filter(|&from| from == island).map(str::to_owned);
        assert_eq!(assignments(&flush(&mut engine, LATER)), [(peer, island.into(), "one".into(), from)]);
        assert!(!engine.matches_last_assignment(peer, session, None));
    }
    engine.handle(Input::Disconnected { peer, session }, LATER);
    assert!(engine.matches_last_assignment(peer, session, None));
}

#[test]
fn resume_rejects_invalid_settings() {
    let settings = Settings { id_prefix: String::new(), ..Settings::default() };
    assert!(Engine::resume(settings, 7, EngineSnapshot::default(), NOW).is_err());
}

#[test]
fn node_with_new_url_reassigns_its_members() {
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000055", "one"))),
        resident(2, 70.0, Some(("I000000055", "one"))),
        resident(3, 500.0, Some(("world-1", "two"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    engine.handle(Input::Transport(node("one")), LATER);
    assert_eq!(flush(&mut engine, LATER), [], "it is where it was");
    engine.handle(Input::Transport(Transport { public_url: "ws://elsewhere".into(), ..node("one") }), LATER);
    let outputs = flush(&mut engine, LATER);
    let again = |person| {
        let island = "I000000055".to_owned();
        (address(person), island.clone(), "one".to_owned(), Some(island))
    };
    assert_eq!(assignments(&outputs), [again(1), again(2)]);
    assert_eq!(outputs.len(), 2, "and nothing else changes: {outputs:?}");
}

#[test]
fn restarted_node_reassigns_its_members_once() {
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000055", "one"))),
        resident(2, 70.0, Some(("I000000055", "one"))),
        resident(3, 500.0, Some(("world-1", "two"))),
    ]));
    let started = |node_name: &str, started_ms| Input::Transport(Transport { started_ms, ..node(node_name) });
    let mut after = |node_name: &str, started_ms| {
        engine.handle(started(node_name, started_ms), LATER);
        let outputs = flush(&mut engine, LATER);
        assert_eq!(assignments(&outputs).len(), outputs.len(), "nothing else changes: {outputs:?}");
        assignments(&outputs)
    };
    let again = |person| {
        let island = "I000000055".to_owned();
        (address(person), island.clone(), "one".to_owned(), Some(island))
    };
    assert_eq!(after("one", 0), []);
    assert_eq!(after("one", 1_000), [again(1), again(2)]);
    assert_eq!(after("one", 1_000), [], "the same process");
    assert_eq!(after("one", 2_000), [again(1), again(2)]);
    // Two processes announce the name in turn.
    for started_ms in [1_000, 2_000, 1_000, 2_000] {
        assert_eq!(after("one", started_ms), []);
    }
}

#[test]
fn drained_node_that_restarts_causes_no_assignment() {
    let mut engine = resume(takeover(vec![resident(1, 0.0, Some(("I000000055", "one")))]));
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
    let mut engine = resume(takeover(vec![
        resident(1, 0.0, Some(("I000000055", "one"))),
        resident(2, 70.0, Some(("I000000055", "one"))),
    ]));
    assert_eq!(flush(&mut engine, LATER), []);
    engine.handle(connected(2, session(1)), LATER);
    assert_eq!(flush(&mut engine, LATER), [], "it resumes the session that is known");
    engine.handle(connected(3, session(1)), LATER);
    engine.handle(connected(4, session(3)), LATER);
    assert_eq!(flush(&mut engine, LATER), std::slice::from_ref(&revoked), "3 did not resume 2");
    assert_eq!(flush(&mut engine, LATER), []);
    // It leaves, and a session that does not resume it comes back.
    let heartbeat = |number| Input::Heartbeat {
        peer: address(1),
        session: session(number),
        position: at(0.0),
        desired_room: None,
    };
    engine.handle(heartbeat(4), LATER);
    assert!(!flush(&mut engine, LATER).contains(&revoked));
    engine.handle(Input::Disconnected { peer: address(1), session: session(4) }, LATER);
    assert!(matches!(flush(&mut engine, LATER)[..], [Output::Left { .. }]));
    engine.handle(connected(5, None), LATER);
    assert_eq!(flush(&mut engine, LATER), [], "it is in no island");
    engine.handle(heartbeat(5), LATER);
    let outputs = flush(&mut engine, LATER);
    assert!(
        matches!(&outputs[..], [first, Output::Joined { .. }, Output::Assigned { .. }] if *first == revoked)
    );
}

#[test]
fn pending_session_takeover_is_emitted_after_resume() {
    let newer = PeerSnapshot { taken_over: true, ..resident(1, 0.0, Some(("I000000055", "one"))) };
    let mut engine = resume(takeover(vec![newer, resident(2, 70.0, Some(("I000000055", "one")))]));
    let revoked = Output::TakenOver { island: "I000000055".parse().unwrap(), peer: address(1) };
    assert_eq!(flush(&mut engine, LATER), [revoked]);
    assert_eq!(flush(&mut engine, LATER), []);
}
