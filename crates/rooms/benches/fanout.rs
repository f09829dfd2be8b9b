//! CPU cost of one delivery, compared with a plain WebSocket server: `cargo bench -p rooms`.
//!
//! Each server runs in a process of its own, and its CPU time is read before and after. 100 clients in one
//! room send 64 bytes 20 times a second, for ten seconds, over loopback. The baseline is an axum WebSocket
//! handler with a queue for each member and one `send` for each message.

mod baseline;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use admission::{ConnectionLimits, Network, Verifier};
use axum::{Extension, Router, serve::ListenerExt};
use bus::Bus;
use futures_util::{SinkExt, StreamExt};
use process_usage::Process;
use protocol::{
    Address, ConnectionString, Message as _, Ulid,
    rfc5::{WsIdentification, WsPacket, WsPeerUpdate, ws_packet},
};
use tokio::net::TcpListener;
use tokio_tungstenite::{connect_async_with_config, tungstenite::Message};
use transports::ws_room;

const CLIENTS: u8 = 100;
const UPDATES_PER_SECOND: u32 = 20;
const BODY_BYTES: usize = 64;
const MEASURED: Duration = Duration::from_secs(10);
const SECRET: &[u8] = b"a secret for a benchmark";

#[tokio::main]
async fn main() {
    let server = std::env::args().skip_while(|argument| argument != "--server").nth(1);
    match server.as_deref() {
        Some("baseline") => serve(baseline::router()).await,
        Some(tick) => serve(atoll_router(tick.parse().expect("milliseconds"))).await,
        None => {
            let flush_5 = measure("atoll, a tick of 5 ms", "5").await;
            let flush_10 = measure("atoll, a tick of 10 ms", "10").await;
            let baseline = measure("axum, one send a message", "baseline").await;
            println!(
                "ratio to the baseline: {:.1} (5 ms), {:.1} (10 ms)",
                baseline / flush_5,
                baseline / flush_10
            );
        }
    }
}

/// The room service with a flush interval of `tick` milliseconds.
fn atoll_router(tick: u64) -> Router {
    let handshakes = ConnectionLimits { total: 1_000, per_network: None, rate: None };
    let settings = rooms::Settings {
        node: "bench".parse().expect("a name"),
        public_url: String::new(),
        path: String::new(),
        max_island_size: 100,
        max_room_size: 150,
        max_users: 1_000,
        open_rooms: Vec::new(),
        entries_per_minute: 30,
        tell_connected: true,
        max_room_egress_bytes_per_second: 64 * 1024 * 1024,
        max_node_egress_bytes_per_second: 0,
        flush_interval: Duration::from_millis(tick),
        handshake_timeout: Duration::from_secs(10),
        handshakes,
        ping_interval: Duration::from_secs(10),
        grace: Duration::from_secs(10),
        token_ttl: Duration::from_secs(300),
        write_timeout: Duration::from_secs(10),
        queue_bytes: 1024 * 1024,
        messages_per_second: 100,
        bytes_per_second: 256 * 1024,
        fixed_room: None,
    };
    let tokens = ws_room::Verifier::new([SECRET]);
    let rooms = rooms::Rooms::new([settings], tokens, Verifier::new(identity::Limits::default()));
    let (bus, router) = (Bus::in_process(), rooms.router());
    let subscriptions = rooms.subscribe(&bus);
    tokio::spawn(async move { rooms.run(bus, subscriptions).await });
    router
}

/// Serves until the process is killed. The first line of the output is the address.
async fn serve(router: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("no delay"));
    let router = router.layer(Extension(Network::from_ip([127, 0, 0, 1].into(), 64)));
    axum::serve(listener, router).await.expect("a server");
}

/// Measures a server; returns microseconds of CPU time for one delivery.
async fn measure(name: &str, server: &str) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).args(["--server", server]).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("a server");
    let mut address = String::new();
    let stdout = child.stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut address).expect("its address");
    let measurements = Arc::new(Measurements {
        began: Instant::now(),
        received: AtomicU64::default(),
        latencies: latencies(),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, address.clone(), measurements.clone())))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    measurements.latencies.iter().for_each(|count| count.store(0, Relaxed));
    let (cpu, received, began) = (cpu_seconds(&child), measurements.received.load(Relaxed), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let cpu = cpu_seconds(&child) - cpu;
    let received = (measurements.received.load(Relaxed) - received) as f64;
    let seconds = began.elapsed().as_secs_f64();
    clients.iter().for_each(|client| client.abort());
    child.kill().and_then(|()| child.wait()).expect("an end");
    let each = 1e6 * cpu / received;
    println!(
        "{name:<26} {:>8.0} deliveries/s, {:>5.1} % of a core, {each:.3} µs each, latency p50 {} ms p99 {} ms",
        received / seconds,
        100.0 * cpu / seconds,
        measurements.percentile(0.5),
        measurements.percentile(0.99),
    );
    each
}

struct Measurements {
    began: Instant,
    received: AtomicU64,
    /// The number of messages by latency in milliseconds.
    latencies: Vec<AtomicU64>,
}

fn latencies() -> Vec<AtomicU64> {
    std::iter::repeat_with(AtomicU64::default).take(5_000).collect()
}

impl Measurements {
    fn percentile(&self, share: f64) -> usize {
        let counts: Vec<u64> = self.latencies.iter().map(|count| count.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share) as u64;
        let mut seen = 0;
        counts
            .iter()
            .take_while(|&&count| {
                seen += count;
                seen <= wanted
            })
            .count()
            + 1
    }
}

async fn client(number: u8, address: String, measurements: Arc<Measurements>) {
    let minter = ws_room::Minter::new(SECRET, Duration::from_secs(300));
    let wallet = Address::new([number; 20]);
    let (url, room) = (format!("ws://{}", address.trim()), "I1".parse().expect("an id"));
    let connection = minter.connection(&url, &room, wallet, Ulid(1), SystemTime::now()).expect("a token");
    let ConnectionString::WsRoom { url, access_token: Some(token) } = connection else { return };
    let (mut socket, _) =
        connect_async_with_config(format!("{url}?access_token={token}"), None, true).await.expect("a socket");
    let identification = WsIdentification { address: wallet.to_string() };
    let packet = |message| Message::binary(WsPacket { message: Some(message) }.encode_to_vec());
    let hello = packet(ws_packet::Message::PeerIdentification(identification));
    socket.send(hello).await.expect("a room");
    let mut updates = tokio::time::interval(Duration::from_secs(1) / UPDATES_PER_SECOND);
    loop {
        tokio::select! {
            _ = updates.tick() => {
                let mut body = vec![0; BODY_BYTES];
                body[..8].copy_from_slice(&(measurements.began.elapsed().as_micros() as u64).to_be_bytes());
                let update = WsPeerUpdate { from_alias: 0, body: body.into(), unreliable: true };
                let update = packet(ws_packet::Message::PeerUpdateMessage(update));
                socket.send(update).await.expect("a room");
            }
            message = socket.next() => {
                let Some(Ok(Message::Binary(bytes))) = message else { continue };
                let Ok(WsPacket { message: Some(ws_packet::Message::PeerUpdateMessage(update)) }) =
                    WsPacket::decode(bytes)
                else {
                    continue;
                };
                let sent = update.body.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let latency = (measurements.began.elapsed().as_micros() as u64).saturating_sub(sent) / 1_000;
                let slot = (latency as usize).min(measurements.latencies.len() - 1);
                measurements.latencies[slot].fetch_add(1, Relaxed);
                measurements.received.fetch_add(1, Relaxed);
            }
        }
    }
}

/// User and system time of a process.
fn cpu_seconds(child: &Child) -> f64 {
    Process::Id(child.id()).cpu_seconds().expect("Linux")
}
