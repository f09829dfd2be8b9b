//! `--heartbeats`: how many heartbeats one director takes over NATS, with its flushes on time.
//!
//! Fakes gateways on the bus, and a node for the rooms that nobody enters. Open-loop: heartbeats are due
//! at their times, and what is told is timed from then. What the director says that it heard is held
//! against what was sent.

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

/// Connections over which the heartbeats come.
const GATEWAYS: usize = 4;
/// How often each says what is due.
const SEND_INTERVAL: Duration = Duration::from_millis(2);
/// Heartbeats each that people send before anything is measured, and how much time islands then have.
const WARM_UP_BEATS: u64 = 2;
const SETTLING: Duration = Duration::from_secs(3);
/// What is under way is heard after so much time.
const DELIVERY_GRACE: Duration = Duration::from_secs(1);
/// Who is silent for so long is close to being taken for gone.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// What is told to gateways and may wait here.
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
        "of --count {} people each is silent for {step:?}: too long",
        flags.count
    );
    let director = MetricsClient::new(&flags.url);
    director.metrics().await.context("the director's /metrics do not answer")?;
    let mut gateways = Vec::new();
    for index in 0..GATEWAYS {
        gateways.push(Arc::new(SimulatedGateway {
            bus: Bus::nats(nats_settings(bus)).await?,
            peers: Mutex::new(SimulatedPeers::new(index, GATEWAYS, flags.count, step)),
        }));
    }
    let _tasks = spawn_bus_tasks(&gateways).await?;
    let all = |what: MessageKind, beats: u64| send_all(&gateways, what, rate, beats * flags.count as u64);
    all(MessageKind::Connect, 1).await?;
    all(MessageKind::Heartbeat, WARM_UP_BEATS).await?;
    // Without a pause in which somebody might be taken for gone.
    all(MessageKind::Heartbeat, (SETTLING.as_secs_f64() / step.as_secs_f64()).ceil() as u64).await?;
    time::sleep(DELIVERY_GRACE).await;
    let _ = take_assignment_stats(&gateways);
    let before = Reading::take(&director, flags.bus_pid).await.context("the director is gone")?;
    let beats = (seconds as f64 / step.as_secs_f64()).round().max(1.0) as u64;
    let said = all(MessageKind::Heartbeat, beats).await?;
    let during = Reading::take(&director, flags.bus_pid).await.context("the director is gone")?;
    time::sleep(DELIVERY_GRACE).await;
    let after = Reading::take(&director, flags.bus_pid).await.context("the director is gone")?;
    let told = take_assignment_stats(&gateways);
    let summary = Summary::new(flags.count, rate, &said, &told, [&before, &during, &after]);
    match flags.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => summary.print(),
    }
    all(MessageKind::Disconnect, 1).await?;
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A gateway without sockets.
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

/// Announces the node, and hears what people are told.
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
    // One hears for all, on a connection that has nothing else to do.
    let mut told = gateways[0].bus.subscribe("heartbeats", &[subject::PEER_ISLAND_CHANGES], ASSIGNMENT_QUEUE);
    gateways[0].bus.flush().await;
    let gateways = gateways.to_vec();
    tasks.spawn(async move {
        while let Some(envelope) = told.next().await {
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

/// What is said of people.
#[derive(Debug, Clone, Copy)]
enum MessageKind {
    Connect,
    Heartbeat,
    Disconnect,
}

/// What was said.
struct SendReport {
    messages: u64,
    /// Until the last one was on its way.
    elapsed: Duration,
    /// How late each was said, in microseconds.
    lateness_us: Histogram<u64>,
    /// What that took of this process.
    cpu_seconds: Option<f64>,
}

/// Says something at this rate, of one after the other on all gateways, and waits until it is on its way.
async fn send_all(
    gateways: &[Arc<SimulatedGateway>],
    what: MessageKind,
    rate: f64,
    messages: u64,
) -> Result<SendReport> {
    let (began, cpu_before) = (Instant::now(), process::cpu_seconds());
    let share = gateways.len() as f64;
    let mut saying = JoinSet::new();
    for gateway in gateways {
        let gateway = gateway.clone();
        saying.spawn(async move {
            let late =
                send_paced(&gateway, what, rate / share, (messages as f64 / share).round() as u64).await;
            gateway.bus.flush().await;
            late
        });
    }
    let mut late = latency_histogram();
    while let Some(said) = saying.join_next().await {
        // All of them have the same bounds.
        late.add(said?).context("histograms differ")?;
    }
    let cpu_seconds = cpu_before.zip(process::cpu_seconds()).map(|(before, after)| after - before);
    Ok(SendReport { messages: late.len(), elapsed: began.elapsed(), lateness_us: late, cpu_seconds })
}

/// Says what one gateway has to say, and how late it was with each, in microseconds.
async fn send_paced(
    gateway: &SimulatedGateway,
    what: MessageKind,
    rate: f64,
    messages: u64,
) -> Histogram<u64> {
    let began = Instant::now();
    let mut late = latency_histogram();
    let mut ticks = time::interval(SEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut said = 0;
    while said < messages {
        ticks.tick().await;
        let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(messages);
        let mut people = gateway.peers();
        for number in said..due {
            let at = began + Duration::from_secs_f64(number as f64 / rate);
            let (address, session, payload) = match what {
                MessageKind::Heartbeat => people.heartbeat(at, gateway.bus.latest_epoch()),
                MessageKind::Connect | MessageKind::Disconnect => people.next_peer(),
            };
            let subject = match what {
                MessageKind::Connect => Subject::PeerConnect(address),
                MessageKind::Heartbeat => Subject::PeerHeartbeat(address),
                MessageKind::Disconnect => Subject::PeerDisconnect(address),
            };
            gateway.bus.publish(&subject, Headers::for_session(session), payload);
            late.saturating_record(at.elapsed().as_micros() as u64);
        }
        said = due;
    }
    late
}

/// What people were told since this was last asked.
fn take_assignment_stats(gateways: &[Arc<SimulatedGateway>]) -> peers::AssignmentStats {
    let mut all = peers::AssignmentStats::default();
    gateways.iter().for_each(|gateway| all.add(&gateway.peers().take_stats()));
    all
}
