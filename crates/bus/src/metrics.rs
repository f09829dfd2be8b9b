//! The metrics of the bus.

use metrics::{Counter, Gauge, Unit, describe_counter, describe_gauge};

/// Registers the unit and the description of each metric of this crate.
pub fn describe_metrics() {
    describe_gauge!("atoll_bus_connected", Unit::Count, "Whether the connection to NATS is up: 1 or 0.");
    describe_counter!("atoll_bus_reconnects_total", Unit::Count, "Reconnects to NATS.");
    describe_counter!(
        "atoll_bus_unsent_total",
        Unit::Count,
        "Messages that were not sent to NATS, by reason."
    );
    describe_counter!(
        "atoll_bus_refused_total",
        Unit::Count,
        "Requests that the NATS server refused: its permissions do not fit the roles of this process."
    );
    describe_counter!(
        "atoll_bus_dropped_total",
        Unit::Count,
        "Messages dropped because the queue of their subscriber was full."
    );
    describe_counter!(
        "atoll_bus_slow_consumer_total",
        Unit::Count,
        "Messages that the NATS client library dropped because a subscriber did not keep up."
    );
    describe_counter!(
        "atoll_bus_incomplete_total",
        Unit::Count,
        "Messages dropped because some of their parts were lost."
    );
    describe_counter!(
        "atoll_bus_malformed_total",
        Unit::Count,
        "Messages dropped because a header cannot be decoded."
    );
    describe_counter!(
        "atoll_bus_deposed_total",
        Unit::Count,
        "Messages dropped because they come from a deposed director."
    );
    describe_counter!(
        "atoll_bus_future_sessions_total",
        Unit::Count,
        "Messages dropped because their session id lies more than a day in the future."
    );
}

/// Whether the connection to NATS is up: 1 or 0.
pub(crate) fn connected() -> Gauge {
    metrics::gauge!("atoll_bus_connected")
}

/// Reconnects to NATS.
pub(crate) fn reconnects() -> Counter {
    metrics::counter!("atoll_bus_reconnects_total")
}

/// Messages that were not sent to NATS, by reason.
pub(crate) fn unsent(reason: &'static str) -> Counter {
    metrics::counter!("atoll_bus_unsent_total", "reason" => reason)
}

/// Requests that the NATS server refused. All subjects share one counter, so that no client can create metric
/// series.
pub(crate) fn refused(what: &'static str) -> Counter {
    metrics::counter!("atoll_bus_refused_total", "what" => what)
}

/// Messages dropped because the queue of this subscriber was full.
pub(crate) fn dropped(subscriber: &'static str) -> Counter {
    metrics::counter!("atoll_bus_dropped_total", "subscriber" => subscriber)
}

/// Messages that the NATS client library dropped because this subscriber did not keep up.
pub(crate) fn slow_consumer(subscriber: &'static str) -> Counter {
    metrics::counter!("atoll_bus_slow_consumer_total", "subscriber" => subscriber)
}

/// Messages dropped because some of their parts were lost.
pub(crate) fn incomplete(subscriber: &'static str) -> Counter {
    metrics::counter!("atoll_bus_incomplete_total", "subscriber" => subscriber)
}

/// Messages dropped because this header cannot be decoded.
pub(crate) fn malformed(subscriber: &'static str, header: &'static str) -> Counter {
    metrics::counter!("atoll_bus_malformed_total", "subscriber" => subscriber, "header" => header)
}

/// Messages dropped because they come from a deposed director.
pub(crate) fn deposed(subscriber: &'static str) -> Counter {
    metrics::counter!("atoll_bus_deposed_total", "subscriber" => subscriber)
}

/// Messages dropped because their session id lies more than a day in the future.
pub(crate) fn future_sessions(subscriber: &'static str) -> Counter {
    metrics::counter!("atoll_bus_future_sessions_total", "subscriber" => subscriber)
}
