//! Sets up logs and metrics.

#[cfg(test)]
mod reference;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal,
    panic, thread,
    time::Duration,
};

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{LogFormat, Settings},
    metrics, output,
};

/// How long a thread that panics waits until the message is written: the process may end with the
/// panic.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Sets up the log. It is written to the standard error, so that the standard output has only results.
/// Logging never waits for that stream: see [`output`].
pub(crate) fn log(settings: &Settings) -> anyhow::Result<()> {
    let level = &settings.log.level;
    // The NATS client logs every connection attempt and every message that it drops, which metrics
    // count. It is quiet unless the level names it.
    let quiet = if level.contains("async_nats") { "" } else { "async_nats=warn," };
    let filter =
        EnvFilter::try_new(format!("{quiet}{level}")).with_context(|| format!("log.level = {level}"))?;
    let colours = std::io::stderr().is_terminal();
    // The library would write its own errors to the stream directly, which may block.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .log_internal_errors(false)
        .with_writer(|| &output::STDERR);
    if settings.log.format.0 == LogFormat::Json {
        builder.json().init();
    } else {
        builder.init();
    }
    log_panics();
    Ok(())
}

/// Routes panic messages through the log's queue: the standard hook writes to the stream directly,
/// which may block.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let mut text = format!("thread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("{backtrace}\n"));
        }
        output::STDERR.append(text.as_bytes());
        output::flush_within(PANIC_FLUSH_TIMEOUT);
    }));
}

/// Histogram buckets from 0.1 ms to 5 s, about three per decade.
const SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Installs the metrics recorder, and describes all metrics to it. Returns the handle that renders them.
pub(crate) fn install_recorder() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    metrics_process::Collector::default().describe();
    describe_metrics();
    Ok(recorder)
}

/// Describes the metrics of all crates.
fn describe_metrics() {
    admission::describe_metrics();
    bus::describe_metrics();
    director::describe_metrics();
    gateway::describe_metrics();
    listener::describe_metrics();
    metrics::describe_metrics();
    rooms::describe_metrics();
    stats::describe_metrics();
}
