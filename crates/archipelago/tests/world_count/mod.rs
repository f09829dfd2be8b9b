//! The number of random worlds that a property test runs.

/// `short` times the variable `ATOLL_SIM_FACTOR`, if that is set: `make sim` and CI set it to 10.
pub(crate) fn scaled(short: u64) -> u64 {
    let factor = std::env::var("ATOLL_SIM_FACTOR").map_or(1, |factor| factor.parse().expect("a number"));
    short * factor
}
