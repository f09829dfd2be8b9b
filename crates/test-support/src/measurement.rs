//! Whether a run of the tests is a measurement (`make failures`), and the form of its results.

use std::time::Duration;

/// The number of runs of each trial in a measurement, from `ATOLL_FAILURE_RUNS`; `None`: this is no measurement.
pub fn runs() -> Option<usize> {
    std::env::var("ATOLL_FAILURE_RUNS").ok().and_then(|runs| runs.parse().ok())
}

/// The first value in a measurement, on a machine without other load; otherwise the second.
pub fn strict_or_wide<T>(strict: T, wide: T) -> T {
    if runs().is_some() { strict } else { wide }
}

/// Prints the median, the 99th percentile and the maximum.
///
/// # Panics
/// Without times.
pub fn print(label: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    println!("{label}: p50 {:?}, p99 {:?}, max {:?} of {}", at(0.5), at(0.99), at(1.0), times.len());
}
