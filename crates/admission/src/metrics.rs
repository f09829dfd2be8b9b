//! The metrics of admission.

use metrics::{Counter, Gauge, Unit, describe_counter, describe_gauge};

/// Waiting permits of `limiter` that were evicted for a client of another network.
pub(crate) fn evicted(limiter: &'static str) -> Counter {
    metrics::counter!("atoll_admission_evicted_total", "limiter" => limiter)
}

/// Verified auth chains and signed requests.
pub(crate) fn auth_chains(outcome: &'static str) -> Counter {
    metrics::counter!("atoll_auth_chains_total", "outcome" => outcome)
}

/// Checks of contract wallets' signatures.
pub(crate) fn contract_questions(outcome: &'static str) -> Counter {
    metrics::counter!("atoll_contract_questions_total", "outcome" => outcome)
}

/// The state of the circuit breaker: 0 closed, 1 half open, 2 open.
pub(crate) fn contract_breaker() -> Gauge {
    metrics::gauge!("atoll_contract_breaker")
}

/// Describes the metrics of this crate to the recorder of the process.
pub fn describe_metrics() {
    describe_counter!(
        "atoll_admission_evicted_total",
        Unit::Count,
        "Connections or handshakes evicted from a full limiter to admit another one."
    );
    describe_counter!(
        "atoll_auth_chains_total",
        Unit::Count,
        "Auth chains and signed requests that were verified, by outcome."
    );
    describe_counter!(
        "atoll_contract_questions_total",
        Unit::Count,
        "Checks of contract wallets' signatures, by outcome."
    );
    describe_gauge!(
        "atoll_contract_breaker",
        Unit::Count,
        "The circuit breaker for the Ethereum provider: 0 closed, 1 half open, 2 open."
    );
}
