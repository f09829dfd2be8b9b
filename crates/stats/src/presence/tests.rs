//! The presence: sessions, events, expiry and reports.

use bus::{Bus, Headers};
use protocol::v3::IslandData;

use super::*;

const PEER: Address = Address::new([1; 20]);
const SECOND: Duration = Duration::from_secs(1);
const TIMEOUTS: Timeouts = Timeouts { peer: Duration::from_secs(10), report: Duration::from_secs(5) };

type TestMessage = (Subject, Option<SessionId>, Vec<u8>);

/// Applies these messages and returns the names of the resulting events.
fn apply_all(presence: &mut Presence, messages: &[TestMessage], now: Instant) -> Vec<&'static str> {
    let bus = Bus::in_process();
    let mut subscription = bus.subscribe("test", &[">"], 64);
    let mut names = Vec::new();
    for (subject, session, payload) in messages {
        bus.publish(subject, Headers { session: *session, ..Headers::default() }, payload.clone());
        let events = presence.apply(&subscription.try_next().unwrap(), now, 1_000);
        names.extend(events.iter().map(Event::name));
    }
    assert_eq!(presence.peer_count(), presence.peers().count());
    names
}

fn heartbeat(session: Option<SessionId>, x: f32) -> TestMessage {
    let position = Some(Position::new(x, 1.5, 0.0).into());
    let heartbeat = Heartbeat { position, desired_room: None }.encode_to_vec();
    (Subject::PeerHeartbeat(PEER), session, heartbeat)
}

fn connect(session: Option<SessionId>) -> TestMessage {
    (Subject::PeerConnect(PEER), session, Vec::new())
}

fn disconnect(session: Option<SessionId>) -> TestMessage {
    (Subject::PeerDisconnect(PEER), session, Vec::new())
}

fn sessions() -> [Option<SessionId>; 2] {
    [1, 2].map(|time| Some(SessionId::new(time, 0)))
}

#[test]
fn only_the_newest_session_updates_a_peer() {
    let [old, new] = sessions();
    let mut presence = Presence::default();
    let noise = (Subject::PeerHeartbeat(PEER), new, b"noise".to_vec());
    let messages = [heartbeat(old, 1.0), connect(new), heartbeat(old, 2.0)];
    assert_eq!(apply_all(&mut presence, &messages, Instant::now()), ["join"]);
    assert_eq!(presence.peer(PEER).unwrap().position.x, 1.0);
    let messages =
        [heartbeat(new, 3.0), heartbeat(old, 4.0), disconnect(old), noise, heartbeat(new, f32::NAN)];
    assert_eq!(apply_all(&mut presence, &messages, Instant::now()), ["leave", "join"]);
    assert_eq!(presence.peer(PEER).unwrap().position.x, 3.0);
    assert_eq!(apply_all(&mut presence, &[disconnect(None)], Instant::now()), ["leave"]);
    assert!(presence.peer(PEER).is_none(), "a message without a session counts as current");
}

#[test]
fn late_message_does_not_restore_a_departed_peer() {
    let [old, new] = sessions();
    let mut presence = Presence::default();
    let messages = [
        heartbeat(new, 1.0),
        disconnect(new),
        heartbeat(old, 2.0),
        heartbeat(new, 3.0),
        disconnect(new),
        disconnect(old),
    ];
    assert_eq!(apply_all(&mut presence, &messages, Instant::now()), ["join", "leave"]);
    let newest = Some(SessionId::new(3, 0));
    let messages = [connect(newest), heartbeat(new, 1.0), heartbeat(newest, 2.0)];
    assert_eq!(apply_all(&mut presence, &messages, Instant::now()), ["join"]);
    // Gateways of other projects send no sessions.
    let messages = [disconnect(None), heartbeat(None, 1.0), heartbeat(None, 2.0), disconnect(None)];
    assert_eq!(apply_all(&mut presence, &messages, Instant::now()), ["leave", "join", "leave"]);
}

#[test]
fn unrefreshed_presence_expires() {
    let now = Instant::now();
    let data = IslandData { id: "I1".into(), peers: vec![PEER.to_string()], ..IslandData::default() };
    let report = IslandStatusMessage { data: vec![data] }.encode_to_vec();
    let mut presence = Presence::default();
    let messages = [
        heartbeat(None, 1.0),
        (Subject::EngineIslands, None, report),
        (Subject::EngineDiscovery, None, Vec::new()),
    ];
    assert_eq!(apply_all(&mut presence, &messages, now), ["join", "island_opened", "peer_moved_island"]);
    let mut swept = |time: Duration| {
        let events = presence.sweep(TIMEOUTS, now + time, 2_000);
        let names: Vec<&str> = events.iter().map(Event::name).collect();
        assert_eq!(presence.peer_count(), presence.peers().count());
        (names, presence.peers().count(), presence.islands().count(), presence.has_director())
    };
    assert_eq!(swept(4 * SECOND), (vec![], 1, 1, true));
    assert_eq!(swept(5 * SECOND), (vec!["peer_moved_island", "island_closed"], 1, 0, true));
    assert_eq!(swept(10 * SECOND), (vec!["leave"], 0, 0, true));
    assert_eq!(swept(30 * SECOND), (vec![], 0, 0, false));
}

#[test]
fn parcel_precision_stores_no_exact_position() {
    let mut presence = Presence::new(PositionPrecision::Parcel, Changes::default());
    apply_all(&mut presence, &[heartbeat(None, 17.0)], Instant::now());
    assert_eq!(presence.peer(PEER).unwrap().position, Position::new(24.0, 0.0, 8.0));
    assert!(!format!("{presence:?}").contains("17.0"));
}

#[test]
fn change_counter_follows_every_visible_change() {
    let now = Instant::now();
    let mut presence = Presence::default();
    let member = PEER.to_string();
    let island: IslandId = "I1".parse().unwrap();
    let join = JoinIslandMessage { island_id: "I1".into(), peer_id: member.clone() }.encode_to_vec();
    let left = LeftIslandMessage { island_id: "I1".into(), peer_id: member.clone() }.encode_to_vec();
    let change = IslandChangedMessage {
        island_id: "I1".into(),
        conn_str: "ws-room:ws://h/rooms/I1".into(),
        ..IslandChangedMessage::default()
    };
    let data = IslandData { id: "I1".into(), peers: vec![member], ..IslandData::default() };
    let report = IslandStatusMessage { data: vec![data] }.encode_to_vec();
    for (name, message, is_change) in [
        ("heartbeat", heartbeat(None, 1.0), true),
        ("another heartbeat", heartbeat(None, 2.0), true),
        ("join", (Subject::IslandPeerJoin(island.clone()), None, join), true),
        ("change of island", (Subject::PeerIslandChanged(PEER), None, change.encode_to_vec()), true),
        ("left", (Subject::IslandPeerLeft(island), None, left), true),
        ("report", (Subject::EngineIslands, None, report), true),
        ("disconnect", disconnect(None), true),
        ("connect", connect(None), false),
        ("director", (Subject::EngineDiscovery, None, Vec::new()), false),
        ("noise", (Subject::EngineIslands, None, b"noise".to_vec()), false),
    ] {
        let before = presence.changes.count();
        apply_all(&mut presence, &[message], now);
        assert_eq!(presence.changes.count() > before, is_change, "{name}");
    }
    apply_all(&mut presence, &[heartbeat(None, 1.0)], now);
    for (seconds, is_change) in [(1, false), (5, true), (6, false), (10, true), (11, false)] {
        let before = presence.changes.count();
        presence.sweep(TIMEOUTS, now + seconds * SECOND, 2_000);
        assert_eq!(presence.changes.count() > before, is_change, "after {seconds} s");
    }
}
