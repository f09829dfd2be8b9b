//! Processes of a realm die, stand still and come back, while people walk and stand in it.
//!
//! Each trial runs once, and then a second time so that what was started again fails again within five
//! seconds; `ATOLL_FAILURE_RUNS` says how often (`make failures`: ten times), and what was measured is
//! printed. Times are asserted with a wide margin only: the machine may be busy.

mod bus;
mod directors;
mod gateways;
mod rooms;
pub(crate) mod scene;
mod table;
mod witness;

/// How often something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    /// Started again, it fails again.
    Twice,
}

/// Every trial that is asked for.
fn trials() -> impl Iterator<Item = Times> {
    let runs = std::env::var("ATOLL_FAILURE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    [Times::Once, Times::Twice].into_iter().flat_map(move |times| std::iter::repeat_n(times, runs))
}
