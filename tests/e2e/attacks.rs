//! `make attacks`: the latency in a room while one client attacks the process.
//!
//! `ATOLL_LOAD_BINARY` is another build to measure the same way.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::Value;
use test_support::{
    Realm, wallet,
    wire::{Wire, enter, room_url, sign_in},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::{self, timeout},
};

use tokio_tungstenite::MaybeTlsStream;

/// The members of the measured room, and how many positions each sends per second.
const BOTS: &str = "20";
const HZ: &str = "10";
const SECONDS: &str = "12";
const ROUNDS: usize = 3;

/// The latency of messages between room members in milliseconds, and the CPU of the server in percent
/// of a core.
pub(crate) struct RoomLatency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) cpu: f64,
}

/// Runs bots in a room, and returns their latency.
pub(crate) async fn measure_room_latency(realm: &Realm) -> RoomLatency {
    let url = realm.http.clone();
    let flags = ["bots", "--count", BOTS, "--still", "--hz", HZ, "--seconds", SECONDS, "--json"];
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(flags).args(["--url", &url]).stderr(Stdio::null()).output()
    });
    let summary: Value = serde_json::from_slice(&output.await.unwrap().unwrap().stdout).unwrap();
    let latency = |name: &str| summary["latency_ms"][name].as_f64().unwrap_or(f64::NAN);
    let cpu = summary["server"]["cpu_percent"].as_f64().unwrap_or(f64::NAN);
    RoomLatency { p50: latency("p50"), p99: latency("p99"), max: latency("max"), cpu }
}

async fn connect(realm: &Realm) -> Option<TcpStream> {
    TcpStream::connect(realm.http.trim_start_matches("http://")).await.ok()
}

/// Runs one attack for ever.
async fn attack(name: &'static str, realm: &Realm) {
    match name {
        "200 connections of one byte" => repeat_forever(200, async || send_one_byte(realm).await).await,
        "64 silent handshakes" => repeat_forever(64, async || stay_silent(realm).await).await,
        "32 readers of /islands" => {
            let (client, url) = (reqwest::Client::new(), format!("{}/islands", realm.http));
            repeat_forever(32, async || {
                client.get(&url).send().await.ok()?.bytes().await.ok()?;
                Some(())
            })
            .await;
        }
        "300 unread responses" => repeat_forever(300, async || leave_unread(realm).await).await,
        "empty frames before sign-in" => flood(&mut Wire::open(&realm.socket()).await).await,
        "empty frames in the room" => {
            let (_gateway, mut room, _) = enter(realm, &wallet(), 0.0).await;
            flood(&mut room).await;
        }
        "pings in the gateway" => {
            let mut wire = sign_in(realm, &wallet()).await;
            let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(1_000);
            while raw(&mut wire).write_all(&pings).await.is_ok() {}
        }
        "a member that does not read" => {
            let _unread = enter(realm, &wallet(), 0.0).await;
            std::future::pending().await
        }
        "a wallet that enters again and again" => enter_repeatedly(realm).await,
        "a peer that teleports" => {
            let mut wire = sign_in(realm, &wallet()).await;
            for number in 0_u32.. {
                wire.heartbeat(if number % 2 == 0 { 0.0 } else { 5_000.0 }).await;
                time::sleep(Duration::from_millis(50)).await;
            }
        }
        _ => std::future::pending().await,
    }
}

/// A connection that sends one byte, and stays until the server closes it.
async fn send_one_byte(realm: &Realm) -> Option<()> {
    let mut stream = connect(realm).await?;
    stream.write_all(b"P").await.ok()?;
    let _ = stream.read_u8().await;
    Some(())
}

/// A handshake without a sign-in, until the server closes it.
async fn stay_silent(realm: &Realm) -> Option<()> {
    // From a network of its own: a network has a limit, which the bots would share.
    let mut wire = Wire::open_from(1, &realm.socket(), &[]).await.ok()?;
    while let Some(Ok(_)) = wire.0.next().await {}
    Some(())
}

/// Large requests, of which no response is read.
async fn leave_unread(realm: &Realm) -> Option<()> {
    let mut stream = connect(realm).await?;
    let request = "GET /openapi.json HTTP/1.1\r\nHost: atoll\r\n\r\n".repeat(200);
    stream.write_all(request.as_bytes()).await.ok()?;
    time::sleep(Duration::from_secs(10)).await;
    Some(())
}

/// Enters the room again and again, each time with the same token.
async fn enter_repeatedly(realm: &Realm) {
    let me = wallet();
    let mut wire = sign_in(realm, &me).await;
    wire.heartbeat(0.0).await;
    let url = room_url(&wire.island_changed().await);
    loop {
        let Ok(room) = tokio_tungstenite::connect_async(&url).await else { continue };
        let mut room = Wire::new(room.0);
        room.identify(&me).await;
        let _ = timeout(Duration::from_secs(1), raw(&mut room).readable()).await;
    }
}

/// Runs `count` concurrent loops of an action. A failed action is repeated after 20 ms.
async fn repeat_forever(count: usize, act: impl AsyncFn() -> Option<()>) {
    let lane = async || {
        loop {
            if act().await.is_none() {
                time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    futures_util::future::join_all((0..count).map(|_| lane())).await;
}

/// Starts a message, and continues it with empty frames for ever.
async fn flood(wire: &mut Wire) {
    let stream = raw(wire);
    let _ = stream.write_all(&[0x02, 0x80, 0, 0, 0, 0]).await;
    let empty = [0x00, 0x80, 0, 0, 0, 0].repeat(10_000);
    while stream.write_all(&empty).await.is_ok() {}
    std::future::pending().await
}

/// The TCP stream below a WebSocket.
fn raw(wire: &mut Wire) -> &mut TcpStream {
    match wire.0.get_mut() {
        MaybeTlsStream::Plain(stream) => stream,
        _ => unreachable!("tests use no TLS"),
    }
}

/// Attacks until it is stopped. An attack that the server ends is started again.
fn attack_until(stopped: &Notify, name: &'static str, realm: &Realm) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    loop {
        let once = || {
            runtime.block_on(async {
                tokio::select! {
                    () = attack(name, realm) => false,
                    () = stopped.notified() => true,
                }
            })
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(once)) {
            Ok(true) => return,
            Ok(false) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

const ATTACKS: [&str; 11] = [
    "none",
    "200 connections of one byte",
    "64 silent handshakes",
    "32 readers of /islands",
    "300 unread responses",
    "empty frames before sign-in",
    "empty frames in the room",
    "pings in the gateway",
    "a member that does not read",
    "a wallet that enters again and again",
    "a peer that teleports",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark of minutes: make attacks"]
async fn room_latency_under_attack() {
    println!("{:<38} {:>8} {:>8} {:>8} {:>7}", "room latency, ms", "p50", "p99", "max", "CPU %");
    for _ in 0..ROUNDS {
        for name in ATTACKS {
            let realm = Arc::new(Realm::start(&[]));
            let (stop, target) = (Arc::new(Notify::new()), realm.clone());
            let stopped = stop.clone();
            let attacker = std::thread::spawn(move || attack_until(&stopped, name, &target));
            let RoomLatency { p50, p99, max, cpu } = measure_room_latency(&realm).await;
            stop.notify_one();
            attacker.join().unwrap();
            println!("{name:<38} {p50:>8.2} {p99:>8.2} {max:>8.2} {cpu:>7.1}");
        }
    }
}
