//! Tests of the replica: the state that it hands over after given messages.

use archipelago::{ClientReport, PeerSnapshot, ReportedAssignment};
use protocol::Position;

use super::*;
use crate::tests::room_node;

const NOW: Duration = Duration::from_secs(100);

fn peer() -> Address {
    Address::new([1; 20])
}

fn session(number: u64) -> Option<SessionId> {
    Some(SessionId::new(number, 0))
}

fn seconds(seconds: f64) -> Duration {
    NOW + Duration::from_secs_f64(seconds)
}

fn reported(island: &str, node: &str) -> ReportedAssignment {
    ReportedAssignment { island: island.to_owned(), node: node.to_owned() }
}

fn heartbeat(session: Option<SessionId>, last_assigned: Option<ReportedAssignment>) -> BusEvent {
    let report = ClientReport { last_assigned, ..ClientReport::default() };
    let client = report.last_assigned.is_some().then(|| Box::new(report));
    let heartbeat = Heartbeat::new(peer(), Position::new(1.0, 2.0, 3.0));
    BusEvent::Heartbeat { heartbeat: Heartbeat { session, client, ..heartbeat }, epoch: 0 }
}

fn assigned(session: Option<SessionId>, island: &str) -> BusEvent {
    let (island, room) = (island.parse().unwrap(), RoomLocation::Node("node-1".parse().unwrap()));
    BusEvent::Assigned { peer: peer(), session, island, room }
}

fn ended(island: &str, node: Option<&str>) -> BusEvent {
    let (island, node) = (island.parse().unwrap(), node.map(|node| node.parse().unwrap()));
    BusEvent::MembershipsEnded {
        island,
        node,
        peers: vec![peer()],
        minted_before: Ulid::nil(),
        taken_over: false,
    }
}

/// The leader revoked the tokens of an older session.
fn taken_over(island: &str) -> BusEvent {
    let island = island.parse().unwrap();
    BusEvent::MembershipsEnded {
        island,
        node: None,
        peers: vec![peer()],
        minted_before: Ulid::nil(),
        taken_over: true,
    }
}

fn connected(session: Option<SessionId>) -> BusEvent {
    resuming(session, None)
}

fn resuming(session: Option<SessionId>, resumes: Option<SessionId>) -> BusEvent {
    let transports = Some(vec!["p2p".to_owned(), "ws-room".to_owned()]);
    BusEvent::Input(Input::Connected { peer: peer(), session, transports, resumes })
}

fn disconnected(session: Option<SessionId>) -> BusEvent {
    BusEvent::Input(Input::Disconnected { peer: peer(), session })
}

/// The peers and inputs that are handed over after these events, with their times in seconds.
fn hand_over_after(events: impl IntoIterator<Item = (f64, BusEvent)>) -> (Vec<PeerSnapshot>, Vec<Input>) {
    let (mut replica, mut now) = (Replica::default(), NOW);
    for (at, event) in events {
        now = seconds(at);
        replica.handle(event, now, 0);
    }
    replica.expire(&archipelago::Settings::default(), now);
    let Handover { snapshot, inputs, .. } = replica.hand_over(0, 0);
    (snapshot.peers, inputs)
}

fn assigned_island(peer_snapshot: &PeerSnapshot) -> Option<&str> {
    peer_snapshot.last_assigned.as_ref().map(|assignment| assignment.island.as_str())
}

#[test]
fn assigned_peer_keeps_its_island() {
    let events =
        [(0.0, connected(session(1))), (0.0, heartbeat(session(1), None)), (0.1, assigned(session(1), "I1"))];
    let (peers, inputs) = hand_over_after(events);
    let [peer_snapshot] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!((assigned_island(peer_snapshot), peer_snapshot.session), (Some("I1"), session(1)));
    assert_eq!(peer_snapshot.transports.as_deref(), Some(&["p2p".to_owned(), "ws-room".to_owned()][..]));
    assert_eq!((peer_snapshot.last_seen, peer_snapshot.departed_at), (NOW, None));
    assert_eq!((peer_snapshot.needs_assignment, inputs), (false, vec![]));
}

#[test]
fn messages_of_two_publishers_may_come_in_any_order() {
    let events =
        [(0.0, assigned(session(1), "I1")), (0.0, connected(session(1))), (0.0, heartbeat(session(1), None))];
    let (peers, inputs) = hand_over_after(events);
    assert_eq!((peers.len(), assigned_island(&peers[0]), inputs.len()), (1, Some("I1"), 0));
    assert!(!peers[0].needs_assignment);
}

#[test]
fn newer_session_keeps_the_island_older_ones_are_ignored() {
    let events = || vec![(0.0, heartbeat(session(2), None)), (0.1, assigned(session(2), "I1"))];
    let older =
        [(0.2, assigned(session(1), "I2")), (0.3, disconnected(session(1))), (0.4, connected(session(1)))];
    let (peers, inputs) = hand_over_after(events().into_iter().chain(older));
    assert_eq!((assigned_island(&peers[0]), peers[0].departed_at, inputs.len()), (Some("I1"), None, 0));
    // A message without a session counts as one of the current session.
    let (peers, _) = hand_over_after(events().into_iter().chain([(0.2, assigned(None, "I2"))]));
    assert_eq!(assigned_island(&peers[0]), Some("I2"));
    let newer = [(0.2, connected(session(3)))];
    let (peers, inputs) = hand_over_after(events().into_iter().chain(newer));
    assert_eq!((assigned_island(&peers[0]), peers[0].session), (Some("I1"), session(3)));
    assert!(matches!(inputs[..], [Input::Connected { .. }]), "it has not sent a heartbeat: {inputs:?}");
    let newer = [(0.2, heartbeat(session(3), None))];
    let (peers, inputs) = hand_over_after(events().into_iter().chain(newer));
    assert_eq!((assigned_island(&peers[0]), peers[0].needs_assignment), (Some("I1"), true));
    assert_eq!(inputs, []);
}

#[test]
fn heartbeat_corrects_the_assignment_after_its_round_trip() {
    let events = |at| {
        let events = [(0.0, heartbeat(None, None)), (0.1, assigned(None, "I2"))];
        hand_over_after(events.into_iter().chain([(at, heartbeat(None, Some(reported("I1", "node-2"))))])).0
    };
    assert_eq!(assigned_island(&events(1.0)[0]), Some("I2"), "the assignment was not delivered yet");
    let peers = events(1.2);
    assert_eq!(assigned_island(&peers[0]), Some("I1"));
    assert_eq!(peers[0].last_assigned.as_ref().unwrap().node.as_str(), "node-2");
    // Its client has no assignment, because the message was lost; or one without a node.
    for unknown in [reported("", ""), reported("I2", "")] {
        let events = [(0.0, heartbeat(None, None)), (0.1, assigned(None, "I2"))];
        let (peers, _) = hand_over_after(events.into_iter().chain([(2.0, heartbeat(None, Some(unknown)))]));
        assert_eq!(assigned_island(&peers[0]), Some("I2"), "it keeps its island");
        assert!(peers[0].needs_assignment);
    }
}

#[test]
fn ended_membership_is_reassigned_unless_done_already() {
    let events = || vec![(0.0, heartbeat(None, None)), (0.1, assigned(None, "I1"))];
    let needs_assignment = |more: Vec<(f64, BusEvent)>| {
        let (peers, inputs) = hand_over_after(events().into_iter().chain(more));
        assert_eq!(inputs, []);
        peers[0].needs_assignment
    };
    assert!(needs_assignment(vec![(0.2, ended("I1", None))]));
    assert!(needs_assignment(vec![(0.2, ended("I1", Some("node-1")))]));
    assert!(!needs_assignment(vec![(0.2, ended("I1", Some("node-2")))]), "on another node");
    assert!(!needs_assignment(vec![(0.2, ended("I2", None))]));
    assert!(!needs_assignment(vec![(0.2, ended("I1", None)), (0.2, assigned(None, "I2"))]));
}

#[test]
fn departed_peer_may_return_and_its_leave_is_sent_once() {
    let events =
        || vec![(0.0, heartbeat(None, None)), (0.1, assigned(None, "I1")), (1.0, disconnected(None))];
    let (peers, inputs) = hand_over_after(events());
    assert_eq!(
        (peers[0].departed_at, assigned_island(&peers[0])),
        (None, Some("I1")),
        "its leave was not published"
    );
    assert_eq!(inputs, [Input::Disconnected { peer: peer(), session: None }]);
    let (peers, inputs) = hand_over_after(events().into_iter().chain([(1.2, ended("I1", None))]));
    assert_eq!((peers[0].departed_at, assigned_island(&peers[0])), (Some(seconds(1.0)), Some("I1")));
    assert_eq!(inputs, []);
    // The peer is back.
    let back = [(1.2, ended("I1", None)), (2.0, heartbeat(None, Some(reported("", ""))))];
    let (peers, inputs) = hand_over_after(events().into_iter().chain(back));
    assert_eq!((peers[0].departed_at, peers[0].needs_assignment, inputs.len()), (None, true, 0));
}

#[test]
fn island_left_by_its_last_member_is_forgotten() {
    let other = Address::new([2; 20]);
    let of_other = |event| match event {
        BusEvent::Heartbeat { heartbeat, epoch } => {
            BusEvent::Heartbeat { heartbeat: Heartbeat { peer: other, ..heartbeat }, epoch }
        }
        BusEvent::Assigned { session, island, room, .. } => {
            BusEvent::Assigned { peer: other, session, island, room }
        }
        event => event,
    };
    let island_of_departed = |more: Vec<(f64, BusEvent)>| {
        let events = [
            (0.0, heartbeat(None, None)),
            (0.1, assigned(None, "I1")),
            (0.2, of_other(heartbeat(None, None))),
            (0.3, of_other(assigned(None, "I1"))),
            (1.0, disconnected(None)),
            (1.1, ended("I1", None)),
        ];
        let (peers, _) = hand_over_after(events.into_iter().chain(more));
        let departed = peers.iter().find(|peer_snapshot| peer_snapshot.peer == peer()).unwrap();
        assigned_island(departed).map(str::to_owned)
    };
    assert_eq!(island_of_departed(vec![]).as_deref(), Some("I1"));
    assert_eq!(island_of_departed(vec![(2.0, of_other(assigned(None, "I2")))]), None);
    let back = vec![(2.0, of_other(assigned(None, "I2"))), (3.0, of_other(assigned(None, "I1")))];
    assert_eq!(island_of_departed(back).as_deref(), Some("I1"));
}

#[test]
fn silent_or_departed_peer_is_forgotten() {
    let other = |at: f64| (at, BusEvent::Input(Input::Transport(room_node("ws://there"))));
    let here = || (0.0, heartbeat(None, None));
    assert_eq!(hand_over_after([here(), other(14.0)]).0.len(), 1);
    let (peers, inputs) = hand_over_after([here(), other(16.0)]);
    assert_eq!((peers.len(), inputs.len()), (1, 1), "its leave has to be published: {inputs:?}");
    assert_eq!(hand_over_after([here(), other(26.0)]), (vec![], vec![]));
    assert_eq!(hand_over_after([here(), (1.0, disconnected(None)), other(12.0)]), (vec![], vec![]));
    // The disconnect of an unknown peer creates no peer.
    assert_eq!(hand_over_after([(0.0, disconnected(None))]), (vec![], vec![]));
}

#[test]
fn unnamed_node_is_resolved_from_the_connection_string() {
    let node = |name: &str, kind, capability: &str, url: &str| {
        BusEvent::Input(Input::Transport(Transport {
            node: name.parse().unwrap(),
            kind,
            capability: capability.into(),
            ..room_node(url)
        }))
    };
    let node_of = |connection: &str| {
        let nodes = [
            node("rooms-1", TransportKind::WsRoom, "ws-room", "ws://there"),
            node("rooms-2", TransportKind::WsRoom, "ws-room", "ws://there/nodes/rooms-2"),
            node("lk", TransportKind::LiveKit, "livekit", "wss://lk"),
            node("mesh", TransportKind::P2p, "p2p", ""),
            node("pulse-1", TransportKind::External, "pulse", "pulse:1"),
            node("pulse-2", TransportKind::External, "pulse", "pulse:2"),
        ];
        let room = RoomLocation::Connection(connection.parse().unwrap());
        let assignment =
            BusEvent::Assigned { peer: peer(), session: None, island: "I1".parse().unwrap(), room };
        let events = nodes.into_iter().chain([heartbeat(None, None), assignment]).map(|event| (0.0, event));
        let (peers, _) = hand_over_after(events);
        peers[0].last_assigned.as_ref().map(|assignment| assignment.node.to_string())
    };
    assert_eq!(node_of("ws-room:ws://there/rooms/I1?access_token=t").as_deref(), Some("rooms-1"));
    assert_eq!(
        node_of("ws-room:ws://there/nodes/rooms-2/rooms/I1?access_token=t").as_deref(),
        Some("rooms-2")
    );
    assert_eq!(node_of("ws-room:ws://elsewhere/rooms/I1?access_token=t"), None);
    assert_eq!(node_of("livekit:wss://lk?access_token=t").as_deref(), Some("lk"));
    assert_eq!(node_of("p2p:I1").as_deref(), Some("mesh"));
    assert_eq!(node_of("pulse:1"), None, "two nodes match");
}

#[test]
fn cluster_is_handed_over() {
    let cluster_event = |session, cluster: Option<&str>| {
        let cluster = cluster.map(str::to_owned);
        BusEvent::Input(Input::Cluster { peer: peer(), session, cluster })
    };
    let cluster_of = |events: Vec<BusEvent>| {
        let (peers, inputs) = hand_over_after(events.into_iter().map(|event| (0.0, event)));
        let cluster = peers.into_iter().find_map(|peer| peer.cluster);
        let input_cluster = inputs.into_iter().find_map(|input| match input {
            Input::Cluster { cluster, .. } => cluster,
            _ => None,
        });
        (cluster, input_cluster)
    };
    let a = Some("a".to_owned());
    assert_eq!(cluster_of(vec![cluster_event(None, Some("a")), heartbeat(None, None)]), (a.clone(), None));
    assert_eq!(cluster_of(vec![heartbeat(None, None), cluster_event(None, Some("a"))]), (a.clone(), None));
    assert_eq!(
        cluster_of(vec![heartbeat(None, None), cluster_event(None, Some("a")), cluster_event(None, None)]),
        (None, None)
    );
    assert_eq!(cluster_of(vec![cluster_event(None, Some("a"))]), (None, a), "before its first heartbeat");
}

#[test]
fn peer_without_cluster_is_handed_over_without_island() {
    let assignment = BusEvent::Assigned {
        peer: peer(),
        session: None,
        island: "I1".parse().unwrap(),
        room: RoomLocation::Node("node-1".parse().unwrap()),
    };
    let no_cluster = BusEvent::Input(Input::Cluster { peer: peer(), session: None, cluster: None });
    let (peers, _) = hand_over_after(
        [heartbeat(None, None), assignment, no_cluster].into_iter().map(|event| (0.0, event)),
    );
    assert_eq!((&peers[0].last_assigned, &peers[0].cluster), (&None, &None));
}

#[test]
fn members_of_a_restarted_node_are_reassigned() {
    let node =
        |started_ms| BusEvent::Input(Input::Transport(Transport { started_ms, ..room_node("ws://there") }));
    let needs_assignment_after = |more: Vec<(f64, BusEvent)>| {
        let informed_heartbeat = heartbeat(None, Some(reported("I1", "node-1")));
        let events = [(0.0, node(1_000)), (0.1, assigned(None, "I1")), (2.0, informed_heartbeat)];
        hand_over_after(events.into_iter().chain(more)).0[0].needs_assignment
    };
    let informed_heartbeat = || heartbeat(None, Some(reported("I1", "node-1")));
    assert!(!needs_assignment_after(vec![(2.5, node(1_000))]));
    assert!(
        needs_assignment_after(vec![(2.5, node(2_000)), (4.0, informed_heartbeat())]),
        "heartbeats do not show the restart"
    );
    let assigned_again = vec![(2.5, node(2_000)), (2.6, node(1_000)), (2.7, assigned(None, "I1"))];
    assert!(!needs_assignment_after(assigned_again));
    let assigned_between =
        vec![(2.5, node(2_000)), (2.6, assigned(None, "I1")), (2.7, node(1_000)), (2.8, node(2_000))];
    assert!(!needs_assignment_after(assigned_between));
}

#[test]
fn session_takeover_is_handed_over_until_tokens_are_revoked() {
    let before = || {
        [(0.0, connected(session(1))), (0.0, heartbeat(session(1), None)), (0.1, assigned(session(1), "I1"))]
    };
    let is_taken_over = |events: Vec<BusEvent>| {
        let events = events.into_iter().map(|event| (1.0, event));
        let (peers, _) = hand_over_after(before().into_iter().chain(events));
        let [peer_snapshot] = &peers[..] else { panic!("{peers:?}") };
        assert_eq!(
            (assigned_island(peer_snapshot), peer_snapshot.departed_at),
            (Some("I1"), None),
            "it stays where it was"
        );
        peer_snapshot.taken_over
    };
    let assignment = |island: &str| Some(reported(island, ""));
    assert!(is_taken_over(vec![connected(session(2))]));
    assert!(is_taken_over(vec![heartbeat(session(2), assignment(""))]), "its connect was missed");
    assert!(is_taken_over(vec![resuming(session(2), session(1)), resuming(session(3), session(1))]));
    assert!(!is_taken_over(vec![resuming(session(2), session(1))]));
    assert!(!is_taken_over(vec![connected(None)]), "a foreign service names no session");
    assert!(!is_taken_over(vec![connected(session(2)), taken_over("I1")]));
    assert!(!is_taken_over(vec![connected(session(2)), assigned(session(2), "I1")]));
    assert!(!is_taken_over(vec![connected(session(2)), heartbeat(session(2), assignment("I1"))]));
}

#[test]
fn session_takeover_before_a_disconnect_announces_no_leave() {
    let events = [
        (0.0, connected(session(1))),
        (0.0, heartbeat(session(1), None)),
        (0.1, assigned(session(1), "I1")),
        (1.0, connected(session(2))),
        (1.0, heartbeat(session(2), None)),
        (1.0, disconnected(session(2))),
        (1.1, taken_over("I1")),
    ];
    let (peers, inputs) = hand_over_after(events);
    assert_eq!(peers[0].departed_at, None, "the members have not received its leave");
    assert_eq!(inputs, [Input::Disconnected { peer: peer(), session: session(2) }]);
}
