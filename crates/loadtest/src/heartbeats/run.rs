//! A run: connects the simulated gateways, publishes, and compares with the director's metrics.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use process_usage::Process;
use tokio::time;

use super::{
    gateway::{SimulatedGateway, spawn_bus_tasks},
    peers::{AssignmentStats, SimulatedPeers},
    reading::Reading,
    sender::{MessageKind, send_all},
    summary::Summary,
};
use crate::{flags::Flags, realm_metrics::MetricsClient};

/// The number of simulated gateways, each with a bus connection of its own.
const GATEWAYS: usize = 4;
/// Heartbeats that each peer sends before the measurement, and the time after them in which islands
/// become stable.
const WARM_UP_BEATS: u64 = 2;
const SETTLING: Duration = Duration::from_secs(3);
/// How long messages in flight may take to arrive.
const DELIVERY_GRACE: Duration = Duration::from_secs(1);
/// A peer with a longer interval is close to `islands.silence_s`, after which the director removes it.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

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
        let peers = SimulatedPeers::new(index, GATEWAYS, flags.count, step);
        gateways.push(Arc::new(SimulatedGateway::connect(bus, peers).await?));
    }
    let _tasks = spawn_bus_tasks(&gateways).await?;
    let all = |kind: MessageKind, beats: u64| send_all(&gateways, kind, rate, beats * flags.count as u64);
    all(MessageKind::Connect, 1).await?;
    all(MessageKind::Heartbeat, WARM_UP_BEATS).await?;
    // Continues without a pause, in which the director might take silent peers for gone.
    all(MessageKind::Heartbeat, (SETTLING.as_secs_f64() / step.as_secs_f64()).ceil() as u64).await?;
    time::sleep(DELIVERY_GRACE).await;
    let _ = take_assignment_stats(&gateways);
    let bus_process = flags.bus_pid.map(Process::Id);
    let before = Reading::take(&director, bus_process).await.context("the director does not respond")?;
    let beats = (seconds as f64 / step.as_secs_f64()).round().max(1.0) as u64;
    let sent = all(MessageKind::Heartbeat, beats).await?;
    let during = Reading::take(&director, bus_process).await.context("the director does not respond")?;
    time::sleep(DELIVERY_GRACE).await;
    let after = Reading::take(&director, bus_process).await.context("the director does not respond")?;
    let assignments = take_assignment_stats(&gateways);
    let summary = Summary::new(flags.count, rate, &sent, &assignments, [&before, &during, &after]);
    match flags.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => summary.print(),
    }
    all(MessageKind::Disconnect, 1).await?;
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The assignments that peers received since the last call.
fn take_assignment_stats(gateways: &[Arc<SimulatedGateway>]) -> AssignmentStats {
    let mut all = AssignmentStats::default();
    gateways.iter().for_each(|gateway| all.add(&gateway.peers.lock().take_stats()));
    all
}
