//! `--heartbeats`: how many heartbeats one director processes over NATS with its flushes on time.
//!
//! Simulates gateways on the bus, and a room node that no client enters. The load is open-loop:
//! heartbeats are due at fixed times, and the latency of an assignment is measured from the due time.
//! The director's counters are compared with the number of heartbeats sent.

mod peers;
mod summary;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bus::{Bus, Credentials, Headers, NatsSettings};
use hdrhistogram::Histogram;
use protocol::{
    Message as _, NodeName, Subject, atoll_bus::TransportAnnouncement, subject, v3::IslandChangedMessage,
};
use tokio::{
    task::JoinSet,
    time::{self, Instant, MissedTickBehavior},
};

use crate::process;

use super::{Flags, bot_pool::latency_histogram, server::MetricsClient};
use peers::{SimulatedPeers, parse_address};
use summary::{Reading, Summary};

/// The number of simulated gateways, each with a bus connection of its own.
const GATEWAYS: usize = 4;
/// How often each gateway publishes the heartbeats that are due.
const SEND_INTERVAL: Duration = Duration::from_millis(2);
/// Heartbeats that each peer sends before the measurement, and the time after them in which islands
/// become stable.
const WARM_UP_BEATS: u64 = 2;
const SETTLING: Duration = Duration::from_secs(3);
/// How long messages in flight may take to arrive.
const DELIVERY_GRACE: Duration = Duration::from_secs(1);
/// A peer with a longer interval is close to `islands.silence_s`, after which the director removes it.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// The capacity of the queue of assignments, in messages.
const ASSIGNMENT_QUEUE: usize = 1 << 20;
const NODE: &str = "heartbeats-rooms";

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1.0..=1e6).contains(&rate) { Ok(rate) } else { Err("must be between 1 and 1000000".to_owned()) }
}

pub(crate) async fn run(flags: &Flags, bus: &str, rate: f64, seconds: u64) -> Result<ExitCode> {
    let step = Duration::from_secs_f64(flags.count as f64 / rate);
    ensure!(
        step <= MAX_HEARTBEAT_INTERVAL,
        "with --count {} each peer sends a heartbeat every {step:?}, which is too rare",
        flags.count
    );
    let director = MetricsClient::new(&flags.url);
    director.metrics().await.context("the director's /metrics do not respond")?;
    let mut gateways = Vec::new();
    for index in 0..GATEWAYS {
        gateways.push(Arc::new(SimulatedGateway {
            bus: Bus::nats(nats_settings(bus)).await?,
            peers: Mutex::new(SimulatedPeers::new(index, GATEWAYS, flags.count, step)),
        }));
    }
    let _tasks = spawn_bus_tasks(&gateways).await?;
    let all = |kind: MessageKind, beats: u64| send_all(&gateways, kind, rate, beats * flags.count as u64);
    all(MessageKind::Connect, 1).await?;
    all(MessageKind::Heartbeat, WARM_UP_BEATS).await?;
    // Continues without a pause, in which the director might take silent peers for gone.
    all(MessageKind::Heartbeat, (SETTLING.as_secs_f64() / step.as_secs_f64()).ceil() as u64).await?;
    time::sleep(DELIVERY_GRACE).await;
    let _ = take_assignment_stats(&gateways);
    let before = Reading::take(&director, flags.bus_pid).await.context("the director does not respond")?;
    let beats = (seconds as f64 / step.as_secs_f64()).round().max(1.0) as u64;
    let sent = all(MessageKind::Heartbeat, beats).await?;
    let during = Reading::take(&director, flags.bus_pid).await.context("the director does not respond")?;
    time::sleep(DELIVERY_GRACE).await;
    let after = Reading::take(&director, flags.bus_pid).await.context("the director does not respond")?;
    let assignments = take_assignment_stats(&gateways);
    let summary = Summary::new(flags.count, rate, &sent, &assignments, [&before, &during, &after]);
    match flags.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => summary.print(),
    }
    all(MessageKind::Disconnect, 1).await?;
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A gateway without client sockets: it only publishes on the bus.
struct SimulatedGateway {
    bus: Bus,
    peers: Mutex<SimulatedPeers>,
}

impl SimulatedGateway {
    fn peers(&self) -> MutexGuard<'_, SimulatedPeers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nats_settings(url: &str) -> NatsSettings {
    NatsSettings {
        servers: vec![url.to_owned()],
        credentials: Credentials::None,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        pattern_queue: Some(ASSIGNMENT_QUEUE),
        lease_replicas: None,
        subject_scheme: subject::SubjectScheme::default(),
    }
}

/// Spawns the tasks that announce the node and receive assignments.
async fn spawn_bus_tasks(gateways: &[Arc<SimulatedGateway>]) -> Result<JoinSet<()>> {
    let node: NodeName = NODE.parse()?;
    let mut tasks = JoinSet::new();
    let announcer = gateways[0].clone();
    tasks.spawn(async move {
        let announcement = TransportAnnouncement {
            node: node.to_string(),
            kind: "ws-room".to_owned(),
            public_url: "ws://127.0.0.1:9".to_owned(),
            max_island_size: 100,
            available_seats: -1,
            ..Default::default()
        };
        let mut ticks = time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let subject = Subject::TransportAnnounce(node.clone());
            announcer.bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
        }
    });
    // One task receives the assignments of all gateways, on a connection with no other subscription.
    let mut assignments =
        gateways[0].bus.subscribe("heartbeats", &[subject::PEER_ISLAND_CHANGES], ASSIGNMENT_QUEUE);
    gateways[0].bus.flush().await;
    let gateways = gateways.to_vec();
    tasks.spawn(async move {
        while let Some(envelope) = assignments.next().await {
            let Some(Subject::PeerIslandChanged(peer)) = envelope.subject() else { continue };
            let Ok(change) = IslandChangedMessage::decode(&envelope.payload[..]) else { continue };
            let Some((gateway, index)) = parse_address(peer) else { continue };
            if let Some(gateway) = gateways.get(gateway) {
                gateway.peers().record_assignment(index, peer, &change, envelope.headers.node.as_ref());
            }
        }
    });
    Ok(tasks)
}

/// The kind of message to publish about peers.
#[derive(Debug, Clone, Copy)]
enum MessageKind {
    Connect,
    Heartbeat,
    Disconnect,
}

/// The result of one round of publishing.
struct SendReport {
    messages: u64,
    /// Until the bus had flushed the last message.
    elapsed: Duration,
    /// How late each message was published after its due time, in microseconds.
    lateness_us: Histogram<u64>,
    /// The CPU time that this process used meanwhile.
    cpu_seconds: Option<f64>,
}

/// Publishes messages at this rate, spread over all gateways and their peers in turn, and waits until
/// the bus has flushed them.
async fn send_all(
    gateways: &[Arc<SimulatedGateway>],
    kind: MessageKind,
    rate: f64,
    messages: u64,
) -> Result<SendReport> {
    let (began, cpu_before) = (Instant::now(), process::cpu_seconds());
    let share = gateways.len() as f64;
    let mut senders = JoinSet::new();
    for gateway in gateways {
        let gateway = gateway.clone();
        senders.spawn(async move {
            let lateness =
                send_paced(&gateway, kind, rate / share, (messages as f64 / share).round() as u64).await;
            gateway.bus.flush().await;
            lateness
        });
    }
    let mut lateness = latency_histogram();
    while let Some(sent) = senders.join_next().await {
        // Histograms of equal bounds always add.
        lateness.add(sent?).context("histograms differ")?;
    }
    let cpu_seconds = cpu_before.zip(process::cpu_seconds()).map(|(before, after)| after - before);
    Ok(SendReport { messages: lateness.len(), elapsed: began.elapsed(), lateness_us: lateness, cpu_seconds })
}

/// Publishes the messages of one gateway at their due times. Returns their lateness in microseconds.
async fn send_paced(
    gateway: &SimulatedGateway,
    kind: MessageKind,
    rate: f64,
    messages: u64,
) -> Histogram<u64> {
    let began = Instant::now();
    let mut lateness = latency_histogram();
    let mut ticks = time::interval(SEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0;
    while sent < messages {
        ticks.tick().await;
        let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(messages);
        let mut peers = gateway.peers();
        for number in sent..due {
            let at = began + Duration::from_secs_f64(number as f64 / rate);
            let (address, session, payload) = match kind {
                MessageKind::Heartbeat => peers.heartbeat(at, gateway.bus.latest_epoch()),
                MessageKind::Connect | MessageKind::Disconnect => peers.next_peer(),
            };
            let subject = match kind {
                MessageKind::Connect => Subject::PeerConnect(address),
                MessageKind::Heartbeat => Subject::PeerHeartbeat(address),
                MessageKind::Disconnect => Subject::PeerDisconnect(address),
            };
            gateway.bus.publish(&subject, Headers::for_session(session), payload);
            lateness.saturating_record(at.elapsed().as_micros() as u64);
        }
        sent = due;
    }
    lateness
}

/// The assignments that peers received since the last call.
fn take_assignment_stats(gateways: &[Arc<SimulatedGateway>]) -> peers::AssignmentStats {
    let mut all = peers::AssignmentStats::default();
    gateways.iter().for_each(|gateway| all.add(&gateway.peers().take_stats()));
    all
}
