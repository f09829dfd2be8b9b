//! Interoperation with the services of archipelago-workers: their messages, byte by byte.

use std::time::{Duration, SystemTime};

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use identity::Wallet;
use protocol::{
    Message as _, Position, unix_ms,
    v3::{
        Heartbeat, IslandChangedMessage, IslandStatusMessage, ServiceDiscoveryMessage, ServiceStatus,
        client_packet, server_packet,
    },
};
use serde_json::json;
use test_support::{
    Cluster, Realm, TEST_TIMEOUT, eventually, wallet,
    wire::{Wire, enter_room, sign_in},
};
use tokio::time::{Instant, interval, timeout};

const LAYOUT: (&str, &str) = ("BUS__SUBJECTS", "archipelago-workers");

/// A service of archipelago-workers, played by a plain NATS client.
struct WorkersClient {
    client: Client,
    messages: Subscriber,
}

impl WorkersClient {
    /// Subscribes to this pattern.
    async fn subscribe(cluster: &Cluster, pattern: &'static str) -> Self {
        let client = async_nats::connect(cluster.nats.url()).await.unwrap();
        let messages = client.subscribe(pattern).await.unwrap();
        client.flush().await.unwrap();
        Self { client, messages }
    }

    async fn publish(&self, subject: String, payload: Vec<u8>) {
        self.client.publish(subject, payload.into()).await.unwrap();
    }

    /// Publishes the position of a peer.
    async fn heartbeat(&self, wallet: &Wallet, x: f32) {
        let heartbeat = Heartbeat { position: Some(Position::new(x, 1.0, 0.0).into()), desired_room: None };
        self.publish(format!("peer.{}.heartbeat", wallet.address()), heartbeat.encode_to_vec()).await;
    }

    /// The next message on a subject that `holds` accepts; others are skipped. No message may have
    /// headers.
    async fn next_on(&mut self, holds: impl Fn(&str) -> bool) -> Message {
        let next = async {
            loop {
                let message = self.messages.next().await.unwrap();
                if holds(&message.subject) {
                    return message;
                }
            }
        };
        let message = timeout(TEST_TIMEOUT, next).await.expect("a message in time");
        assert!(message.headers.is_none(), "{}: {:?}", message.subject, message.headers);
        message
    }
}

/// A gateway of archipelago-workers, with its peers and their positions.
struct WorkersGateway {
    changes: WorkersClient,
    peers: Vec<(Wallet, f32)>,
}

impl WorkersGateway {
    /// The next assignment of a peer, while heartbeats of all peers are published.
    async fn island_changed(&mut self, wallet: &Wallet) -> IslandChangedMessage {
        let wanted = format!("engine.peer.{}.island_changed", wallet.address());
        let mut beats = interval(Duration::from_millis(300));
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            tokio::select! {
                message = self.changes.messages.next() => {
                    let message = message.unwrap();
                    assert!(message.headers.is_none(), "{:?}", message.headers);
                    if message.subject.as_str() == wanted {
                        return IslandChangedMessage::decode(&message.payload[..]).unwrap();
                    }
                }
                _ = beats.tick() => self.send_heartbeats().await,
            }
            assert!(Instant::now() < deadline, "{wanted} in time");
        }
    }

    async fn send_heartbeats(&self) {
        for (wallet, x) in &self.peers {
            self.changes.heartbeat(wallet, *x).await;
        }
    }

    /// Waits for a report with exactly these islands, while heartbeats of all peers are published.
    async fn await_islands(&mut self, reports: &mut WorkersClient, mut wanted: Vec<Vec<&Wallet>>) {
        let addresses = |peers: &mut Vec<&Wallet>| {
            let mut addresses: Vec<_> = peers.iter().map(|peer| peer.address().to_string()).collect();
            addresses.sort();
            addresses
        };
        let mut wanted: Vec<_> = wanted.iter_mut().map(addresses).collect();
        wanted.sort();
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            self.send_heartbeats().await;
            let report = reports.next_on(|subject| subject == "engine.islands").await;
            let report = IslandStatusMessage::decode(&report.payload[..]).unwrap();
            let mut islands: Vec<_> = report.data.into_iter().map(|island| island.peers).collect();
            islands.iter_mut().for_each(|peers| peers.sort());
            islands.sort();
            if islands == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{wanted:?} in time, not {islands:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn director_serves_archipelago_workers_gateways() {
    let mut cluster = Cluster::start(&[LAYOUT, ("ISLANDS__REPORT_INTERVAL_MS", "300")]);
    let mut everything = WorkersClient::subscribe(&cluster, "engine.>").await;
    let mut announcements = WorkersClient::subscribe(&cluster, "engine.discovery").await;
    for (name, roles) in [("director", "director"), ("rooms-1", "rooms")] {
        cluster.run(name, roles, &[]);
    }
    cluster.ready().await;

    // It announces itself in their format.
    let before = unix_ms(SystemTime::now());
    let announcement = announcements.next_on(|_| true).await;
    let announcement = ServiceDiscoveryMessage::decode(&announcement.payload[..]).unwrap();
    let announced_at = announcement.status.unwrap().current_time;
    assert_eq!(announcement.server_name, "archipelago");
    assert!(announced_at.abs_diff(before) < 60_000, "{announced_at} is not in milliseconds since 1970");

    // Peers near each other share an island.
    let changes = WorkersClient::subscribe(&cluster, "engine.peer.>").await;
    let (one, two, three) = (wallet(), wallet(), wallet());
    let mut gateway = WorkersGateway { changes, peers: vec![(one.clone(), 0.0)] };
    let alone = gateway.island_changed(&one).await;
    assert_eq!(alone.peers.len(), 1);
    gateway.peers.push((two.clone(), 10.0));
    let together = gateway.island_changed(&two).await;
    assert_eq!((&together.island_id, together.peers.len()), (&alone.island_id, 2));
    gateway.peers.push((three.clone(), 5.0));
    gateway.await_islands(&mut everything, vec![vec![&one, &two, &three]]).await;

    // Both connection strings lead to the same room.
    let mut rooms = Vec::new();
    for (wallet, change) in [(&one, &alone), (&two, &together)] {
        rooms.push(enter_room(wallet, change).await);
    }
    assert_eq!(rooms[1].1.peer_identities.len(), 1);

    // One peer walks away; the others keep their island.
    gateway.peers[1].1 = 1_000.0;
    let apart = gateway.island_changed(&two).await;
    assert_ne!(apart.island_id, alone.island_id);
    assert_eq!(apart.from_island_id.as_ref(), Some(&alone.island_id));
    gateway.await_islands(&mut everything, vec![vec![&one, &three], vec![&two]]).await;

    // All peers disconnect.
    for (wallet, _) in gateway.peers.drain(..) {
        gateway.changes.publish(format!("peer.{}.disconnect", wallet.address()), Vec::new()).await;
    }
    gateway.await_islands(&mut everything, vec![]).await;
    // A peer that reconnects is assigned again, although its island is the same.
    gateway.peers = vec![(one.clone(), 0.0)];
    assert_eq!(gateway.island_changed(&one).await.island_id, alone.island_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_gateway_peers_keep_islands_over_director_failover() {
    let mut cluster = Cluster::start(&[LAYOUT]);
    for (name, roles) in [("one", "director"), ("two", "director"), ("rooms-1", "rooms")] {
        cluster.run(name, roles, &[]);
    }
    cluster.ready().await;
    let leads = async |name: &str| cluster[name].count("atoll_director_leads").await == 1.0;
    eventually("one of them leads", async || leads("one").await || leads("two").await).await;
    let (first, second) = if leads("one").await { ("one", "two") } else { ("two", "one") };
    let changes = WorkersClient::subscribe(&cluster, "engine.peer.>").await;
    let (one, two, three) = (wallet(), wallet(), wallet());
    let mut gateway = WorkersGateway { changes, peers: vec![(one.clone(), 0.0)] };
    let alone = gateway.island_changed(&one).await;
    gateway.peers.push((two.clone(), 10.0));
    gateway.island_changed(&two).await;
    // The first peer stays with the third: theirs is the larger part, and keeps the island.
    gateway.peers.push((three.clone(), 5.0));
    gateway.island_changed(&three).await;
    cluster.kill(first);
    let leads = async || {
        gateway.send_heartbeats().await;
        cluster[second].count("atoll_director_leads").await == 1.0
    };
    eventually("the other leads", leads).await;
    for _ in 0..8 {
        gateway.send_heartbeats().await;
        let unexpected = timeout(Duration::from_millis(250), gateway.changes.messages.next()).await;
        assert!(unexpected.is_err(), "{unexpected:?}");
    }
    // The new leader knows the peers' islands, and continues from there.
    gateway.peers[1].1 = 1_000.0;
    let apart = gateway.island_changed(&two).await;
    assert_eq!(apart.from_island_id.as_ref(), Some(&alone.island_id));
}

/// The next message about a peer, with the last segment of its subject: a heartbeat, a disconnect, or
/// another one.
async fn next_peer_message(core: &mut WorkersClient, wallet: &Wallet) -> (String, Message) {
    let prefix = format!("peer.{}.", wallet.address());
    let message = core.next_on(|subject| subject.starts_with(&prefix)).await;
    (message.subject[prefix.len()..].to_owned(), message)
}

async fn heartbeats_are_forwarded_byte_for_byte(
    core: &mut WorkersClient,
    wire: &mut Wire,
    me: &Wallet,
    position: Position,
) {
    let position = Some(position.into());
    for desired_room in [None, Some("I7".to_owned())] {
        let heartbeat = Heartbeat { position, desired_room };
        wire.send_packet(client_packet::Message::Heartbeat(heartbeat.clone())).await;
        let mut received = next_peer_message(core, me).await;
        // Between the two the gateway may have repeated the first one.
        while received.1.payload != heartbeat.encode_to_vec() {
            let before = Heartbeat { position, desired_room: None };
            assert_eq!((&*received.0, received.1.payload.to_vec()), ("heartbeat", before.encode_to_vec()));
            received = next_peer_message(core, me).await;
        }
        assert_eq!(received.0, "heartbeat");
    }
}

async fn assignments_are_forwarded_unchanged_and_once(
    core: &WorkersClient,
    wire: &mut Wire,
    me: &Wallet,
    position: Position,
) {
    let change = IslandChangedMessage {
        island_id: "I7".to_owned(),
        conn_str: "ws-room:ws://127.0.0.1:1/rooms/I7?access_token=t".to_owned(),
        from_island_id: None,
        peers: [(me.address().to_string(), position.into())].into(),
    };
    let subject = format!("engine.peer.{}.island_changed", me.address());
    core.publish(subject.clone(), change.encode_to_vec()).await;
    assert_eq!(wire.next_packet().await, server_packet::Message::IslandChanged(change.clone()));
    let next =
        IslandChangedMessage { from_island_id: Some("I7".to_owned()), island_id: "I8".to_owned(), ..change };
    // This subject is ours only: in this scheme no service uses it.
    core.publish(format!("peer.{}.island_changed", me.address()), next.encode_to_vec()).await;
    assert!(wire.is_quiet_for(Duration::from_millis(300)).await);
    core.publish(subject, next.encode_to_vec()).await;
    assert_eq!(wire.next_packet().await, server_packet::Message::IslandChanged(next));
}

/// The gateway publishes no more about its clients than their positions.
async fn only_positions_are_published(core: &mut WorkersClient, me: &Wallet, position: Position) {
    let (kind, message) = loop {
        let received = next_peer_message(core, me).await;
        // Published by this test.
        if received.0 != "island_changed" {
            break received;
        }
    };
    let repeated = Heartbeat { position: Some(position.into()), desired_room: Some("I7".to_owned()) };
    assert_eq!((&*kind, message.payload.to_vec()), ("heartbeat", repeated.encode_to_vec()));
}

/// Another sign-in replaces the session; then that one disconnects.
async fn another_sign_in_replaces_the_session(
    core: &mut WorkersClient,
    gateway: &Realm,
    mut wire: Wire,
    me: &Wallet,
) {
    let second = sign_in(gateway, me).await;
    let kicked = wire.next_packet().await;
    assert!(matches!(kicked, server_packet::Message::Kicked(_)), "{kicked:?}");
    let (mut goodbyes, mut received) = (Vec::new(), Vec::new());
    drop(second);
    while goodbyes.len() < 2 {
        let (kind, message) = next_peer_message(core, me).await;
        match &*kind {
            "disconnect" => goodbyes.push(message.payload),
            other => received.push(other.to_owned()),
        }
    }
    assert!(goodbyes.iter().all(|payload| payload.is_empty()));
    assert!(received.iter().all(|kind| kind == "heartbeat"), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_follows_archipelago_workers_core() {
    let mut cluster = Cluster::start(&[LAYOUT, ("GATEWAY__VOUCH_INTERVAL_S", "1")]);
    // All messages about peers, and more than the core subscribes to.
    let mut core = WorkersClient::subscribe(&cluster, "*.>").await;
    let gateway = cluster.run("gateway", "gateway", &[]);
    let healthy = async || gateway.json("/about").await["healthy"] == json!(true);
    assert!(!healthy().await, "no service assigns islands");
    let status = ServiceStatus { current_time: unix_ms(SystemTime::now()), commit_hash: None, user_count: 7 };
    let announcement =
        ServiceDiscoveryMessage { server_name: "archipelago".to_owned(), status: Some(status) };
    core.publish("engine.discovery".to_owned(), announcement.encode_to_vec()).await;
    eventually("the realm is healthy", async || healthy().await).await;
    assert_eq!(gateway.json("/about").await["comms"]["healthy"], json!(true));

    // A sign-in ends earlier sessions of the peer.
    let me = wallet();
    let mut wire = sign_in(gateway, &me).await;
    let (kind, message) = next_peer_message(&mut core, &me).await;
    assert_eq!((&*kind, &message.payload[..]), ("disconnect", &b""[..]));

    let position = Position::new(3.0, 1.0, -4.5);
    heartbeats_are_forwarded_byte_for_byte(&mut core, &mut wire, &me, position).await;
    assignments_are_forwarded_unchanged_and_once(&core, &mut wire, &me, position).await;
    only_positions_are_published(&mut core, &me, position).await;
    another_sign_in_replaces_the_session(&mut core, gateway, wire, &me).await;
}
