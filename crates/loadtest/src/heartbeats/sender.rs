//! Publishes messages about peers at their due times.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bus::Headers;
use hdrhistogram::Histogram;
use process_usage::Process;
use protocol::Subject;
use tokio::{
    task::JoinSet,
    time::{self, Instant, MissedTickBehavior},
};

use super::gateway::SimulatedGateway;
use crate::percentiles::latency_histogram;

/// How often each gateway publishes the heartbeats that are due.
const SEND_INTERVAL: Duration = Duration::from_millis(2);

/// The kind of message to publish about peers.
#[derive(Debug, Clone, Copy)]
pub(super) enum MessageKind {
    Connect,
    Heartbeat,
    Disconnect,
}

/// The result of one round of publishing.
pub(super) struct SendReport {
    pub(super) messages: u64,
    /// Until the bus had flushed the last message.
    pub(super) elapsed: Duration,
    /// How late each message was published after its due time, in microseconds.
    pub(super) lateness_us: Histogram<u64>,
    /// The CPU time that this process used meanwhile.
    pub(super) cpu_seconds: Option<f64>,
}

/// Publishes messages at this rate, spread over all gateways and their peers in turn, and waits until
/// the bus has flushed them.
pub(super) async fn send_all(
    gateways: &[Arc<SimulatedGateway>],
    kind: MessageKind,
    rate: f64,
    messages: u64,
) -> Result<SendReport> {
    let (began, cpu_before) = (Instant::now(), Process::Own.cpu_seconds());
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
    let cpu_seconds = cpu_before.zip(Process::Own.cpu_seconds()).map(|(before, after)| after - before);
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
        let mut peers = gateway.peers.lock();
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
