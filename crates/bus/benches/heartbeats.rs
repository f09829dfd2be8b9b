//! The CPU time that a subscriber spends on each heartbeat over NATS, compared with a subscriber that uses
//! the client library alone and only counts: `cargo bench -p bus`.
//!
//! Each subscriber is a process of its own, which prints its CPU time. All of them receive the same load:
//! 100,000 heartbeats a second for five seconds.

#![allow(clippy::unwrap_used)]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bus::{Bus, Credentials, Headers, NatsSettings};
use futures_util::StreamExt;
use process_usage::Process;
use protocol::{
    Address, Message as _, Position, SessionId, Subject,
    atoll_bus::{GatewayHeartbeat, Told},
    subject::{self, SubjectScheme},
};
use test_support::NatsServer;
use tokio::time;

const PER_SECOND: u64 = 100_000;
const MESSAGES: u64 = 500_000;
/// The environment variables that select a child's subscriber and its server.
const SUBSCRIBER_ENV: &str = "BENCH_SUBSCRIBER";
const URL_ENV: &str = "BENCH_URL";
/// When no message arrives for this long, the load has ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() {
    match env::var(SUBSCRIBER_ENV).as_deref() {
        Ok("bare") => raw_client(env::var(URL_ENV).unwrap()).await,
        Ok(_) => bus_subscriber(env::var(URL_ENV).unwrap()).await,
        Err(_) => run().await,
    }
}

async fn run() {
    let server = NatsServer::start();
    let bus = connect(server.url()).await;
    for round in 1..=3 {
        let mut each = Vec::new();
        for which in ["bare", "bus"] {
            let mut child = Command::new(env::current_exe().unwrap())
                .env(SUBSCRIBER_ENV, which)
                .env(URL_ENV, server.url())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            assert_eq!(lines.next().as_deref(), Some("ready"));
            publish(&bus).await;
            let output = lines.next().unwrap();
            let (count, cpu_s) = output.split_once(' ').unwrap();
            let (count, cpu_s): (u64, f64) = (count.parse().unwrap(), cpu_s.parse().unwrap());
            child.wait().unwrap();
            each.push(1e6 * cpu_s / count as f64);
            println!("{round} {which}: {count} of {MESSAGES}, {:.2} us each", each[each.len() - 1]);
        }
        println!("{round} ratio: {:.2}", each[1] / each[0]);
    }
}

async fn connect(url: String) -> Bus {
    let settings = NatsSettings {
        servers: vec![url],
        credentials: Credentials::None,
        ca_file: None,
        subject_scheme: SubjectScheme::CommsV3,
        connect_timeout: Duration::from_secs(5),
        pattern_queue: None,
        lease_replicas: None,
    };
    Bus::nats(settings).await.unwrap()
}

/// Publishes heartbeats as gateways do, at a constant rate.
async fn publish(bus: &Bus) {
    let assignment = Told { island: "I01abcdefg1".to_owned(), node: "rooms-1".to_owned(), epoch: 1 };
    let position = Some(Position::new(1.0, 2.0, 3.0).into());
    let heartbeat =
        GatewayHeartbeat { position, told: Some(assignment), ..Default::default() }.encode_to_vec();
    let start = Instant::now();
    let mut ticks = time::interval(Duration::from_millis(2));
    let mut published = 0;
    while published < MESSAGES {
        ticks.tick().await;
        let due = ((start.elapsed().as_secs_f64() * PER_SECOND as f64) as u64).min(MESSAGES);
        for number in published..due {
            let mut address = [0; 20];
            address[12..].copy_from_slice(&number.to_be_bytes());
            let headers = Headers::for_session(SessionId::new(1, u128::from(number)));
            bus.publish(&Subject::PeerHeartbeat(Address::new(address)), headers, heartbeat.clone());
        }
        published = due;
    }
    bus.flush().await;
}

/// The baseline: the client library alone.
async fn raw_client(url: String) {
    let client = async_nats::ConnectOptions::new().subscription_capacity(65_536).connect(url).await.unwrap();
    let mut heartbeats = client.subscribe(subject::PEER_HEARTBEATS).await.unwrap();
    client.flush().await.unwrap();
    count(async || heartbeats.next().await.is_some()).await;
}

/// Subscribes to the patterns of a director.
async fn bus_subscriber(url: String) {
    let bus = connect(url).await;
    let patterns = [
        subject::PEER_CONNECTS,
        subject::PEER_HEARTBEATS,
        subject::PEER_DISCONNECTS,
        subject::TRANSPORT_ANNOUNCEMENTS,
    ];
    let mut subscription = bus.subscribe("bench", &patterns, 262_144);
    bus.flush().await;
    count(async || subscription.next().await.is_some()).await;
}

async fn count(mut next: impl AsyncFnMut() -> bool) {
    let before = cpu_seconds();
    println!("ready");
    std::io::stdout().flush().unwrap();
    let mut count = u64::from(next().await);
    while let Ok(true) = time::timeout(IDLE_TIMEOUT, next()).await {
        count += 1;
    }
    println!("{count} {}", cpu_seconds() - before);
}

/// The CPU time of this process.
fn cpu_seconds() -> f64 {
    Process::Own.cpu_seconds().unwrap()
}
