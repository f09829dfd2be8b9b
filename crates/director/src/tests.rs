//! Tests of a whole director on an in-process bus.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::{Bus, Headers, Subscription};
use protocol::{
    Address, ConnectionString, Message as _, Position, PositionPrecision, SessionId, Subject,
    atoll_bus::{MembershipEnded, TransportAnnouncement},
    subject,
    v3::{Heartbeat, IslandChangedMessage, IslandStatusMessage},
};
use tokio::time;
use transports::ws_room;

use super::*;

const SECRET: &[u8] = b"secret";

pub(crate) fn settings() -> Settings {
    Settings {
        engine: archipelago::Settings::default(),
        realm: None,
        flush_interval: Duration::from_millis(20),
        report_interval: Duration::from_millis(100),
        discovery_interval: Duration::from_secs(10),
        position_bound_m: 100_000.0,
        positions: PositionPrecision::Exact,
        rules: Arc::default(),
        commit_hash: None,
        transports: Vec::new(),
    }
}

/// A node that offers rooms, as the engine's input.
pub(crate) fn room_node(public_url: &str) -> archipelago::Transport {
    let node = archipelago::sim::node("node-1".parse().unwrap(), 100);
    archipelago::Transport { public_url: public_url.into(), ..node }
}

/// A director on a bus of its own, with one node that offers rooms.
fn start_director() -> Bus {
    let bus = Bus::in_process();
    let minter = ws_room::Minter::new(SECRET, Duration::from_secs(300));
    let director = Director::new(settings(), bus.clone(), minter).unwrap();
    announce(&bus);
    tokio::spawn(director.run(tokio::runtime::Handle::current()));
    bus
}

pub(crate) fn announce(bus: &Bus) {
    let announcement = TransportAnnouncement {
        node: "node-1".to_owned(),
        kind: "ws-room".to_owned(),
        public_url: "ws://127.0.0.1:5000".to_owned(),
        max_island_size: 100,
        available_seats: 1_000,
        users: 0,
        draining: false,
        rooms: Vec::new(),
        started_ms: 0,
    };
    let subject = Subject::TransportAnnounce("node-1".parse().unwrap());
    bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
}

pub(crate) fn peer(number: u8) -> Address {
    Address::new([number; 20])
}

pub(crate) fn heartbeat(bus: &Bus, number: u8, session: Option<SessionId>, x: f32) {
    let heartbeat = Heartbeat { position: Some(Position::new(x, 0.0, 0.0).into()), desired_room: None };
    let headers = Headers { session, ..Headers::default() };
    bus.publish(&Subject::PeerHeartbeat(peer(number)), headers, heartbeat.encode_to_vec());
}

async fn next<M: protocol::Message + Default>(subscription: &mut Subscription) -> (Subject, M) {
    let next = time::timeout(Duration::from_secs(5), subscription.next());
    let envelope = next.await.expect("a message in time").expect("a bus");
    (envelope.subject().unwrap(), M::decode(envelope.payload).unwrap())
}

#[tokio::test]
async fn leadership_is_unknown_until_the_director_runs() {
    let minter = ws_room::Minter::new(SECRET, Duration::from_secs(300));
    let director = Director::new(settings(), Bus::in_process(), minter).unwrap();
    let leadership = director.leadership();
    assert!(!leadership.is_known());
    tokio::spawn(director.run(tokio::runtime::Handle::current()));
    let wait = async {
        while !leadership.is_known() {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(5), wait).await.expect("it leads");
}

#[tokio::test]
async fn near_peers_are_sent_to_the_same_room_once() {
    let bus = start_director();
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    heartbeat(&bus, 1, None, 0.0);
    heartbeat(&bus, 2, None, 50.0);
    let mut assigned = BTreeSet::new();
    for _ in 0..2 {
        let (subject, change) = next::<IslandChangedMessage>(&mut changes).await;
        let Subject::PeerIslandChanged(peer) = subject else { panic!("{subject}") };
        assert_eq!(change.peers.len(), 2, "both are members, the recipient included");
        assert_eq!(change.from_island_id, None);
        let ConnectionString::WsRoom { url, access_token } = change.conn_str.parse().unwrap() else {
            panic!("{}", change.conn_str)
        };
        assert_eq!(url, format!("ws://127.0.0.1:5000/rooms/{}", change.island_id));
        let token = access_token.unwrap();
        let verifier = ws_room::Verifier::new([SECRET]);
        let admission = verifier.verify(&token, &change.island_id, SystemTime::now()).unwrap();
        assert_eq!(admission.address, peer);
        assigned.insert(peer);
    }
    assert_eq!(assigned.len(), 2);
    heartbeat(&bus, 1, None, 0.0);
    time::sleep(Duration::from_millis(100)).await;
    assert!(changes.try_next().is_none(), "no change, no message");
}

#[tokio::test]
async fn new_session_is_assigned_to_the_same_island_again() {
    let bus = start_director();
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    let (older, newer) = (SessionId::new(1, 0), SessionId::new(2, 0));
    heartbeat(&bus, 1, Some(older), 0.0);
    let (_, first) = next::<IslandChangedMessage>(&mut changes).await;
    bus.publish(&Subject::PeerConnect(peer(1)), Headers::for_session(newer), "");
    bus.publish(&Subject::PeerDisconnect(peer(1)), Headers::for_session(older), "");
    heartbeat(&bus, 1, Some(newer), 0.0);
    let envelope = changes.next().await.unwrap();
    let again = IslandChangedMessage::decode(envelope.payload).unwrap();
    assert_eq!((again.island_id, again.from_island_id), (first.island_id, None));
    assert_eq!(envelope.headers.session, Some(newer));
}

#[tokio::test]
async fn takeover_revokes_older_tokens_before_the_newer_is_minted() {
    let bus = start_director();
    let mut ends = bus.subscribe("test", &[subject::MEMBERSHIP_ENDS], 16);
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    let mut members = bus.subscribe("test", &[subject::ISLAND_PEER_JOINS, subject::ISLAND_PEER_LEAVES], 16);
    let session = |number| Some(SessionId::new(number, 0));
    let verifier = ws_room::Verifier::new([SECRET]);
    let minted = |change: &IslandChangedMessage| {
        let Ok(ConnectionString::WsRoom { access_token: Some(token), .. }) = change.conn_str.parse() else {
            panic!("{}", change.conn_str)
        };
        verifier.verify(&token, &change.island_id, SystemTime::now()).unwrap().minted
    };
    let connect = |number, resumes| {
        let resumption = Some(Box::new(bus::Resumption { hash: None, resumes }));
        let headers = Headers { session: session(number), resumption, ..Headers::default() };
        bus.publish(&Subject::PeerConnect(peer(1)), headers, "");
    };
    heartbeat(&bus, 1, session(1), 0.0);
    let (_, first) = next::<IslandChangedMessage>(&mut changes).await;
    // A resumed session ends no membership. Neither does a connect of a foreign service, which names no
    // session.
    connect(2, session(1));
    bus.publish(&Subject::PeerConnect(peer(1)), Headers::default(), "");
    heartbeat(&bus, 1, session(2), 0.0);
    let (_, second) = next::<IslandChangedMessage>(&mut changes).await;
    assert!(minted(&second) > minted(&first));
    assert!(ends.try_next().is_none());
    // Not resumed: the older tokens are revoked before the newer session's first heartbeat.
    connect(3, session(1));
    let (subject, end) = next::<MembershipEnded>(&mut ends).await;
    assert_eq!(subject, Subject::MembershipEnded(first.island_id.parse().unwrap()));
    assert_eq!((&end.peers[..], &*end.node, end.taken_over), (&[peer(1).to_string()][..], "", true));
    let minted_before = end.minted_before.parse().unwrap();
    assert!(minted(&second) < minted_before);
    heartbeat(&bus, 1, session(3), 0.0);
    let (_, third) = next::<IslandChangedMessage>(&mut changes).await;
    assert!(minted(&third) > minted_before);
    assert_eq!((&third.island_id, third.from_island_id), (&first.island_id, None));
    time::sleep(Duration::from_millis(60)).await;
    assert!(ends.try_next().is_none(), "once");
    members.try_next().expect("its first join");
    assert!(members.try_next().is_none(), "members receive neither a leave nor a join");
}

#[tokio::test]
async fn departed_peer_leaves_its_room_and_the_report() {
    let bus = start_director();
    let patterns = [subject::MEMBERSHIP_ENDS];
    let mut ends = bus.subscribe("test", &patterns, 16);
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    heartbeat(&bus, 1, None, 0.0);
    heartbeat(&bus, 2, None, 10.0);
    let (_, change) = next::<IslandChangedMessage>(&mut changes).await;
    bus.publish(&Subject::PeerDisconnect(peer(2)), Headers::default(), "");
    let (subject, end) = next::<MembershipEnded>(&mut ends).await;
    assert_eq!(subject, Subject::MembershipEnded(change.island_id.parse().unwrap()));
    assert_eq!(end.peers, [peer(2).to_string()]);
    let mut reports = bus.subscribe("test", &[subject::ENGINE_ISLANDS], 16);
    let (_, report) = next::<IslandStatusMessage>(&mut reports).await;
    assert_eq!(report.data.len(), 1);
    assert_eq!(
        (&report.data[0].id, &report.data[0].peers[..]),
        (&change.island_id, &[peer(1).to_string()][..])
    );
}

#[tokio::test]
async fn malformed_heartbeats_change_nothing() {
    let bus = start_director();
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    bus.publish(&Subject::PeerHeartbeat(peer(1)), Headers::default(), "noise");
    heartbeat(&bus, 1, None, f32::NAN);
    heartbeat(&bus, 1, None, 1e9);
    heartbeat(&bus, 2, None, 0.0);
    let (subject, _) = next::<IslandChangedMessage>(&mut changes).await;
    assert_eq!(subject, Subject::PeerIslandChanged(peer(2)));
    time::sleep(Duration::from_millis(60)).await;
    assert!(changes.try_next().is_none());
}

#[tokio::test]
async fn two_directors_never_reuse_an_island_id() {
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let bus = start_director();
        let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
        heartbeat(&bus, 1, None, 0.0);
        ids.insert(next::<IslandChangedMessage>(&mut changes).await.1.island_id);
    }
    assert_eq!(ids.len(), 2, "{ids:?}");
}
