//! The metrics of the stats role.

use metrics::{Counter, Gauge, Unit, describe_counter, describe_gauge};

/// Encodings of the shared response at `path`.
pub(crate) fn encodings(path: &'static str) -> Counter {
    metrics::counter!("atoll_stats_encodings_total", "path" => path)
}

/// Failed requests to the content service, and entities that describe no scene.
pub(crate) fn content_errors(kind: &'static str) -> Counter {
    metrics::counter!("atoll_stats_content_errors_total", "kind" => kind)
}

/// Events of the live feed.
pub(crate) fn feed_events(event: &'static str) -> Counter {
    metrics::counter!("atoll_stats_feed_events_total", "event" => event)
}

/// Readers that the live feed rejected because there are too many.
pub(crate) fn feed_refused() -> Counter {
    metrics::counter!("atoll_stats_feed_refused_total")
}

/// Readers of the live feed that were sent a `reset`.
pub(crate) fn feed_resets(reason: &'static str) -> Counter {
    metrics::counter!("atoll_stats_feed_resets_total", "reason" => reason)
}

/// Readers of the live feed that lost their slot because they read nothing.
pub(crate) fn feed_stalled() -> Counter {
    metrics::counter!("atoll_stats_feed_stalled_total")
}

/// Present readers of the live feed.
pub(crate) fn feed_readers() -> Gauge {
    metrics::gauge!("atoll_stats_feed_readers")
}

/// Describes the metrics of this crate to the recorder of the process.
pub fn describe_metrics() {
    describe_counter!(
        "atoll_stats_encodings_total",
        Unit::Count,
        "Encodings of a presence response that all its readers share."
    );
    describe_counter!(
        "atoll_stats_content_errors_total",
        Unit::Count,
        "Failed requests to the content service, and entities that describe no scene."
    );
    describe_counter!("atoll_stats_feed_events_total", Unit::Count, "Events of the live feed.");
    describe_counter!(
        "atoll_stats_feed_refused_total",
        Unit::Count,
        "Readers that the live feed rejected because there are too many."
    );
    describe_counter!(
        "atoll_stats_feed_resets_total",
        Unit::Count,
        "Readers of the live feed that were sent a reset, because they missed events."
    );
    describe_counter!(
        "atoll_stats_feed_stalled_total",
        Unit::Count,
        "Readers of the live feed that lost their slot because they read nothing."
    );
    describe_gauge!("atoll_stats_feed_readers", Unit::Count, "Present readers of the live feed.");
}
