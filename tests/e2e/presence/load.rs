//! `make presence-load`: the latency in a room while readers poll presence in a loop.
//!
//! `ATOLL_LOAD_BINARY` is another build to measure the same way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use test_support::{NatsServer, Realm, within};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time,
};

use super::synthetic_peers::SyntheticPeers;
use crate::attacks::{RoomLatency, measure_room_latency};

const PEERS: usize = 2_000;
/// The interval of each peer's heartbeats.
const BEAT: Duration = Duration::from_secs(5);
const READERS: usize = 32;
const ROUNDS: usize = 3;

/// Sends requests in a loop over one connection.
async fn read(address: String, path: &'static str, gzip: bool, stop: Arc<AtomicBool>, read: Arc<AtomicU64>) {
    let mut stream = BufReader::with_capacity(64 * 1024, TcpStream::connect(&address).await.unwrap());
    let accept = if gzip { "accept-encoding: gzip\r\n" } else { "" };
    let request = format!("GET {path} HTTP/1.1\r\nhost: atoll\r\n{accept}\r\n");
    let mut body = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "the connection ended");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await.unwrap();
        read.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark of minutes: make presence-load"]
async fn room_latency_under_presence_readers() {
    let server = NatsServer::start();
    let realm = Realm::launch(&["--bus", &server.url()], &[]);
    let world = Arc::new(SyntheticPeers::new(&server, PEERS).await);
    world.publish_connects();
    let beating = world.clone();
    tokio::spawn(async move {
        let mut tick = time::interval(BEAT / 100);
        for round in (0..100).cycle() {
            tick.tick().await;
            beating.publish_heartbeats((round..beating.count()).step_by(100));
        }
    });
    within(Duration::from_secs(60), "all are in islands", async || {
        let islands = realm.json("/islands").await;
        let islands = islands["islands"].as_array().unwrap();
        islands.iter().map(|island| island["peers"].as_array().unwrap().len()).sum::<usize>() == PEERS
    })
    .await;
    let bytes = realm.get("/islands").await.bytes().await.unwrap().len();
    println!("{PEERS} peers: /islands has {} KiB", bytes / 1024);
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>7} {:>10}",
        "room latency, ms", "p50", "p99", "max", "CPU %", "answers/s"
    );
    for _ in 0..ROUNDS {
        for (label, readers, gzip) in
            [("idle", 0, false), ("32 readers", READERS, false), ("32 readers, gzip", READERS, true)]
        {
            let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let mut tasks = JoinSet::new();
            for _ in 0..readers {
                let address = realm.http.strip_prefix("http://").unwrap().to_owned();
                tasks.spawn(read(address, "/islands", gzip, stop.clone(), count.clone()));
            }
            let began = time::Instant::now();
            let RoomLatency { p50, p99, max, cpu } = measure_room_latency(&realm).await;
            let rate = count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            while let Some(task) = tasks.join_next().await {
                task.unwrap();
            }
            println!("{label:<28} {p50:>8.2} {p99:>8.2} {max:>8.2} {cpu:>7.1} {rate:>10.0}");
        }
    }
}
