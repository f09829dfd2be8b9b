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

fn told(island: &str, node: &str) -> atoll_bus::Told {
    atoll_bus::Told { island: island.to_owned(), node: node.to_owned(), epoch: 0 }
}

fn heartbeat(session: Option<SessionId>, told: Option<atoll_bus::Told>) -> Heard {
    let position = Position::new(1.0, 2.0, 3.0);
    let (desired_room, transports, resumes) = (None, None, None);
    Heard::Heartbeat(Heartbeat { peer: peer(), session, position, desired_room, told, transports, resumes })
}

fn assigned(session: Option<SessionId>, island: &str) -> Heard {
    let (island, room) = (island.parse().unwrap(), Room::On("node-1".parse().unwrap()));
    Heard::Assigned { peer: peer(), session, island, room }
}

fn ended(island: &str, node: Option<&str>) -> Heard {
    let (island, node) = (island.parse().unwrap(), node.map(|node| node.parse().unwrap()));
    Heard::Ended { island, node, peers: vec![peer()], minted_before: Ulid::nil(), taken_over: false }
}

/// The director that leads revoked the tokens of an older session.
fn taken_over(island: &str) -> Heard {
    let island = island.parse().unwrap();
    Heard::Ended { island, node: None, peers: vec![peer()], minted_before: Ulid::nil(), taken_over: true }
}

fn connected(session: Option<SessionId>) -> Heard {
    resuming(session, None)
}

fn resuming(session: Option<SessionId>, resumes: Option<SessionId>) -> Heard {
    let transports = Some(vec!["p2p".to_owned(), "ws-room".to_owned()]);
    Heard::Input(Input::Connected { peer: peer(), session, transports, resumes })
}

fn disconnected(session: Option<SessionId>) -> Heard {
    Heard::Input(Input::Disconnected { peer: peer(), session })
}

/// What follows from what is heard at these times, in seconds.
fn succession(heard: impl IntoIterator<Item = (f64, Heard)>) -> (Vec<Resident>, Vec<Input>) {
    let (mut replica, mut now) = (Replica::default(), NOW);
    for (at, heard) in heard {
        now = seconds(at);
        replica.hear(heard, now, 0);
    }
    replica.tidy(&archipelago::Settings::default(), now);
    let Succession { takeover, since, .. } = replica.hand_over(Arc::default(), 0, 0);
    (takeover.residents, since)
}

fn place(resident: &Resident) -> Option<&str> {
    resident.told.as_ref().map(|told| told.island.as_str())
}

#[test]
fn whoever_was_told_is_where_it_was_told() {
    let heard =
        [(0.0, connected(session(1))), (0.0, heartbeat(session(1), None)), (0.1, assigned(session(1), "I1"))];
    let (residents, since) = succession(heard);
    let [resident] = &residents[..] else { panic!("{residents:?}") };
    assert_eq!((place(resident), resident.session), (Some("I1"), session(1)));
    assert_eq!(resident.transports.as_deref(), Some(&["p2p".to_owned(), "ws-room".to_owned()][..]));
    assert_eq!((resident.heard, resident.departed), (NOW, None));
    assert_eq!(since, []);
}

#[test]
fn what_two_say_comes_in_any_order() {
    let heard =
        [(0.0, assigned(session(1), "I1")), (0.0, connected(session(1))), (0.0, heartbeat(session(1), None))];
    let (residents, since) = succession(heard);
    assert_eq!((residents.len(), place(&residents[0]), since.len()), (1, Some("I1"), 0));
}

#[test]
fn older_sessions_change_nothing_and_a_newer_one_keeps_the_place_and_knows_nothing() {
    let heard = || vec![(0.0, heartbeat(session(2), None)), (0.1, assigned(session(2), "I1"))];
    let older =
        [(0.2, assigned(session(1), "I2")), (0.3, disconnected(session(1))), (0.4, connected(session(1)))];
    let (residents, since) = succession(heard().into_iter().chain(older));
    assert_eq!((place(&residents[0]), residents[0].departed, since.len()), (Some("I1"), None, 0));
    // One without a session counts as the present one.
    let (residents, _) = succession(heard().into_iter().chain([(0.2, assigned(None, "I2"))]));
    assert_eq!(place(&residents[0]), Some("I2"));
    let newer = [(0.2, connected(session(3)))];
    let (residents, since) = succession(heard().into_iter().chain(newer));
    assert_eq!((place(&residents[0]), residents[0].session), (Some("I1"), session(3)));
    assert!(matches!(since[..], [Input::Connected { .. }]), "it has not said where it is: {since:?}");
    let newer = [(0.2, heartbeat(session(3), None))];
    let (residents, since) = succession(heard().into_iter().chain(newer));
    assert_eq!(place(&residents[0]), Some("I1"));
    assert_eq!(since, [Input::Tell { peer: peer(), session: session(3), from: None }]);
}

#[test]
fn what_a_client_knows_its_gateway_knows_best_unless_it_may_not_have_heard_yet() {
    let heard = |at| {
        let heard = [(0.0, heartbeat(None, None)), (0.1, assigned(None, "I2"))];
        succession(heard.into_iter().chain([(at, heartbeat(None, Some(told("I1", "node-2"))))])).0
    };
    assert_eq!(place(&heard(1.0)[0]), Some("I2"), "it was on its way");
    let residents = heard(1.2);
    assert_eq!(place(&residents[0]), Some("I1"));
    assert_eq!(residents[0].told.as_ref().unwrap().node.as_str(), "node-2");
    // It knows of none, as what it was told was lost; or not of which node.
    for unknown in [told("", ""), told("I2", "")] {
        let heard = [(0.0, heartbeat(None, None)), (0.1, assigned(None, "I2"))];
        let (residents, since) = succession(heard.into_iter().chain([(2.0, heartbeat(None, Some(unknown)))]));
        assert_eq!(place(&residents[0]), Some("I2"), "it keeps its place");
        assert!(matches!(since[..], [Input::Tell { .. }]));
    }
}

#[test]
fn whose_membership_ended_is_told_unless_it_was_told_already() {
    let heard = || vec![(0.0, heartbeat(None, None)), (0.1, assigned(None, "I1"))];
    let told = |more: Vec<(f64, Heard)>| succession(heard().into_iter().chain(more)).1.len();
    assert_eq!(told(vec![(0.2, ended("I1", None))]), 1);
    assert_eq!(told(vec![(0.2, ended("I1", Some("node-1")))]), 1);
    assert_eq!(told(vec![(0.2, ended("I1", Some("node-2")))]), 0, "on another node");
    assert_eq!(told(vec![(0.2, ended("I2", None))]), 0);
    assert_eq!(told(vec![(0.2, ended("I1", None)), (0.2, assigned(None, "I2"))]), 0);
}

#[test]
fn who_left_may_come_back_and_others_hear_that_it_left_once() {
    let heard = || vec![(0.0, heartbeat(None, None)), (0.1, assigned(None, "I1")), (1.0, disconnected(None))];
    let (residents, since) = succession(heard());
    assert_eq!((residents[0].departed, place(&residents[0])), (None, Some("I1")), "nobody heard");
    assert_eq!(since, [Input::Disconnected { peer: peer(), session: None }]);
    let (residents, since) = succession(heard().into_iter().chain([(1.2, ended("I1", None))]));
    assert_eq!((residents[0].departed, place(&residents[0])), (Some(seconds(1.0)), Some("I1")));
    assert_eq!(since, []);
    // It is back.
    let back = [(1.2, ended("I1", None)), (2.0, heartbeat(None, Some(told("", ""))))];
    let (residents, since) = succession(heard().into_iter().chain(back));
    assert_eq!((residents[0].departed, since.len()), (None, 1));
}

#[test]
fn an_island_whose_last_members_went_elsewhere_keeps_no_place() {
    let other = Address::new([2; 20]);
    let of_other = |heard| match heard {
        Heard::Heartbeat(heartbeat) => Heard::Heartbeat(Heartbeat { peer: other, ..heartbeat }),
        Heard::Assigned { session, island, room, .. } => {
            Heard::Assigned { peer: other, session, island, room }
        }
        heard => heard,
    };
    let place = |more: Vec<(f64, Heard)>| {
        let heard = [
            (0.0, heartbeat(None, None)),
            (0.1, assigned(None, "I1")),
            (0.2, of_other(heartbeat(None, None))),
            (0.3, of_other(assigned(None, "I1"))),
            (1.0, disconnected(None)),
            (1.1, ended("I1", None)),
        ];
        let (residents, _) = succession(heard.into_iter().chain(more));
        let departed = residents.iter().find(|resident| resident.peer == peer()).unwrap();
        place(departed).map(str::to_owned)
    };
    assert_eq!(place(vec![]).as_deref(), Some("I1"));
    assert_eq!(place(vec![(2.0, of_other(assigned(None, "I2")))]), None);
    let back = vec![(2.0, of_other(assigned(None, "I2"))), (3.0, of_other(assigned(None, "I1")))];
    assert_eq!(place(back).as_deref(), Some("I1"));
}

#[test]
fn who_is_silent_or_gone_for_long_is_forgotten() {
    let other = |at: f64| (at, Heard::Input(Input::Transport(room_node("ws://there"))));
    let here = || (0.0, heartbeat(None, None));
    assert_eq!(succession([here(), other(14.0)]).0.len(), 1);
    let (residents, since) = succession([here(), other(16.0)]);
    assert_eq!((residents.len(), since.len()), (1, 1), "the others are to hear that it is gone: {since:?}");
    assert_eq!(succession([here(), other(26.0)]), (vec![], vec![]));
    assert_eq!(succession([here(), (1.0, disconnected(None)), other(12.0)]), (vec![], vec![]));
    // Whoever is not known is not made known by its going.
    assert_eq!(succession([(0.0, disconnected(None))]), (vec![], vec![]));
}

#[test]
fn a_node_that_is_not_named_is_the_one_that_announces_the_place() {
    let node = |name: &str, kind, capability: &str, url: &str| {
        Heard::Input(Input::Transport(Transport {
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
        let room = Room::At(connection.parse().unwrap());
        let told = Heard::Assigned { peer: peer(), session: None, island: "I1".parse().unwrap(), room };
        let heard = nodes.into_iter().chain([heartbeat(None, None), told]).map(|heard| (0.0, heard));
        let (residents, _) = succession(heard);
        residents[0].told.as_ref().map(|told| told.node.to_string())
    };
    assert_eq!(node_of("ws-room:ws://there/rooms/I1?access_token=t").as_deref(), Some("rooms-1"));
    assert_eq!(
        node_of("ws-room:ws://there/nodes/rooms-2/rooms/I1?access_token=t").as_deref(),
        Some("rooms-2")
    );
    assert_eq!(node_of("ws-room:ws://elsewhere/rooms/I1?access_token=t"), None);
    assert_eq!(node_of("livekit:wss://lk?access_token=t").as_deref(), Some("lk"));
    assert_eq!(node_of("p2p:I1").as_deref(), Some("mesh"));
    assert_eq!(node_of("pulse:1"), None, "that could be either");
}

#[test]
fn whom_another_service_put_together_stays_so() {
    let put = |session, cluster: Option<&str>| {
        let cluster = cluster.map(str::to_owned);
        Heard::Input(Input::Cluster { peer: peer(), session, cluster })
    };
    let cluster_of = |heard: Vec<Heard>| {
        let (residents, since) = succession(heard.into_iter().map(|heard| (0.0, heard)));
        let resident = residents.into_iter().find_map(|resident| resident.cluster);
        let later = since.into_iter().find_map(|input| match input {
            Input::Cluster { cluster, .. } => cluster,
            _ => None,
        });
        (resident, later)
    };
    let a = Some("a".to_owned());
    assert_eq!(cluster_of(vec![put(None, Some("a")), heartbeat(None, None)]), (a.clone(), None));
    assert_eq!(cluster_of(vec![heartbeat(None, None), put(None, Some("a"))]), (a.clone(), None));
    assert_eq!(cluster_of(vec![heartbeat(None, None), put(None, Some("a")), put(None, None)]), (None, None));
    assert_eq!(cluster_of(vec![put(None, Some("a"))]), (None, a), "before it says where it stands");
}

#[test]
fn whom_another_service_put_with_nobody_is_in_no_island() {
    let told = Heard::Assigned {
        peer: peer(),
        session: None,
        island: "I1".parse().unwrap(),
        room: Room::On("node-1".parse().unwrap()),
    };
    let alone = Heard::Input(Input::Cluster { peer: peer(), session: None, cluster: None });
    let (residents, _) =
        succession([heartbeat(None, None), told, alone].into_iter().map(|heard| (0.0, heard)));
    assert_eq!((&residents[0].told, &residents[0].cluster), (&None, &None));
}

#[test]
fn node_that_restarted_has_its_members_told_by_a_new_leader() {
    let node =
        |started_ms| Heard::Input(Input::Transport(Transport { started_ms, ..room_node("ws://there") }));
    let tells = |more: Vec<(f64, Heard)>| {
        let knows = heartbeat(None, Some(told("I1", "node-1")));
        let heard = [(0.0, node(1_000)), (0.1, assigned(None, "I1")), (2.0, knows)];
        succession(heard.into_iter().chain(more)).1.len()
    };
    let knows = || heartbeat(None, Some(told("I1", "node-1")));
    assert_eq!(tells(vec![(2.5, node(1_000))]), 0);
    assert_eq!(tells(vec![(2.5, node(2_000)), (4.0, knows())]), 1, "heartbeats do not know of it");
    assert_eq!(tells(vec![(2.5, node(2_000)), (2.6, node(1_000)), (2.7, assigned(None, "I1"))]), 0);
    assert_eq!(
        tells(vec![(2.5, node(2_000)), (2.6, assigned(None, "I1")), (2.7, node(1_000)), (2.8, node(2_000))]),
        0
    );
}

#[test]
fn takeover_is_handed_over_until_the_leader_revoked_the_tokens() {
    let before = || {
        [(0.0, connected(session(1))), (0.0, heartbeat(session(1), None)), (0.1, assigned(session(1), "I1"))]
    };
    let is_taken_over = |heard: Vec<Heard>| {
        let heard = heard.into_iter().map(|heard| (1.0, heard));
        let (residents, _) = succession(before().into_iter().chain(heard));
        let [resident] = &residents[..] else { panic!("{residents:?}") };
        assert_eq!((place(resident), resident.departed), (Some("I1"), None), "it stays where it was");
        resident.taken_over
    };
    let told = |island: &str| Some(atoll_bus::Told { island: island.to_owned(), ..Default::default() });
    assert!(is_taken_over(vec![connected(session(2))]));
    assert!(is_taken_over(vec![heartbeat(session(2), told(""))]), "its connect was missed");
    assert!(is_taken_over(vec![resuming(session(2), session(1)), resuming(session(3), session(1))]));
    assert!(!is_taken_over(vec![resuming(session(2), session(1))]));
    assert!(!is_taken_over(vec![connected(None)]), "a foreign service names no session");
    assert!(!is_taken_over(vec![connected(session(2)), taken_over("I1")]));
    assert!(!is_taken_over(vec![connected(session(2)), assigned(session(2), "I1")]));
    assert!(!is_taken_over(vec![connected(session(2)), heartbeat(session(2), told("I1"))]));
}

#[test]
fn takeover_before_a_disconnect_is_no_announced_leave() {
    let heard = [
        (0.0, connected(session(1))),
        (0.0, heartbeat(session(1), None)),
        (0.1, assigned(session(1), "I1")),
        (1.0, connected(session(2))),
        (1.0, heartbeat(session(2), None)),
        (1.0, disconnected(session(2))),
        (1.1, taken_over("I1")),
    ];
    let (residents, since) = succession(heard);
    assert_eq!(residents[0].departed, None, "the members have not received its leave");
    assert_eq!(since, [Input::Disconnected { peer: peer(), session: session(2) }]);
}
