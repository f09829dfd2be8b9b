//! Processes of a realm are killed, frozen and restarted while bots walk in it and observers watch.
//!
//! Each trial runs once, and then a second time in which the restarted process fails again within five
//! seconds. `ATOLL_FAILURE_RUNS` is the number of runs (`make failures`: ten), and the measurements are
//! printed. Only with it the machine is assumed to be free, and limits are strict; otherwise they are
//! wide, since it may be busy.

mod bus;
mod directors;
mod gateways;
mod rooms;
mod table;

use test_support::measurement::runs;

/// How often the failure happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repetition {
    Once,
    /// The restarted process fails again.
    Twice,
}

/// The trials of this run.
fn trials() -> impl Iterator<Item = Repetition> {
    let runs = runs().unwrap_or(1);
    [Repetition::Once, Repetition::Twice].into_iter().flat_map(move |times| std::iter::repeat_n(times, runs))
}
