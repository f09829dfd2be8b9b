//! The load that the bots cause, read from the realm's `/metrics`.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

/// Reads a realm's `/metrics`.
pub(crate) struct MetricsClient {
    /// `None` for a realm of several processes: no single process has the metrics of all.
    url: Option<String>,
}

/// The metrics of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    at: Instant,
    cpu_seconds: f64,
    resident_bytes: f64,
    deliveries: f64,
}

impl MetricsClient {
    pub(crate) fn new(realms: &[String]) -> Self {
        let url = match realms {
            [url] => Some(format!("{}/metrics", url.trim_end_matches('/'))),
            _ => None,
        };
        Self { url }
    }

    /// All metrics of the realm, by name and labels; `None` if it does not respond.
    pub(crate) async fn metrics(&self) -> Option<HashMap<String, f64>> {
        let url = self.url.as_ref()?;
        let client = client::http_client(url).ok()?;
        let text = client.get(url).timeout(Duration::from_secs(5)).send().await.ok()?.text().await.ok()?;
        let values = text.lines().filter_map(|line| line.rsplit_once(' '));
        Some(values.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The metrics of this moment; `None` if the realm does not respond.
    pub(crate) async fn sample(&self) -> Option<Sample> {
        let values = self.metrics().await?;
        Some(Sample {
            at: Instant::now(),
            cpu_seconds: *values.get("atoll_process_cpu_seconds")?,
            resident_bytes: *values.get("process_resident_memory_bytes")?,
            deliveries: values.get("dcl_ws_rooms_out_messages").copied().unwrap_or_default(),
        })
    }
}

impl Sample {
    /// The CPU that the realm used since an earlier sample, and how long that was, in seconds.
    pub(crate) fn since(&self, earlier: &Self) -> (f64, f64) {
        (self.cpu_seconds - earlier.cpu_seconds, (self.at - earlier.at).as_secs_f64())
    }
}

/// The realm's load while all bots were present. The field names are JSON keys.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Load {
    /// Percent of one core.
    pub(crate) cpu_percent: f64,
    /// Messages written to members of rooms per second.
    pub(crate) deliveries_per_second: f64,
    /// All CPU time of the process, divided by the deliveries.
    pub(crate) cpu_us_per_delivery: f64,
    /// At the end of the run.
    pub(crate) resident_mib: f64,
    /// The growth of the process for each bot.
    pub(crate) kib_per_bot: f64,
}

impl Load {
    pub(crate) fn between(
        before: Option<&Sample>,
        first: Option<&Sample>,
        after: Option<&Sample>,
        count: usize,
    ) -> Option<Self> {
        let (before, first, after) = (before?, first?, after?);
        let seconds = (after.at - first.at).as_secs_f64();
        let cpu = after.cpu_seconds - first.cpu_seconds;
        let deliveries = after.deliveries - first.deliveries;
        Some(Self {
            cpu_percent: 100.0 * cpu / seconds,
            deliveries_per_second: deliveries / seconds,
            cpu_us_per_delivery: if deliveries > 0.0 { 1e6 * cpu / deliveries } else { 0.0 },
            resident_mib: after.resident_bytes / 1024.0 / 1024.0,
            kib_per_bot: (after.resident_bytes - before.resident_bytes) / 1024.0 / count.max(1) as f64,
        })
    }
}
