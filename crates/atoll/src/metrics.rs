//! The metrics that this crate records.

use metrics::{Counter, Gauge, Unit, describe_counter, describe_gauge};

/// Presence requests that were refused because of the rate limit of their network.
pub(crate) fn presence_requests_refused() -> Counter {
    ::metrics::counter!("atoll_stats_requests_refused_total")
}

/// Tasks of the runtime that have not ended.
pub(crate) fn tasks() -> Gauge {
    ::metrics::gauge!("atoll_process_tasks")
}

/// The CPU time of this process.
pub(crate) fn cpu_seconds() -> Gauge {
    ::metrics::gauge!("atoll_process_cpu_seconds")
}

/// Lines that were dropped because the log was not read in time, or because writing it failed.
pub(crate) fn log_lines_dropped() -> Counter {
    ::metrics::counter!("atoll_log_lines_dropped_total")
}

/// Whether the last version of the file of rules that was read is valid: 1 or 0.
pub(crate) fn rules_valid() -> Gauge {
    ::metrics::gauge!("atoll_rules_valid")
}

/// Reloads of the file of rules that changed the rules.
pub(crate) fn rules_loaded() -> Counter {
    ::metrics::counter!("atoll_rules_loaded_total")
}

/// Versions of the file of rules that were invalid.
pub(crate) fn rules_refused() -> Counter {
    ::metrics::counter!("atoll_rules_refused_total")
}

/// Describes the metrics of this crate to the recorder.
pub(crate) fn describe_metrics() {
    describe_counter!(
        "atoll_stats_requests_refused_total",
        Unit::Count,
        "Presence requests that were refused because of the rate limit of their network."
    );
    describe_gauge!("atoll_process_tasks", Unit::Count, "Tasks of the runtime that have not ended.");
    describe_gauge!("atoll_process_cpu_seconds", Unit::Seconds, "The CPU time of this process.");
    describe_counter!(
        "atoll_log_lines_dropped_total",
        Unit::Count,
        "Lines that were dropped because the log was not read in time, or because writing it failed."
    );
    describe_gauge!(
        "atoll_rules_valid",
        Unit::Count,
        "Whether the last version of the file of rules that was read is valid: 1 or 0."
    );
    describe_counter!(
        "atoll_rules_loaded_total",
        Unit::Count,
        "Reloads of the file of rules that changed the rules."
    );
    describe_counter!(
        "atoll_rules_refused_total",
        Unit::Count,
        "Versions of the file of rules that were invalid."
    );
}
