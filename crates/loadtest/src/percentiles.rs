//! Latencies and their percentiles.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

/// A histogram of microseconds: from 1 µs to a minute, with two significant digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("these bounds are valid")
}

/// Percentiles in milliseconds. The field names are JSON keys.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p99: f64,
    max: f64,
    pub(crate) samples: u64,
}

impl Percentiles {
    pub(crate) fn of(microseconds: &Histogram<u64>) -> Self {
        let at = |quantile| microseconds.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0), samples: microseconds.len() }
    }

    /// The percentiles of durations of up to an hour.
    pub(crate) fn of_durations(times: impl Iterator<Item = Duration>) -> Self {
        const HOUR_US: u64 = 3_600_000_000;
        let mut histogram = Histogram::new_with_bounds(1, HOUR_US, 3).expect("these bounds are valid");
        times.for_each(|time| histogram.saturating_record(time.as_micros() as u64));
        Self::of(&histogram)
    }

    pub(crate) fn with_max(&self) -> String {
        format!("{self} max {:.1}", self.max)
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} p99 {:.1}", self.p50, self.p99)
    }
}
