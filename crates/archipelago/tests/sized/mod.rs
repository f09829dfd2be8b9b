//! How many random worlds a property test tries.

/// `short` many, times `ATOLL_SIM_FACTOR` where that is set: `make sim` and CI set it to 10.
pub(crate) fn worlds(short: u64) -> u64 {
    let factor = std::env::var("ATOLL_SIM_FACTOR").map_or(1, |factor| factor.parse().expect("a number"));
    short * factor
}
