//! Gateways on a shared bus: their heartbeats, and sessions across several gateways.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Subscriber;
use futures_util::{StreamExt, future::join_all};
use identity::Wallet;
use protocol::{
    Address, Close, Message as _, Position, Subject,
    atoll_bus::{GatewayHeartbeat, Told},
    bff::{DisconnectionMessage, DisconnectionReason, SignedChallenge, WelcomePeerInformation},
    subject,
    v3::{Heartbeat, client_packet, server_packet},
};
use serde_json::json;
use test_support::{
    Cluster, NatsServer, Realm, TEST_TIMEOUT, eventually,
    rpc_caller::{self, Caller},
    wallet,
    wire::{Wire, sign_in, sign_in_with},
};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

fn realm_on(server: &NatsServer, settings: &[(&str, &str)]) -> Realm {
    Realm::launch(&["--bus", &server.url()], settings)
}

/// A NATS client that receives heartbeats.
async fn listener(server: &NatsServer) -> (async_nats::Client, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let heartbeats = client.subscribe(subject::PEER_HEARTBEATS).await.unwrap();
    client.flush().await.unwrap();
    (client, heartbeats)
}

/// The next heartbeat, and the address of its peer.
async fn next_heartbeat(heartbeats: &mut Subscriber) -> (Address, GatewayHeartbeat) {
    let message = timeout(TEST_TIMEOUT, heartbeats.next()).await.expect("a heartbeat in time").unwrap();
    let Ok(Subject::PeerHeartbeat(address)) = message.subject.parse() else { panic!("{}", message.subject) };
    (address, GatewayHeartbeat::decode(message.payload).unwrap())
}

async fn heartbeat_with_desired_room(wire: &mut Wire, x: f32, room: Option<&str>) {
    let (position, desired_room) = (Some(Position::new(x, 1.0, 0.0).into()), room.map(str::to_owned));
    wire.send_packet(client_packet::Message::Heartbeat(Heartbeat { position, desired_room })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_carry_all_that_a_director_needs() {
    let server = NatsServer::start();
    let realm = realm_on(&server, &[]);
    let (_bus, mut heartbeats) = listener(&server).await;
    let mut wire = sign_in_with(&realm, &wallet(), &["p2p", "ws-room"]).await;
    heartbeat_with_desired_room(&mut wire, 1.0, Some("I1")).await;
    let first = next_heartbeat(&mut heartbeats).await.1;
    assert_eq!(first.position, Some(Position::new(1.0, 1.0, 0.0).into()));
    assert_eq!(first.transports.as_deref(), Some("p2p,ws-room"));
    assert_eq!((first.desired_room.as_deref(), first.told), (Some("I1"), Some(Told::default())));
    let island = wire.island_changed().await.island_id;
    heartbeat_with_desired_room(&mut wire, 2.0, None).await;
    let second = next_heartbeat(&mut heartbeats).await.1;
    assert_eq!(second.desired_room.as_deref(), Some("I1"), "the desired room is repeated");
    assert_eq!(second.told.unwrap().island, island);
    heartbeat_with_desired_room(&mut wire, 2.0, Some("")).await;
    assert_eq!(
        next_heartbeat(&mut heartbeats).await.1.desired_room.as_deref(),
        Some(""),
        "an empty desired room clears it"
    );
    drop(wire);
    // The same over RPC, where an assignment waits until the client requests commands.
    let mut caller = rpc_caller::sign_in(&realm, &wallet()).await;
    caller.heartbeat(5_000.0).await;
    let first = next_heartbeat(&mut heartbeats).await.1;
    assert_eq!((first.transports, first.told), (None, Some(Told::default())));
    eventually("the heartbeat reports the assignment", async || {
        caller.heartbeat(5_000.0).await;
        let assignment = next_heartbeat(&mut heartbeats).await.1.told.unwrap();
        !assignment.island.is_empty() && assignment.island != island
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_request_reports_each_peer_once() {
    let server = NatsServer::start();
    // No position is repeated meanwhile.
    let rarely = [("GATEWAY__VOUCH_INTERVAL_S", "60"), ("ISLANDS__SILENCE_S", "120")];
    let realm = realm_on(&server, &rarely);
    let mut wires = Vec::new();
    for number in 0..20_u8 {
        let mut wire = sign_in(&realm, &wallet()).await;
        wire.heartbeat(f32::from(number)).await;
        wire.island_changed().await;
        wires.push(wire);
    }
    let caller_wallet = wallet();
    let mut caller = rpc_caller::sign_in(&realm, &caller_wallet).await;
    caller.heartbeat(20.0).await;
    eventually("all are shown", async || {
        realm.json("/peers").await["peers"].as_array().is_some_and(|peers| peers.len() == 21)
    })
    .await;
    let (bus, mut heartbeats) = listener(&server).await;
    for _ in 0..2 {
        bus.publish(Subject::PeersWanted.to_string(), "".into()).await.unwrap();
    }
    let mut positions = BTreeMap::new();
    while positions.len() < 21 {
        let (address, heartbeat) = next_heartbeat(&mut heartbeats).await;
        let x = heartbeat.position.unwrap().x;
        assert!(positions.insert(address, x).is_none(), "each once for two requests");
    }
    assert_eq!(positions[&caller_wallet.address()], 20.0);
    assert!(timeout(Duration::from_millis(1_500), heartbeats.next()).await.is_err(), "each once");
    // Presence that starts later shows them, too, and does not wait for their next heartbeats.
    let later = realm_on(&server, &[("ROOMS__NODE", "rooms-later")]);
    eventually("all are shown there", async || {
        later.json("/peers").await["peers"].as_array().is_some_and(|peers| peers.len() == 21)
    })
    .await;
}

/// A realm with these gateways, which allow many concurrent handshakes. Silent peers are removed after
/// 4 s.
async fn realm_with(gateways: &[&str]) -> Cluster {
    let settings = [
        ("ISLANDS__SILENCE_S", "4"),
        ("GATEWAY__VOUCH_INTERVAL_S", "1"),
        ("GATEWAY__MAX_HANDSHAKES_PER_IP", "512"),
    ];
    Cluster::with_gateways(gateways, &settings).await
}

/// A signed-in client of either dialect.
enum Client {
    Socket(Box<Wire>),
    /// It has requested the end of its session; the response has this number.
    Rpc(Box<Caller>, u32),
}

impl Client {
    async fn sign_in(realm: &Realm, wallet: &Wallet, over_rpc: bool) -> Self {
        if !over_rpc {
            return Self::Socket(Box::new(sign_in(realm, wallet).await));
        }
        let mut caller = Caller::open(realm).await;
        // Requested before the sign-in: a newer session may replace this one at once.
        let end_call = caller.call("BffAuthenticationService.GetDisconnectionMessage", &()).await;
        let challenge = caller.challenge(wallet).await.challenge_to_sign;
        let signed = SignedChallenge { auth_chain_json: wallet.sign_challenge(&challenge) };
        let welcome: WelcomePeerInformation =
            caller.request("BffAuthenticationService.Authenticate", &signed).await;
        assert_eq!(welcome.peer_id, wallet.address().to_string());
        Self::Rpc(Box::new(caller), end_call)
    }

    /// Waits, for at most 300 s, until the client is notified that a newer session replaced it, and its
    /// socket is closed. Returns the time of the notification.
    async fn wait_for_kick(self) -> Instant {
        const RACE: Duration = Duration::from_secs(300);
        let (kicked_at, mut wire) = match self {
            Self::Socket(mut wire) => {
                assert!(!wire.is_quiet_for(RACE).await);
                assert!(matches!(wire.next_packet().await, server_packet::Message::Kicked(_)));
                (Instant::now(), *wire)
            }
            Self::Rpc(mut caller, end_call) => {
                assert!(!caller.wire.is_quiet_for(RACE).await);
                let message: DisconnectionMessage = caller.response(end_call).await;
                assert_eq!(message.reason(), DisconnectionReason::DrKicked);
                (Instant::now(), caller.wire)
            }
        };
        assert_eq!(wire.closed().await.0, Close::NewSession);
        kicked_at
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_sign_ins_at_three_gateways_leave_one_session() {
    const SIGN_INS: usize = 1_000;
    const WALLETS: usize = 50;
    const GATEWAYS: [&str; 3] = ["one", "two", "three"];
    let cluster = Arc::new(realm_with(&GATEWAYS).await);
    let wallets: Arc<Vec<Wallet>> = Arc::new((0..WALLETS).map(|_| wallet()).collect());
    let at_a_time = Arc::new(Semaphore::new(100));
    let (settled, is_settled) = watch::channel(());
    let mut racers = JoinSet::new();
    for number in 0..SIGN_INS {
        let (cluster, wallets, at_a_time) = (cluster.clone(), wallets.clone(), at_a_time.clone());
        let mut is_settled = is_settled.clone();
        racers.spawn(async move {
            // The sign-ins of one wallet follow each other, at all gateways and over both dialects.
            let (wallet, gateway) = (number * WALLETS / SIGN_INS, GATEWAYS[number % 3]);
            let client = {
                let _permit = at_a_time.acquire().await.unwrap();
                Client::sign_in(&cluster[gateway], &wallets[wallet], number % 2 == 0).await
            };
            let welcomed = Instant::now();
            let kicked_at = tokio::select! {
                kicked_at = client.wait_for_kick() => Some(kicked_at),
                _ = is_settled.changed() => None,
            };
            (wallet, welcomed, kicked_at)
        });
    }
    let mut losers = Vec::new();
    while losers.len() < SIGN_INS - WALLETS {
        let loser = timeout(3 * TEST_TIMEOUT, racers.join_next()).await.expect("all but one are kicked");
        let (wallet, _, kicked_at) = loser.unwrap().unwrap();
        losers.push((wallet, kicked_at.expect("the race is not stopped yet")));
    }
    sleep(Duration::from_millis(500)).await;
    let signed_in = GATEWAYS.map(|gateway| cluster[gateway].metric("explorer_bff_connected_users"));
    let signed_in: f64 = join_all(signed_in).await.into_iter().sum();
    assert_eq!((racers.len(), signed_in), (WALLETS, WALLETS as f64), "of each wallet one session lives");
    settled.send_replace(());
    let winners: BTreeMap<usize, Instant> =
        racers.join_all().await.into_iter().map(|(wallet, welcomed, _)| (wallet, welcomed)).collect();
    assert_eq!(winners.len(), WALLETS, "one of each wallet");
    // Most sessions were replaced by one that was replaced later.
    let after =
        losers.into_iter().map(|(wallet, kicked_at)| kicked_at.saturating_duration_since(winners[&wallet]));
    let after = after.filter(|after| !after.is_zero()).collect();
    assert_kicked_in_time("kicked after the welcome of the last session", after);
}

/// Prints how long after the welcome of a newer session the older ones were kicked, and asserts bounds:
/// half of them within 500 ms on any machine, and all within 5 s.
fn assert_kicked_in_time(label: &str, mut after: Vec<Duration>) {
    after.sort();
    let Some(&max) = after.last() else { return };
    let p50 = after[after.len() / 2];
    println!("{label}, {}: p50 {p50:?}, max {max:?}", after.len());
    assert!(p50 < Duration::from_millis(500), "{after:?}");
    assert!(max < Duration::from_secs(5), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_at_another_gateway_kicks_the_older_session() {
    let cluster = realm_with(&["one", "two"]).await;
    let gateways = [&cluster["one"], &cluster["two"]];
    let mut took = Vec::new();
    for number in 0..50 {
        let (older_over_rpc, newer_over_rpc) = (number % 2 == 0, number % 4 < 2);
        let (here, there) = (gateways[number % 2], gateways[(number + 1) % 2]);
        let wallet = wallet();
        let older = Client::sign_in(here, &wallet, older_over_rpc).await;
        eventually("the other gateway knows the session", async || {
            Caller::open(there).await.challenge(&wallet).await.already_connected
        })
        .await;
        let kicked = tokio::spawn(older.wait_for_kick());
        let newer = Client::sign_in(there, &wallet, newer_over_rpc).await;
        let welcomed = Instant::now();
        took.push(kicked.await.unwrap().saturating_duration_since(welcomed));
        drop(newer);
        eventually("this gateway knows that the session ended", async || {
            !Caller::open(here).await.challenge(&wallet).await.already_connected
        })
        .await;
    }
    assert_kicked_in_time("kicked", took);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_started_later_learns_remote_sessions() {
    let mut cluster = realm_with(&["first"]).await;
    let wallet = wallet();
    let mut wire = sign_in(&cluster["first"], &wallet).await;
    wire.heartbeat(0.0).await;
    wire.island_changed().await;
    cluster.run("later", "gateway", &[]);
    eventually("the other gateway knows the session", async || {
        Caller::open(&cluster["later"]).await.challenge(&wallet).await.already_connected
    })
    .await;
    // Its gateway is killed; the director publishes the disconnect after its silence timeout.
    cluster.kill("first");
    eventually("the gateway knows that the session ended", async || {
        !Caller::open(&cluster["later"]).await.challenge(&wallet).await.already_connected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_session_without_position_expires() {
    let mut cluster = Cluster::start(&[("GATEWAY__IDLE_TIMEOUT_S", "2"), ("GATEWAY__PING_INTERVAL_S", "1")]);
    for (name, roles) in [("one", "gateway"), ("two", "gateway"), ("rest", "director,rooms")] {
        cluster.run(name, roles, &[]);
    }
    cluster.ready().await;
    let wallet = wallet();
    let _wire = sign_in(&cluster["one"], &wallet).await;
    let known = async || Caller::open(&cluster["two"]).await.challenge(&wallet).await.already_connected;
    eventually("the other gateway knows the session", known).await;
    // No process is left that would publish its disconnect.
    cluster.kill("one");
    eventually("the session expires", async || {
        !Caller::open(&cluster["two"]).await.challenge(&wallet).await.already_connected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_bots_measure_a_director_without_loss() {
    let mut cluster = Cluster::start(&[]);
    cluster.run("director", "director", &[]);
    cluster.ready().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    let (bus, director) = (cluster.nats.url(), cluster["director"].http.clone());
    command.args(["bots", "--heartbeats", "500", "--count", "500", "--seconds", "6", "--json"]);
    command.args(["--bus", &bus, "--url", &director]);
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["sent"], &summary["heard"], &summary["lost"]),
        (&json!(3_000), &json!(3_000.0), &json!(0.0))
    );
    assert_eq!((&summary["peers"], &summary["islands"]), (&json!(500.0), &json!(20.0)));
    assert!(summary["told_ms"]["samples"].as_u64() >= Some(5), "five peers jump: {summary}");
    assert!(summary["flush_ms"]["samples"].as_u64() > Some(10), "{summary}");
    // All simulated peers disconnect at the end.
    eventually("gone", async || cluster["director"].metric("dcl_archipelago_peers_count").await == 0.0).await;
}
