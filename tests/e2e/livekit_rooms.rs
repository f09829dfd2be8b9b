//! Rooms on a real LiveKit server: created with limits, administered by membership, and lost with the server.

mod figures;
mod webhooks;

use std::time::{Duration, Instant};

use livekit_api::services::room::RoomClient;
use protocol::{ConnectionString, v3::IslandChangedMessage};
use rtc::livekit::{Event, JoinError, LeaveReason, Options, Participant};
use test_support::{
    Cluster, LiveKitOptions, LiveKitServer, Realm, network_namespace, wallet,
    wire::{Wire, sign_in_with},
    within,
};

/// The address of the realm, which the LiveKit server sends its events to. Each test has a namespace of its own.
const LISTEN: &str = "127.0.0.1:5000";
/// Peers at this distance from each other are in different islands.
const FAR: f32 = 5_000.0;
/// A director removes no participant for this long after it started.
const TAKEOVER: Duration = Duration::from_secs(11);

/// A LiveKit server that creates no rooms by itself, and a realm with rules that prefer it.
struct LiveKitRealm {
    server: LiveKitServer,
    realm: Realm,
    api: RoomClient,
}

/// A peer that was assigned a LiveKit room.
struct Peer {
    wire: Wire,
    /// Its address, the identity of its participant.
    identity: String,
    island: String,
    options: Options,
}

impl LiveKitRealm {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let server = start_server(&[LISTEN]);
        let url = server.url();
        let mut all = settings_for(&url).to_vec();
        all.extend(settings);
        let realm = Realm::launch_at(LISTEN, &[], &all);
        wait_until_healthy(&realm).await;
        let api = api(&server);
        Self { server, realm, api }
    }

    async fn join(&self, x: f32) -> Peer {
        join(&self.realm, x).await
    }

    /// The participants in the server's own list of a room; `None` if there is no such room.
    async fn participants(&self, room: &str) -> Option<Vec<String>> {
        participants(&self.api, room).await
    }

    /// The participants of a room as `/rooms/status` reports them.
    async fn reported(&self, room: &str) -> u64 {
        let status = self.realm.json("/rooms/status").await;
        let rooms = status["rooms"].as_array().unwrap().iter();
        rooms.filter(|entry| entry["id"] == room).filter_map(|entry| entry["users"].as_u64()).sum()
    }
}

/// A LiveKit server that creates no rooms by itself, and sends its events to the director at this address.
fn start_server(listen: &[&str]) -> LiveKitServer {
    let webhooks = listen.iter().map(|listen| format!("http://{listen}/livekit/webhook/lk")).collect();
    LiveKitServer::start_with(LiveKitOptions { webhooks, ..LiveKitOptions::default() })
}

/// The settings of a realm with this server, in which changes are fast.
fn settings_for(url: &str) -> [(&str, &str); 7] {
    [
        ("LIVEKIT__LK__URL", url),
        ("LIVEKIT__LK__API_KEY", LiveKitServer::API_KEY),
        ("LIVEKIT__LK__API_SECRET", LiveKitServer::API_SECRET),
        ("LIVEKIT__LK__AUTO_CREATE", "false"),
        ("LIVEKIT__LK__GRACE_S", "1"),
        ("ISLANDS__RETURN_WINDOW_S", "1"),
        ("ISLANDS__MOVE_INTERVAL_S", "1"),
    ]
}

fn api(server: &LiveKitServer) -> RoomClient {
    RoomClient::with_api_key(&server.http(), LiveKitServer::API_KEY, LiveKitServer::API_SECRET)
}

/// Waits until the director of this process assigns islands to the LiveKit server.
async fn wait_until_healthy(director: &Realm) {
    let healthy = async || director.count("atoll_transport_healthy{node=\"lk\"}").await == 1.0;
    soon("a healthy LiveKit server", healthy).await;
    // The engine receives that a moment later.
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Signs in a peer, and waits until it is assigned a LiveKit room: on a busy machine the server may not confirm a room
/// within a second, and the island takes a WebSocket room for some seconds.
async fn join(gateway: &Realm, x: f32) -> Peer {
    let wallet = wallet();
    let mut wire = sign_in_with(gateway, &wallet, &["livekit", "ws-room"]).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        wire.send_position(x, 0.0).await;
        if !wire.is_quiet_for(Duration::from_secs(1)).await {
            let change = wire.island_changed().await;
            if let Some(options) = options(&change) {
                let identity = wallet.address().to_string();
                return Peer { wire, identity, island: change.island_id, options };
            }
        }
        assert!(Instant::now() < deadline, "no LiveKit room");
    }
}

/// The participants in the server's own list of a room; `None` if there is no such room.
async fn participants(api: &RoomClient, room: &str) -> Option<Vec<String>> {
    let participants = api.list_participants(room).await.ok()?;
    Some(participants.into_iter().map(|participant| participant.identity).collect())
}

/// Polls until the condition holds. Takes seconds on an idle machine.
async fn soon(label: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(60), label, holds).await;
}

fn options(change: &IslandChangedMessage) -> Option<Options> {
    match change.conn_str.parse().unwrap() {
        ConnectionString::LiveKit { url, access_token } => Some(Options::new(url, access_token)),
        _ => None,
    }
}

/// Waits until the participation ends, and returns why.
async fn left(participant: &mut Participant) -> LeaveReason {
    let end = async {
        loop {
            match participant.next().await {
                Some(Event::Left(reason)) => return reason,
                Some(_) => {}
                None => panic!("no reason"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), end).await.expect("it leaves")
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_created_with_its_island_and_deleted_with_it() {
    if !network_namespace::enter("livekit_rooms::room_is_created_with_its_island_and_deleted_with_it") {
        return;
    }
    let realm = LiveKitRealm::start(&[("LIVEKIT__LK__MAX_ISLAND_SIZE", "12")]).await;
    let peer = realm.join(0.0).await;
    let rooms = realm.api.list_rooms(vec![peer.island.clone()]).await.unwrap();
    let [room] = &rooms[..] else { panic!("{rooms:?}") };
    assert_eq!((room.max_participants, room.empty_timeout, room.departure_timeout), (24, 300, 300));
    let metadata: serde_json::Value = serde_json::from_str(&room.metadata).unwrap();
    let expected = serde_json::json!({ "island": peer.island, "node": "lk", "rule": null });
    assert_eq!(metadata, expected);
    let participant = Participant::join(peer.options.clone()).await.unwrap();
    let room = peer.island.clone();
    soon("the occupancy", async || realm.reported(&room).await == 1).await;
    let island = format!("/islands/{room}");
    soon("presence", async || realm.realm.json(&island).await["participants"] == 1).await;
    participant.close().await;
    soon("no occupancy", async || realm.reported(&room).await == 0).await;
    drop(peer.wire);
    soon("the deletion", async || realm.participants(&room).await.is_none_or(|all| all.is_empty())).await;
    soon("the deletion", async || realm.api.list_rooms(vec![room.clone()]).await.unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn former_member_is_removed_and_cannot_stay_with_its_token() {
    if !network_namespace::enter("livekit_rooms::former_member_is_removed_and_cannot_stay_with_its_token") {
        return;
    }
    let realm = LiveKitRealm::start(&[]).await;
    let (stays, mut leaves) = (realm.join(0.0).await, realm.join(5.0).await);
    assert_eq!(stays.island, leaves.island);
    // The larger part of a split island keeps it.
    let _third = realm.join(2.0).await;
    let member = Participant::join(stays.options.clone()).await.unwrap();
    let mut former = Participant::join(leaves.options.clone()).await.unwrap();
    tokio::time::sleep(TAKEOVER).await;
    leaves.wire.send_position(FAR, 0.0).await;
    let change = leaves.wire.island_changed().await;
    assert_ne!(change.island_id, stays.island);
    assert_eq!(left(&mut former).await, LeaveReason::Removed);
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let began = Instant::now();
        // The token is still valid. The removal may come before the data channels are open.
        let reason = match Participant::join(leaves.options.clone()).await {
            Ok(mut again) => left(&mut again).await,
            Err(JoinError::Ended(reason)) => reason,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(reason, LeaveReason::Removed);
        longest = longest.max(began.elapsed());
    }
    // Usually a few hundred milliseconds; the rest is for a busy machine.
    assert!(longest < Duration::from_secs(8), "{longest:?}");
    assert_eq!(realm.participants(&stays.island).await.map(|all| all.len()), Some(1));
    member.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn islands_leave_a_dead_server_and_return_to_it() {
    if !network_namespace::enter("livekit_rooms::islands_leave_a_dead_server_and_return_to_it") {
        return;
    }
    let mut realm = LiveKitRealm::start(&[]).await;
    let mut peer = realm.join(0.0).await;
    realm.server.kill();
    let killed = Instant::now();
    let change = peer.wire.island_changed().await;
    assert!(options(&change).is_none(), "{}", change.conn_str);
    assert_eq!(change.island_id, peer.island);
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    realm.server.restart();
    let deadline = Instant::now() + Duration::from_secs(40);
    let options = loop {
        peer.wire.send_position(0.0, 0.0).await;
        assert!(Instant::now() < deadline, "the island does not return");
        if !peer.wire.is_quiet_for(Duration::from_secs(1)).await {
            break options(&peer.wire.island_changed().await).expect("LiveKit");
        }
    };
    // The restarted server has no rooms; Atoll created this one.
    Participant::join(options).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_admits_members_only() {
    if !network_namespace::enter("livekit_rooms::proxy_admits_members_only") {
        return;
    }
    let realm = LiveKitRealm::start(&[("LIVEKIT__LK__PROXY", "true")]).await;
    let (stays, mut leaves) = (realm.join(0.0).await, realm.join(5.0).await);
    let _third = realm.join(2.0).await;
    assert_eq!(leaves.options.url, format!("ws://{LISTEN}/livekit/lk"));
    let mut member = Participant::join(stays.options.clone()).await.unwrap();
    let mut former = Participant::join(leaves.options.clone()).await.unwrap();
    former.sender().send_reliable("through the proxy".into(), None).unwrap();
    assert_eq!(payload(&mut member).await, "through the proxy");
    tokio::time::sleep(TAKEOVER).await;
    leaves.wire.send_position(FAR, 0.0).await;
    let change = leaves.wire.island_changed().await;
    // The Leave message passes the proxy before the socket is closed.
    assert_eq!(left(&mut former).await, LeaveReason::Removed);
    let rounds = std::env::var("ATOLL_LIVEKIT_FIGURES").map_or(1_u8, |_| 5);
    for _ in 0..rounds {
        let attempts = (0..200).map(|_| Participant::join(leaves.options.clone()));
        for refused in futures_util::future::join_all(attempts).await {
            let Err(JoinError::Refused { status: 403, .. }) = refused else { panic!("{refused:?}") };
        }
    }
    assert_eq!(realm.participants(&stays.island).await.map(|all| all.len()), Some(1));
    let refusals = "atoll_gateway_livekit_proxy_refusals_total{reason=\"no-member\"}";
    assert!(realm.realm.count(refusals).await >= 200.0 * f64::from(rounds));
    assert_eq!(realm.realm.count("atoll_gateway_livekit_proxy_connections").await, 1.0);
    // Its own room admits it.
    if let Some(options) = options(&change) {
        Participant::join(options).await.unwrap().close().await;
    }
    member.close().await;
}

/// The next data of a participant, as text.
async fn payload(participant: &mut Participant) -> String {
    let data = async {
        loop {
            match participant.next().await {
                Some(Event::Data(data)) => return String::from_utf8(data.payload.to_vec()).unwrap(),
                Some(_) => {}
                None => panic!("no data"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), data).await.expect("data arrives")
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_removes_no_participant() {
    if !network_namespace::enter("livekit_rooms::failover_removes_no_participant") {
        return;
    }
    const DIRECTORS: [(&str, &str); 2] = [("one", "127.0.0.1:5001"), ("two", "127.0.0.1:5002")];
    let server = start_server(&DIRECTORS.map(|(_, listen)| listen));
    let (url, api) = (server.url(), api(&server));
    let mut cluster = Cluster::start(&settings_for(&url));
    cluster.run("gateway", "gateway", &[]);
    cluster.run("rooms", "rooms", &[]);
    for (name, listen) in DIRECTORS {
        cluster.run_at(listen, name, "director", &[]);
    }
    cluster.ready().await;
    wait_until_healthy(&cluster["one"]).await;
    let (first, second) = (join(&cluster["gateway"], 0.0).await, join(&cluster["gateway"], 5.0).await);
    assert_eq!(first.island, second.island);
    let mut members = Vec::new();
    for peer in [&first, &second] {
        members.push(Participant::join(peer.options.clone()).await.unwrap());
    }
    let mut wires = [first.wire, second.wire];
    // The first peer is sent the join of the second.
    while !wires[0].is_quiet_for(Duration::from_secs(1)).await {
        wires[0].next_packet().await;
    }
    let leader = match cluster["one"].count("atoll_director_leads").await {
        1.0 => "one",
        _ => "two",
    };
    let standby = if leader == "one" { "two" } else { "one" };
    cluster.kill(leader);
    let leads = async || cluster[standby].count("atoll_director_leads").await == 1.0;
    soon("a new leader", leads).await;
    // It removes participants from ten seconds on.
    for _ in 0..15 {
        for wire in &mut wires {
            wire.send_position(0.0, 0.0).await;
            assert!(wire.is_quiet_for(Duration::from_millis(500)).await, "a packet after the failover");
        }
    }
    let inside = participants(&api, &first.island).await.unwrap();
    assert_eq!(inside.len(), 2, "{inside:?}");
    members[0].sender().send_reliable("still here".into(), None).unwrap();
    assert_eq!(payload(&mut members[1]).await, "still here");
    let removed = "atoll_livekit_calls_total{node=\"lk\",call=\"remove_participant\",result=\"ok\"}";
    assert_eq!(cluster[standby].count(removed).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn islands_are_balanced_over_several_servers() {
    if !network_namespace::enter("livekit_rooms::islands_are_balanced_over_several_servers") {
        return;
    }
    let other = start_server(&[]);
    let url = other.url();
    let realm = LiveKitRealm::start(&[
        ("LIVEKIT__TWO__URL", &url),
        ("LIVEKIT__TWO__API_KEY", LiveKitServer::API_KEY),
        ("LIVEKIT__TWO__API_SECRET", LiveKitServer::API_SECRET),
        ("LIVEKIT__LK__MAX_USERS", "10"),
        ("LIVEKIT__TWO__MAX_USERS", "10"),
    ])
    .await;
    let both = async || realm.realm.count("atoll_transport_healthy{node=\"two\"}").await == 1.0;
    soon("the second server", both).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut on_other, mut peers) = (0, Vec::new());
    for number in 0_i16..4 {
        let peer = realm.join(f32::from(number) * FAR).await;
        on_other += usize::from(peer.options.url == url);
        peers.push(peer);
    }
    assert_eq!(on_other, 2, "each new island is on the server with more free seats");
    // Each has its room on its own server only.
    for api in [api(&other), realm.api] {
        assert_eq!(api.list_rooms(vec![]).await.unwrap().len(), 2);
    }
}
