//! Processes of a realm die, stand still and come back, while people walk and stand in it.
//!
//! Each trial runs once, and then a second time so that what was started again fails again within five
//! seconds; `ATOLL_FAILURE_RUNS` says how often (`make failures`: ten times), and what was measured is
//! printed. Only then is the machine taken to be free, and limits are strict: else they are wide, as it
//! may be busy.

mod bus;
mod directors;
mod gateways;
mod observer;
mod rooms;
mod table;
pub(crate) mod test_realm;

/// How often something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repetition {
    Once,
    /// Started again, it fails again.
    Twice,
}

/// How often each trial runs where somebody measures.
fn runs() -> Option<usize> {
    std::env::var("ATOLL_FAILURE_RUNS").ok().and_then(|runs| runs.parse().ok())
}

/// Every trial that is asked for.
fn trials() -> impl Iterator<Item = Repetition> {
    let runs = runs().unwrap_or(1);
    [Repetition::Once, Repetition::Twice].into_iter().flat_map(move |times| std::iter::repeat_n(times, runs))
}

/// The first where somebody measures, on a machine that has nothing else to do; else the second.
fn strict_or_wide<T>(strict: T, wide: T) -> T {
    if runs().is_some() { strict } else { wide }
}
