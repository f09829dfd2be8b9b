//! Tests of a director with LiveKit servers: rooms, removals and health.

mod gate;
mod webhooks;

use std::time::{Duration, Instant};

use bus::{Bus, Headers, Subscription};
use livekit_protocol::{ParticipantInfo, participant_info};
use protocol::{ConnectionString, Message as _, SessionId, Subject, subject, v3::IslandChangedMessage};
use tokio::{runtime::Handle, time};
use transports::ws_room;

use super::{LiveKitServers, fake::FakeServer};
use crate::{
    AdminHandle, ConfiguredNode, Director,
    tests::{announce, heartbeat, peer, settings},
};

const SECOND: Duration = Duration::from_secs(1);

/// A director with these nodes and one ws-room node, and the assignments that it publishes.
struct Realm {
    bus: Bus,
    changes: Subscription,
    livekit: LiveKitServers,
    admin: AdminHandle,
}

impl Realm {
    fn start(nodes: Vec<ConfiguredNode>) -> Self {
        let bus = Bus::in_process();
        let changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 64);
        let rules = r#"default = { transports = ["livekit", "ws-room"] }"#;
        let rules = archipelago::rules::Rules::parse(rules).unwrap();
        let engine = archipelago::Settings {
            transport_timeout: 60 * SECOND,
            silence: 60 * SECOND,
            return_window: SECOND / 2,
            settling: SECOND,
            ..settings().engine
        };
        let settings = crate::Settings { transports: nodes, rules: rules.into(), engine, ..settings() };
        let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
        let director = Director::new(settings, bus.clone(), minter).unwrap();
        let (livekit, admin) = (director.livekit(), director.admin());
        announce(&bus);
        tokio::spawn(director.run(Handle::current()));
        Self { bus, changes, livekit, admin }
    }

    /// A realm in which the LiveKit node is healthy.
    async fn ready(nodes: Vec<ConfiguredNode>) -> Self {
        let realm = Self::start(nodes);
        time::sleep(SECOND / 2).await;
        realm
    }

    fn place(&self, number: u8, x: f32) {
        heartbeat(&self.bus, number, None, x);
    }

    fn disconnect(&self, number: u8) {
        self.bus.publish(&Subject::PeerDisconnect(peer(number)), Headers::default(), "");
    }

    /// The next assignment.
    async fn assigned(&mut self) -> (IslandChangedMessage, ConnectionString) {
        let next = time::timeout(20 * SECOND, self.changes.next()).await.expect("an assignment in time");
        let change = IslandChangedMessage::decode(next.unwrap().payload).unwrap();
        let connection = change.conn_str.parse().unwrap();
        (change, connection)
    }

    /// The island of the next assignment, which is to a LiveKit room.
    async fn assigned_to_livekit(&mut self) -> String {
        let (change, connection) = self.assigned().await;
        assert!(matches!(connection, ConnectionString::LiveKit { .. }), "{connection}");
        change.island_id
    }

    async fn assigned_to_ws_room(&mut self) -> String {
        let (change, connection) = self.assigned().await;
        assert!(matches!(connection, ConnectionString::WsRoom { .. }), "{connection}");
        change.island_id
    }
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + 30 * SECOND;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// The claims of the token.
fn claims(connection: &ConnectionString) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let ConnectionString::LiveKit { access_token, .. } = connection else { panic!("{connection}") };
    String::from_utf8(URL_SAFE_NO_PAD.decode(access_token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn room_exists_before_its_first_token_is_published() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node("lk")]).await;
    server.delay("CreateRoom", SECOND / 5);
    realm.place(1, 0.0);
    let (change, connection) = realm.assigned().await;
    assert!(!claims(&connection).contains("roomConfig"), "the room exists: {}", claims(&connection));
    let room = server.room(&change.island_id).expect("the room").request;
    assert_eq!((room.max_participants, room.empty_timeout, room.departure_timeout), (24, 300, 300));
    let expected = format!(r#"{{"island":"{}","node":"lk","rule":null}}"#, change.island_id);
    assert_eq!(room.metadata, expected);
    realm.place(2, 5.0);
    assert_eq!(realm.assigned_to_livekit().await, change.island_id);
    assert_eq!(server.requests("CreateRoom"), 1, "once for an island");
}

#[tokio::test]
async fn only_the_island_of_a_room_that_opens_waits() {
    let server = FakeServer::start().await;
    let slow = FakeServer::start().await;
    let near = server.node_with("near", |_| {});
    let mut realm = Realm::ready(vec![near, ConfiguredNode { draining: true, ..slow.node("slow") }]).await;
    realm.place(1, 0.0);
    let first = realm.assigned_to_livekit().await;
    server.delay("CreateRoom", 30 * SECOND);
    let began = Instant::now();
    realm.place(2, 5_000.0);
    realm.place(3, 10.0);
    let (change, _) = realm.assigned().await;
    assert_eq!(change.island_id, first, "the island with a room does not wait");
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let (change, connection) = realm.assigned().await;
    assert_ne!(change.island_id, first);
    let waited = began.elapsed();
    assert!(waited >= SECOND * 9 / 10 && waited < 5 * SECOND, "{waited:?}");
    let claims = claims(&connection);
    assert!(claims.contains("roomConfig") && claims.contains(r#""maxParticipants":24"#), "{claims}");
}

#[tokio::test]
async fn island_without_a_room_takes_the_next_transport() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node_with("lk", |settings| settings.auto_create = false)]).await;
    server.fail("CreateRoom", true);
    realm.place(1, 0.0);
    realm.assigned_to_ws_room().await;
    server.fail("CreateRoom", false);
    realm.place(2, 5_000.0);
    realm.assigned_to_livekit().await;
}

#[tokio::test]
async fn former_member_is_removed_and_returned_member_is_not() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node_with("lk", |settings| settings.grace = 2 * SECOND)]).await;
    for number in 1..=3 {
        realm.place(number, 0.0);
    }
    let island = realm.assigned_to_livekit().await;
    for number in 1..=3 {
        server.join(&island, &peer(number).to_string());
    }
    // A new leader removes none before it knows all peers.
    realm.disconnect(1);
    time::sleep(4 * SECOND).await;
    assert_eq!(server.participants(&island).len(), 3);
    wait_for("the removal", || server.participants(&island).len() == 2).await;
    assert!(!server.participants(&island).contains(&peer(1).to_string()));
    realm.disconnect(2);
    time::sleep(SECOND).await;
    realm.place(2, 0.0);
    time::sleep(3 * SECOND).await;
    assert_eq!(server.participants(&island).len(), 2, "it is a member again");
    realm.disconnect(2);
    realm.disconnect(3);
    wait_for("the deletion of the room", || server.room(&island).is_none()).await;
}

#[tokio::test]
async fn reconciliation_removes_strangers_and_spares_agents() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node("lk")]).await;
    realm.place(1, 0.0);
    let island = realm.assigned_to_livekit().await;
    server.join(&island, &peer(1).to_string());
    server.join(&island, &peer(9).to_string());
    server.join(&island, "stranger");
    let kind = participant_info::Kind::Agent.into();
    server.join_as(&island, ParticipantInfo { identity: "agent".into(), kind, ..Default::default() });
    server.fail("RemoveParticipant", true);
    wait_for("an attempt", || server.requests("RemoveParticipant") >= 2).await;
    server.fail("RemoveParticipant", false);
    wait_for("the removals", || server.participants(&island).len() == 2).await;
    assert_eq!(server.participants(&island), [peer(1).to_string(), "agent".to_owned()]);
}

#[tokio::test]
async fn replaced_session_is_removed_and_newer_one_is_not() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node("lk")]).await;
    let sessions = [1, 2, 3].map(|number| SessionId::new(number, 0));
    heartbeat(&realm.bus, 1, Some(sessions[0]), 0.0);
    let island = realm.assigned_to_livekit().await;
    let identity = peer(1).to_string();
    time::sleep(11 * SECOND).await;
    server.join(&island, &identity);
    time::sleep(SECOND / 2).await;
    let replace = |session: SessionId| {
        realm.bus.publish(&Subject::PeerConnect(peer(1)), Headers::for_session(session), "");
        heartbeat(&realm.bus, 1, Some(session), 0.0);
    };
    replace(sessions[1]);
    wait_for("the removal of the older connection", || server.participants(&island).is_empty()).await;
    replace(sessions[2]);
    time::sleep(Duration::from_millis(50)).await;
    server.join(&island, &identity);
    time::sleep(2 * SECOND).await;
    assert_eq!(server.participants(&island), [identity]);
}

#[tokio::test]
async fn room_lost_by_the_server_is_created_again() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node("lk")]).await;
    realm.place(1, 0.0);
    let island = realm.assigned_to_livekit().await;
    time::sleep(11 * SECOND).await;
    server.restart();
    wait_for("the room", || server.room(&island).is_some()).await;
    assert_eq!(server.room(&island).unwrap().request.max_participants, 24);
}

#[tokio::test]
async fn slow_server_keeps_its_islands_and_dead_server_loses_them() {
    let server = FakeServer::start().await;
    let node = server.node_with("lk", |settings| settings.hang_timeout = SECOND);
    let mut realm = Realm::ready(vec![node]).await;
    realm.place(1, 0.0);
    realm.assigned_to_livekit().await;
    for milliseconds in [900, 50, 900, 50, 900] {
        server.delay("ListRooms", Duration::from_millis(milliseconds));
        time::sleep(SECOND).await;
    }
    assert!(realm.changes.try_next().is_none(), "a slow server is not dead");
    server.delay("ListRooms", 60 * SECOND);
    let began = Instant::now();
    realm.assigned_to_ws_room().await;
    assert!(began.elapsed() < 4 * SECOND, "{:?}", began.elapsed());
    server.delay("ListRooms", Duration::ZERO);
    server.refuse_key(true);
    time::sleep(2 * SECOND).await;
    server.refuse_key(false);
    let began = Instant::now();
    realm.assigned_to_livekit().await;
    assert!(began.elapsed() >= SECOND, "it has to be well for the settling time");
}
