//! Whether a run of the tests is a measurement (`make failures`).

/// The number of runs of each trial in a measurement, from `ATOLL_FAILURE_RUNS`; `None`: this is no measurement.
pub fn runs() -> Option<usize> {
    std::env::var("ATOLL_FAILURE_RUNS").ok().and_then(|runs| runs.parse().ok())
}

/// The first value in a measurement, on a machine without other load; otherwise the second.
pub fn strict_or_wide<T>(strict: T, wide: T) -> T {
    if runs().is_some() { strict } else { wide }
}
