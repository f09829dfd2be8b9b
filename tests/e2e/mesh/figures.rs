//! Figures of meshes beside rooms, and of joins, moves and deaths of members: `make mesh-figures`.

use std::{
    collections::HashMap,
    process::{Child, Command, Stdio},
    time::Instant,
};

use client::{Dialect, Event, Explorer, Handle, Position, Settings};
use serde_json::Value;
use test_support::measurement::print;
use tokio::{sync::mpsc, time::sleep};

use super::*;

/// The clock ticks of a second in `/proc`.
const TICKS: f64 = 100.0;

/// Seconds of processor time of a process; with `waited`, of its children that have ended.
fn cpu_seconds(pid: &str, waited: bool) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let first = if waited { 13 } else { 11 };
    let ticks: u64 = fields[first..first + 2].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / TICKS
}

/// Bytes and packets that the loopback interface of this namespace has sent.
fn loopback() -> (f64, f64) {
    let devices = fs::read_to_string("/proc/net/dev").unwrap();
    let line = devices.lines().find(|line| line.trim_start().starts_with("lo:")).unwrap();
    let fields: Vec<f64> = line.split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    (fields[8], fields[9])
}

/// Runs bots, and prints their summary and the load.
async fn run_bots(realm: &Realm, flags: &str) {
    let line = format!("bots --json --url {} --admin {} {flags}", realm.http, realm.admin);
    let (bots_cpu, server_cpu) = (cpu_seconds("self", true), cpu_seconds(&realm.pid().to_string(), false));
    let ((bytes, packets), began) = (loopback(), Instant::now());
    let run = move || atoll(&line.split(' ').collect::<Vec<_>>());
    let (_, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let summary: Value = serde_json::from_str(stdout.trim()).unwrap_or_else(|_| panic!("{stdout}\n{stderr}"));
    let cpu = |now: f64, before: f64| 100.0 * (now - before) / seconds;
    let count = summary["bots"].as_f64().unwrap();
    let now = loopback();
    println!("\natoll bots {flags}");
    println!("  deliveries {}", summary["deliveries"]);
    println!("  moves {}, over moves {}", summary["moves"], summary["over_moves"]);
    println!("  unheard {}, links {}", summary["unheard"], summary["mesh_links"]);
    println!("  entries {}", summary["room_entries"]);
    println!("  latency {}", summary["latency_ms"]);
    println!(
        "  CPU of bots {:.1} %, of the server {:.2} % of one core; {:.0} bytes and {:.1} packets a second and peer",
        cpu(cpu_seconds("self", true), bots_cpu),
        cpu(cpu_seconds(&realm.pid().to_string(), false), server_cpu),
        (now.0 - bytes) / seconds / count,
        (now.1 - packets) / seconds / count,
    );
}

/// Runs a mesh, and then a room of as many bots in the same realm.
async fn beside_a_room(count: usize, hz: u32) {
    let (realm, _folder) = mesh_realm(&[("P2P__MAX_ISLAND_SIZE", "100")]);
    for transport in ["p2p", "ws-room"] {
        let flags = format!("--transports {transport} --count {count} --hz {hz} --still --seconds 60");
        let depth = async {
            sleep(Duration::from_secs(50)).await;
            realm.count("atoll_director_mesh_depth").await
        };
        let (_, depth) = tokio::join!(run_bots(&realm, &flags), depth);
        println!("  depth {depth}, plans {}", realm.count("atoll_director_mesh_plans_total").await);
        for kind in ["offer", "answer", "candidate", "fallback"] {
            let name = format!("atoll_gateway_mesh_signals_total{{kind=\"{kind}\"}}");
            println!("  signals so far: {kind} {}", realm.count(&name).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of two minutes: make mesh-figures"]
async fn mesh_of_12_beside_a_room() {
    let limit = Duration::from_secs(240);
    if network_namespace::enter_within(limit, "mesh::figures::mesh_of_12_beside_a_room") {
        beside_a_room(12, 10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of two minutes: make mesh-figures"]
async fn mesh_of_50_beside_a_room() {
    let limit = Duration::from_secs(240);
    if network_namespace::enter_within(limit, "mesh::figures::mesh_of_50_beside_a_room") {
        beside_a_room(50, 2).await;
    }
}

/// The rules change every three seconds, and each change moves the island.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of three minutes: make mesh-figures"]
async fn moves_between_mesh_and_room() {
    let limit = Duration::from_secs(240);
    if !network_namespace::enter_within(limit, "mesh::figures::moves_between_mesh_and_room") {
        return;
    }
    let (realm, folder) = mesh_realm(&[("ISLANDS__MOVE_INTERVAL_S", "0")]);
    let rules = folder.path().join("rules.toml");
    let moves = tokio::spawn(async move {
        sleep(Duration::from_secs(6)).await;
        for step in 0..50 {
            let transport = ["ws-room", "p2p"][step % 2];
            fs::write(&rules, format!("default = {{ transports = [\"{transport}\"] }}\n")).unwrap();
            sleep(Duration::from_secs(3)).await;
        }
    });
    run_bots(&realm, "--transports p2p,ws-room --count 8 --still --seconds 160").await;
    moves.await.unwrap();
}

/// A member that publishes ten times a second.
struct Publisher {
    address: Address,
    handle: Handle,
    /// The senders of received messages.
    received: mpsc::UnboundedReceiver<(Address, Instant)>,
    /// From the assignment to the first message.
    first_message: mpsc::UnboundedReceiver<Duration>,
}

impl Publisher {
    async fn join(realm: &Realm) -> Self {
        let gateway = client::discover(&realm.http, Some(Dialect::Archipelago)).await.unwrap();
        let mut settings = Settings::new(gateway);
        settings.transports = vec!["p2p".to_owned()];
        settings.udp_addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let identity = client::guest().unwrap();
        let address = identity.address();
        let mut explorer = Explorer::start(settings, identity);
        let handle = explorer.handle();
        let (sender, received) = mpsc::unbounded_channel();
        let (first_sender, first_message) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut assigned = None;
            while let Some(event) = explorer.next().await {
                let now = Instant::now();
                match event {
                    Event::IslandChanged { .. } => assigned = Some(now),
                    Event::Message { sender: Some(from), .. } => {
                        if let Some(assigned) = assigned.take() {
                            let _ = first_sender.send(now - assigned);
                        }
                        if sender.send((from, now)).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        let publishing = handle.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                if number % 10 == 0 {
                    publishing.heartbeat(Position::new(0.0, 0.0, 0.0), None).await;
                }
                publishing.send(number.to_be_bytes().to_vec().into(), true).await;
                sleep(Duration::from_millis(100)).await;
            }
        });
        Self { address, handle, received, first_message }
    }
}

/// One bot in a process of its own, which can be killed.
fn bot(realm: &Realm) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args([
        "bots",
        "--count",
        "1",
        "--still",
        "--transports",
        "p2p",
        "--seconds",
        "60",
        "--url",
        &realm.http,
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Members join one after the other. Then processes of others are killed, of which some relay.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of one minute: make mesh-figures"]
async fn joins_and_deaths() {
    if !network_namespace::enter("mesh::figures::joins_and_deaths") {
        return;
    }
    let (realm, _folder) = mesh_realm(&[("P2P__MAX_ISLAND_SIZE", "100")]);
    let mut members = Vec::new();
    let mut first = Vec::new();
    for _ in 0..20 {
        let mut member = Publisher::join(&realm).await;
        if !members.is_empty() {
            first.push(member.first_message.recv().await.unwrap());
        }
        members.push(member);
        sleep(Duration::from_millis(500)).await;
    }
    print("from the assignment to the first message", first);
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let mut bots: Vec<Child> = (0..4).map(|_| bot(&realm)).collect();
        sleep(Duration::from_secs(8)).await;
        let before = Instant::now();
        for bot in &mut bots {
            bot.kill().unwrap();
            bot.wait().unwrap();
        }
        sleep(Duration::from_secs(8)).await;
        gaps.extend(longest_gaps(&mut members, before));
    }
    print("the longest gap between messages of a pair of members after four others were killed", gaps);
    for member in &members {
        member.handle.leave().await;
    }
}

/// For each pair of members, the longest time between two messages since `after`.
fn longest_gaps(members: &mut [Publisher], after: Instant) -> Vec<Duration> {
    let senders: Vec<Address> = members.iter().map(|member| member.address).collect();
    let mut gaps = Vec::new();
    for member in members {
        let mut last: HashMap<Address, (Instant, Duration)> = HashMap::new();
        while let Ok((from, at)) = member.received.try_recv() {
            if at >= after && senders.contains(&from) {
                let (last, gap) = last.entry(from).or_insert((at, Duration::ZERO));
                *gap = (*gap).max(at - *last);
                *last = at;
            }
        }
        gaps.extend(last.into_values().map(|(_, gap)| gap));
    }
    gaps
}
