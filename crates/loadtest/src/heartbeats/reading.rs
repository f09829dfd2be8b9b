//! Readings of the director's metrics, and differences between two of them.

use std::{collections::HashMap, fmt};

use process_usage::Process;
use serde::Serialize;
use tokio::time::Instant;

use crate::realm_metrics::MetricsClient;

/// The metrics of the director and the resources of the bus, at one moment.
pub(super) struct Reading {
    pub(super) at: Instant,
    metrics: HashMap<String, f64>,
    /// The CPU seconds of nats-server, and its memory (RSS) in bytes.
    pub(super) bus: Option<(f64, u64)>,
}

impl Reading {
    pub(super) async fn take(director: &MetricsClient, bus: Option<Process>) -> Option<Self> {
        let metrics = director.metrics().await?;
        let bus = bus.and_then(|process| process.cpu_seconds().zip(process.resident_bytes()));
        Some(Self { at: Instant::now(), metrics, bus })
    }

    pub(super) fn value(&self, name: &str) -> f64 {
        self.metrics.get(name).copied().unwrap_or_default()
    }

    /// The growth of a counter.
    pub(super) fn since(&self, earlier: &Self, name: &str) -> f64 {
        self.value(name) - earlier.value(name)
    }

    /// The growth of all counters of this name that have this label, together.
    pub(super) fn sum_since(&self, earlier: &Self, name: &str, label: &str) -> f64 {
        let mine = |name_of: &&String| name_of.starts_with(name) && name_of.contains(label);
        self.metrics
            .keys()
            .filter(mine)
            .map(|name| self.since(earlier, name))
            .fold(0.0, |sum, grown| sum + grown)
    }
}

/// Percentiles of a Prometheus histogram, in milliseconds: the upper bounds of their buckets.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct BucketPercentiles {
    p50: f64,
    p99: f64,
    max: f64,
    samples: u64,
}

impl BucketPercentiles {
    /// The percentiles of the observations between two readings.
    pub(super) fn between(earlier: &Reading, later: &Reading, name: &str) -> Self {
        let prefix = format!("{name}_bucket{{le=\"");
        let bound = |name: &str| name.strip_prefix(&prefix)?.strip_suffix("\"}")?.parse::<f64>().ok();
        let mut buckets: Vec<(f64, f64)> = later
            .metrics
            .keys()
            .filter_map(|name| Some((bound(name)?, later.since(earlier, name))))
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = buckets.last().map_or(0.0, |last| last.1);
        let at = |quantile: f64| {
            let within = buckets.iter().find(|(_, count)| *count >= quantile * all);
            1_000.0 * within.map_or(0.0, |within| within.0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0), samples: all as u64 }
    }
}

impl fmt::Display for BucketPercentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, max, samples } = self;
        write!(f, "p50 below {p50} p99 below {p99} max below {max} ms, {samples} samples")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(metrics: &[(&str, f64)]) -> Reading {
        let metrics = metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Reading { at: Instant::now(), metrics, bus: None }
    }

    #[test]
    fn histogram_percentiles_cover_only_the_interval() {
        let counts = |counts: [f64; 3]| {
            let names = [
                "a_seconds_bucket{le=\"0.1\"}",
                "a_seconds_bucket{le=\"1\"}",
                "a_seconds_bucket{le=\"+Inf\"}",
            ];
            reading(&names.into_iter().zip(counts).collect::<Vec<_>>())
        };
        let bounds = BucketPercentiles::between(
            &counts([90.0, 90.0, 95.0]),
            &counts([92.0, 190.0, 195.0]),
            "a_seconds",
        );
        assert_eq!((bounds.p50, bounds.max, bounds.samples), (1_000.0, 1_000.0, 100));
    }

    #[test]
    fn counters_of_several_labels_are_summed() {
        let before =
            reading(&[("a{subscriber=\"director\",reason=\"x\"}", 1.0), ("a{subscriber=\"stats\"}", 7.0)]);
        let after =
            reading(&[("a{subscriber=\"director\",reason=\"x\"}", 3.0), ("a{subscriber=\"stats\"}", 9.0)]);
        assert_eq!(after.sum_since(&before, "a", "\"director\""), 2.0);
    }
}
