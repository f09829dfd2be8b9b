//! One measurement of one server under one load.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;
use process_usage::Process;

use crate::{
    load::{Load, Order},
    loader::Loader,
    options::{Options, ServerCommand},
    server_process::ServerProcess,
};

/// After the measurement the load continues for this time, so that the last messages can arrive.
const TAIL: Duration = Duration::from_secs(1);
/// Above these, the loader does not offer the load as described, or the server cannot use its core.
const MAX_LOADER_CORE_SHARE: f64 = 0.85;
const MAX_LATENESS_MS: f64 = 2.0;
const MAX_SERVER_DELAY_SHARE: f64 = 0.05;

/// The result of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) load: Load,
    pub(crate) order: Order,
    pub(crate) server: String,
    /// Deliveries a second.
    pub(crate) deliveries: f64,
    /// Deliveries of messages from the time of the measurement that had not arrived 1 s after its end.
    pub(crate) lost: u64,
    /// Messages that were due but not sent, because the server did not read.
    skipped: u64,
    /// CPU time of the server: the share of a core, and microseconds for each delivery.
    core_share: f64,
    pub(crate) cpu_each: f64,
    /// Data segments that the server sent a second.
    pub(crate) segments: Option<f64>,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    loader_core_share: f64,
    /// How late the loader sent, p99.
    lateness_ms: f64,
    /// Share of the time for which the server was runnable but did not run.
    server_delay_share: f64,
    closed: usize,
    close_codes: BTreeSet<u16>,
}

/// Starts a server and measures it.
pub(crate) fn run(
    server: &ServerCommand,
    server_core: Option<usize>,
    load: Load,
    order: Order,
    options: &Options,
) -> Result<Run> {
    let process = ServerProcess::start(server, server_core)?;
    let mut loader = Loader::enter(process.address, load, order)?;
    loader.run(options.warm_up() / 2)?;
    let segments_before = process.segments();
    loader.run(options.warm_up() / 2)?;
    let cpu_seconds = || Result::<_>::Ok((process.cpu_seconds()?, Process::Own.cpu_seconds().unwrap_or(0.0)));
    let delayed_before = process.delayed_seconds();
    let (server_before, loader_before) = cpu_seconds()?;
    loader.measure(options.measured())?;
    let (server_after, loader_after) = cpu_seconds()?;
    let delayed = process.delayed_seconds() - delayed_before;
    let segments_after = process.segments();
    loader.run(TAIL)?;
    let segments = segments_before.join().ok().flatten().zip(segments_after.join().ok().flatten());
    let (counts, seconds) = (loader.counts(), options.measured().as_secs_f64());
    Ok(Run {
        load,
        order,
        server: server.name.clone(),
        deliveries: counts.received as f64 / seconds,
        lost: (counts.sent * load.recipients() as u64).saturating_sub(counts.arrived),
        skipped: counts.skipped,
        core_share: (server_after - server_before) / seconds,
        cpu_each: 1e6 * (server_after - server_before) / counts.received as f64,
        segments: segments.map(|(before, after)| after.rate_since(before)),
        p50_ms: milliseconds(&counts.latency, 0.5),
        p99_ms: milliseconds(&counts.latency, 0.99),
        loader_core_share: (loader_after - loader_before) / seconds,
        lateness_ms: milliseconds(&counts.lateness, 0.99),
        server_delay_share: delayed / seconds,
        closed: loader.closed().count(),
        close_codes: loader.closed().collect(),
    })
}

/// A quantile of a histogram in microseconds.
fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

impl Run {
    /// Why the figures should not be quoted: the loader could not keep up, or other processes used the cores. A
    /// server that is delayed batches more and so seems to need less CPU time.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.loader_core_share > MAX_LOADER_CORE_SHARE {
            return Some("LOADER SATURATED");
        }
        if self.lateness_ms > MAX_LATENESS_MS {
            return Some("LOADER LATE: other processes use its core");
        }
        (self.server_delay_share > MAX_SERVER_DELAY_SHARE)
            .then_some("SERVER DELAYED: other processes use its core")
    }
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:<10} {:<7} {:<14} {:>9.0} of {:>9.0} deliveries/s, lost {}, {:>5.1} % of a core, \
             {:.3} µs each, ",
            self.load,
            self.order,
            self.server,
            self.deliveries,
            self.load.offered(),
            self.lost,
            100.0 * self.core_share,
            self.cpu_each,
        )?;
        match self.segments {
            Some(segments) => write!(formatter, "{segments:.0} segments/s, ")?,
            None => write!(formatter, "unknown segments/s, ")?,
        }
        write!(
            formatter,
            "p50 {:.2} ms p99 {:.2} ms; server delayed {:.1} %, loader {:.0} % of a core, late p99 {:.2} ms",
            self.p50_ms,
            self.p99_ms,
            100.0 * self.server_delay_share,
            100.0 * self.loader_core_share,
            self.lateness_ms,
        )?;
        if self.skipped > 0 {
            write!(formatter, "; {} sends skipped", self.skipped)?;
        }
        if self.closed > 0 {
            write!(formatter, "; {} connections closed: {:?}", self.closed, self.close_codes)?;
        }
        if let Some(problem) = self.problem() {
            write!(formatter, "; {problem}")?;
        }
        Ok(())
    }
}
