//! Test of the live feed with a client that does not read, on a real socket.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use admission::Network;
use axum::Extension;
use bus::{Bus, Headers};
use protocol::PositionPrecision;
use protocol::{Address, Message as _, Position, Subject, v3::Heartbeat};
use stats::{Access, Settings, Stats};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const EVENTS_KEPT: usize = 2_000;
/// Fewer events than are kept, so that a client that reads receives all of them.
const EVENTS_PER_ROUND: usize = 1_000;
/// All rounds together exceed the buffers of the sockets: 60,000 events of about 250 bytes.
const ROUNDS: usize = 60;

async fn open(server: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: atoll\r\n\r\n").await.unwrap();
    BufReader::with_capacity(64 * 1024, stream)
}

/// The next `event:` line.
async fn event(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(timeout(TEST_TIMEOUT, reader.read_line(&mut line)).await.unwrap().unwrap() > 0, "the end");
        if let Some(name) = line.strip_prefix("event: ") {
            return name.trim().to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_is_reset_and_delays_no_other_reader() {
    let stats = Stats::new(Settings {
        peer_timeout: Duration::from_secs(600),
        report_timeout: Duration::from_secs(600),
        access: Access::Public,
        positions: PositionPrecision::Exact,
        realm_name: String::new(),
        public_url: String::new(),
        max_users: 1,
        max_island_size: 1,
        content_url: None,
        content_timeout: Duration::from_secs(1),
        scene_ttl: Duration::from_secs(1),
        max_scene_parcels: 1,
        feed_events: EVENTS_KEPT,
        max_feed_readers: 2,
        max_feed_readers_per_network: 2,
        feed_keep_alive: Duration::from_secs(600),
    });
    let bus = Bus::in_process();
    let subscription = stats.subscribe(&bus);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let (router, _) = stats.router().split_for_parts();
    let router = router.layer(Extension(Network::from_ip(server.ip(), 64)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let stats_bus = bus.clone();
    tokio::spawn(async move { stats.run(stats_bus, subscription).await });

    let mut slow = open(server).await;
    assert_eq!(event(&mut slow).await, "ready");
    let mut quick = open(server).await;
    assert_eq!(event(&mut quick).await, "ready");
    let position = Some(Position::new(1.0, 2.0, 3.0).into());
    let heartbeat = Heartbeat { position, desired_room: None }.encode_to_vec();
    let peer = Address::new([7; 20]);
    for _ in 0..ROUNDS {
        for _ in 0..EVENTS_PER_ROUND / 2 {
            bus.publish(&Subject::PeerHeartbeat(peer), Headers::default(), heartbeat.clone());
            bus.publish(&Subject::PeerDisconnect(peer), Headers::default(), Vec::new());
        }
        for _ in 0..EVENTS_PER_ROUND / 2 {
            assert_eq!(event(&mut quick).await, "join");
            assert_eq!(event(&mut quick).await, "leave");
        }
    }
    // The slow reader receives the events from before the buffers were full, then a reset.
    let mut before = 0;
    while event(&mut slow).await != "reset" {
        before += 1;
        assert!(before < EVENTS_PER_ROUND * ROUNDS, "the reader received no reset");
    }
    bus.publish(&Subject::PeerHeartbeat(peer), Headers::default(), heartbeat);
    assert_eq!(event(&mut quick).await, "join");
    // On a busy machine, the reset may have come before the last round. Then events of that round precede the
    // join.
    while event(&mut slow).await != "join" {}
}
