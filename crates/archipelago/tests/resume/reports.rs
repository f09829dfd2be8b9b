//! A peer that reports its last assignment is sent the current one again only if it missed it.

use super::*;

/// A heartbeat of peer 1 of a client that received this assignment.
fn reporting(session: Option<SessionId>, island: &str, node: &str) -> Input {
    let reported = ReportedAssignment { island: island.to_owned(), node: node.to_owned() };
    let client = ClientReport { last_assigned: Some(reported), ..ClientReport::default() };
    Input::Heartbeat(Heartbeat {
        session,
        client: Some(Box::new(client)),
        ..Heartbeat::new(address(1), at(0.0))
    })
}

#[test]
fn missed_assignment_is_sent_again() {
    let (island, node, session) = ("I000000051", "one", Some(SessionId::new(1, 1)));
    for (received, received_node, from) in [
        ("", "", None),
        (island, "two", Some(island)),
        // An island that no client can have been assigned to is not used as the former island.
        ("I000000050a", node, None),
    ] {
        let mut engine = resume(snapshot(vec![peer_snapshot(1, 0.0, Some((island, node)))]));
        engine.handle(reporting(session, received, received_node), NOW);
        engine.handle(reporting(session, received, received_node), NOW + ASSIGNMENT_ROUND_TRIP);
        assert_eq!(flush(&mut engine, LATER), [], "not for longer than a round trip yet");
        let late = LATER + ASSIGNMENT_ROUND_TRIP;
        engine.handle(reporting(session, received, received_node), late);
        engine.handle(reporting(session, received, received_node), late);
        let outputs = flush(&mut engine, late);
        let from = from.map(str::to_owned);
        assert_eq!(assignments(&outputs), [(address(1), island.into(), node.into(), from)]);
        let [Output::AssignmentMissed { reported, .. }, _] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((&*reported.island, &*reported.node), (received, received_node));
        engine.handle(reporting(session, island, node), late + ASSIGNMENT_ROUND_TRIP * 9);
        assert_eq!(flush(&mut engine, late + ASSIGNMENT_ROUND_TRIP * 9), []);
    }
}

#[test]
fn report_of_a_valid_assignment_changes_nothing() {
    let (island, node, session) = ("I000000051", "one", Some(SessionId::new(1, 1)));
    let mut engine = resume(snapshot(vec![peer_snapshot(1, 0.0, Some((island, node)))]));
    for second in 0..9 {
        let now = NOW + Duration::from_secs(second);
        engine.handle(Input::Transport(self::node(node)), now);
        for session in [session, None] {
            engine.handle(reporting(session, island, node), now);
        }
        engine.handle(reporting(Some(SessionId::new(0, 1)), "", ""), now);
        assert_eq!(flush(&mut engine, now), [], "a replaced session proves nothing");
    }
    assert_eq!(engine.counters().stale_messages, 9);
}

#[test]
fn outdated_reports_cause_no_assignment() {
    let session = Some(SessionId::new(1, 1));
    let mut engine = resume(snapshot(vec![peer_snapshot(1, 0.0, Some(("I000000051", "one")))]));
    for second in 0..9 {
        let now = NOW + Duration::from_secs(second);
        engine.handle(Input::Transport(node("one")), now);
        engine.handle(reporting(session, "", ""), now);
        engine.handle(Input::ReportsOutdated, now);
        assert_eq!(flush(&mut engine, now), []);
    }
}
