//! Processes of a realm are killed, frozen and restarted while bots walk in it and observers watch.
//!
//! Each trial runs once, and then a second time in which the restarted process fails again within five
//! seconds. `ATOLL_FAILURE_RUNS` is the number of runs (`make failures`: ten), and the measurements are
//! printed. Only with it the machine is assumed to be free, and limits are strict; otherwise they are
//! wide, since it may be busy.

mod bus;
mod directors;
mod gateways;
mod observer;
mod rooms;
mod table;
pub(crate) mod test_realm;

/// How often the failure happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repetition {
    Once,
    /// The restarted process fails again.
    Twice,
}

/// The number of runs of each trial in a measurement; `None`: this is no measurement.
fn runs() -> Option<usize> {
    std::env::var("ATOLL_FAILURE_RUNS").ok().and_then(|runs| runs.parse().ok())
}

/// The trials of this run.
fn trials() -> impl Iterator<Item = Repetition> {
    let runs = runs().unwrap_or(1);
    [Repetition::Once, Repetition::Twice].into_iter().flat_map(move |times| std::iter::repeat_n(times, runs))
}

/// The first value in a measurement, on a machine without other load; otherwise the second.
fn strict_or_wide<T>(strict: T, wide: T) -> T {
    if runs().is_some() { strict } else { wide }
}
