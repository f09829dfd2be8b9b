//! The metrics of the listeners.

use metrics::{Counter, Unit, describe_counter};

/// Connections that `listener` ended or refused for this reason.
pub(crate) fn closed(listener: &'static str, reason: &'static str) -> Counter {
    metrics::counter!("atoll_listener_closed_total", "listener" => listener, "reason" => reason)
}

/// Failures of `accept` that do not concern a single connection, such as a lack of file descriptors.
pub(crate) fn accept_errors(listener: &'static str) -> Counter {
    metrics::counter!("atoll_listener_accept_errors_total", "listener" => listener)
}

/// Describes the metrics of this crate to the recorder of the process.
pub fn describe_metrics() {
    describe_counter!(
        "atoll_listener_closed_total",
        Unit::Count,
        "Connections that a listener ended or refused, by reason."
    );
    describe_counter!(
        "atoll_listener_accept_errors_total",
        Unit::Count,
        "Failures to accept connections, such as a lack of file descriptors."
    );
}
