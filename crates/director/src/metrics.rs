//! The metrics of a director: a function for each, and their descriptions.

use metrics::{Counter, Gauge, Histogram, Unit};
use protocol::NodeName;

/// Heartbeats of peers received.
pub(crate) fn heartbeats() -> Counter {
    metrics::counter!("atoll_director_heartbeats_total")
}

/// Bus messages that could not be decoded, by reason.
pub(crate) fn refused(reason: &'static str) -> Counter {
    metrics::counter!("atoll_director_refused_total", "reason" => reason)
}

/// Assignments published to clients.
pub(crate) fn assignments() -> Counter {
    metrics::counter!("atoll_director_assignments_total")
}

/// Assignments sent again, because heartbeats showed that the clients lacked them.
pub(crate) fn resends() -> Counter {
    metrics::counter!("atoll_director_retold_total")
}

/// Positions withheld from the engine, because the peer jumped too often.
pub(crate) fn deferred_positions() -> Counter {
    metrics::counter!("atoll_director_positions_deferred_total")
}

/// Flushes skipped, because too many batches waited for the publisher.
pub(crate) fn skipped_flushes() -> Counter {
    metrics::counter!("atoll_director_flushes_skipped_total")
}

/// Plans sent to members of meshes.
pub(crate) fn mesh_plans() -> Counter {
    metrics::counter!("atoll_director_mesh_plans_total")
}

/// Meshes that did not hold their islands.
pub(crate) fn mesh_failures() -> Counter {
    metrics::counter!("atoll_director_mesh_failures_total")
}

/// The meshes that this director plans: their number, members, links that are up, and the hops of the longest path.
pub(crate) fn meshes(meshes: usize, members: usize, links: usize, depth: usize) {
    metrics::gauge!("atoll_director_meshes").set(meshes as f64);
    metrics::gauge!("atoll_director_mesh_members").set(members as f64);
    metrics::gauge!("atoll_director_mesh_links").set(links as f64);
    metrics::gauge!("atoll_director_mesh_depth").set(depth as f64);
}

/// Terms in which this director became the leader.
pub(crate) fn takeovers() -> Counter {
    metrics::counter!("atoll_director_takeovers_total")
}

/// Peers in the world; 0 unless this director leads.
pub(crate) fn peers() -> Gauge {
    metrics::gauge!("dcl_archipelago_peers_count")
}

/// Islands with members; 0 unless this director leads.
pub(crate) fn islands() -> Gauge {
    metrics::gauge!("dcl_archipelago_islands_count")
}

/// 1 if this director leads, 0 otherwise.
pub(crate) fn leads() -> Gauge {
    metrics::gauge!("atoll_director_leads")
}

/// The epoch of the term in which this director leads; 0 otherwise.
pub(crate) fn epoch() -> Gauge {
    metrics::gauge!("atoll_director_epoch")
}

/// Islands without a node, because none that could host them is available.
pub(crate) fn waiting_islands() -> Gauge {
    metrics::gauge!("atoll_director_islands_waiting")
}

/// 1 if a configured node is available, 0 otherwise.
pub(crate) fn transport_healthy(node: &NodeName) -> Gauge {
    metrics::gauge!("atoll_transport_healthy", "node" => node.to_string())
}

/// Calls of a LiveKit server's API, by call and result.
pub(crate) fn livekit_calls(node: &NodeName, call: &'static str, result: &'static str) -> Counter {
    metrics::counter!("atoll_livekit_calls_total", "node" => node.to_string(), "call" => call, "result" => result)
}

/// Webhooks of a LiveKit server, by result.
pub(crate) fn livekit_webhooks(node: &NodeName, result: &'static str) -> Counter {
    metrics::counter!("atoll_livekit_webhooks_total", "node" => node.to_string(), "result" => result)
}

/// 1 if the LiveKit server sends webhooks, 0 otherwise.
pub(crate) fn livekit_sends_webhooks(node: &NodeName) -> Gauge {
    metrics::gauge!("atoll_livekit_sends_webhooks", "node" => node.to_string())
}

/// Participants of all rooms of a LiveKit server, without agents and hidden ones.
pub(crate) fn livekit_participants(node: &NodeName) -> Gauge {
    metrics::gauge!("atoll_livekit_participants", "node" => node.to_string())
}

/// Reports of ended memberships that the task of a LiveKit server had no room for.
pub(crate) fn livekit_reports_dropped(node: &NodeName) -> Counter {
    metrics::counter!("atoll_livekit_reports_dropped_total", "node" => node.to_string())
}

/// The duration of a flush.
pub(crate) fn flush_seconds() -> Histogram {
    metrics::histogram!("atoll_director_flush_seconds")
}

/// The delay of a flush behind its timer.
pub(crate) fn flush_lag_seconds() -> Histogram {
    metrics::histogram!("atoll_director_flush_lag_seconds")
}

/// Describes the metrics to the recorder of this process.
pub fn describe_metrics() {
    describe_meshes();
    metrics::describe_counter!(
        "atoll_director_heartbeats_total",
        Unit::Count,
        "Heartbeats of peers received."
    );
    metrics::describe_counter!(
        "atoll_director_refused_total",
        Unit::Count,
        "Bus messages that could not be decoded, by reason."
    );
    metrics::describe_counter!(
        "atoll_director_assignments_total",
        Unit::Count,
        "Assignments published to clients."
    );
    metrics::describe_counter!(
        "atoll_director_retold_total",
        Unit::Count,
        "Assignments sent again, because heartbeats showed that the clients lacked them."
    );
    metrics::describe_counter!(
        "atoll_director_positions_deferred_total",
        Unit::Count,
        "Positions withheld from the engine, because the peer jumped too often."
    );
    metrics::describe_counter!(
        "atoll_director_flushes_skipped_total",
        Unit::Count,
        "Flushes skipped, because too many batches waited for the publisher."
    );
    metrics::describe_counter!(
        "atoll_director_takeovers_total",
        Unit::Count,
        "Terms in which this director became the leader."
    );
    metrics::describe_gauge!(
        "dcl_archipelago_peers_count",
        Unit::Count,
        "Peers in the world; 0 unless this director leads."
    );
    metrics::describe_gauge!(
        "dcl_archipelago_islands_count",
        Unit::Count,
        "Islands with members; 0 unless this director leads."
    );
    metrics::describe_gauge!("atoll_director_leads", Unit::Count, "1 if this director leads, 0 otherwise.");
    metrics::describe_gauge!(
        "atoll_director_epoch",
        Unit::Count,
        "The epoch of the term in which this director leads; 0 otherwise."
    );
    metrics::describe_gauge!(
        "atoll_director_islands_waiting",
        Unit::Count,
        "Islands without a node, because none that could host them is available."
    );
    metrics::describe_histogram!("atoll_director_flush_seconds", Unit::Seconds, "The duration of a flush.");
    metrics::describe_histogram!(
        "atoll_director_flush_lag_seconds",
        Unit::Seconds,
        "The delay of a flush behind its timer."
    );
    describe_node_metrics();
}

fn describe_node_metrics() {
    metrics::describe_gauge!(
        "atoll_transport_healthy",
        Unit::Count,
        "1 if a configured node is available, 0 otherwise."
    );
    metrics::describe_counter!(
        "atoll_livekit_calls_total",
        Unit::Count,
        "Calls of a LiveKit server's API, by call and result."
    );
    metrics::describe_counter!(
        "atoll_livekit_webhooks_total",
        Unit::Count,
        "Webhooks of a LiveKit server, by result."
    );
    metrics::describe_gauge!(
        "atoll_livekit_sends_webhooks",
        Unit::Count,
        "1 if the LiveKit server sends webhooks, 0 otherwise."
    );
    metrics::describe_gauge!(
        "atoll_livekit_participants",
        Unit::Count,
        "Participants of all rooms of a LiveKit server, without agents and hidden ones."
    );
    metrics::describe_counter!(
        "atoll_livekit_reports_dropped_total",
        Unit::Count,
        "Reports of ended memberships that the task of a LiveKit server had no room for."
    );
}

fn describe_meshes() {
    metrics::describe_gauge!(
        "atoll_director_meshes",
        Unit::Count,
        "Peer-to-peer meshes that this director plans."
    );
    metrics::describe_gauge!("atoll_director_mesh_members", Unit::Count, "Members of these meshes.");
    metrics::describe_gauge!("atoll_director_mesh_links", Unit::Count, "Links of these meshes that are up.");
    metrics::describe_gauge!(
        "atoll_director_mesh_depth",
        Unit::Count,
        "Hops of the longest path of a message in any of these meshes."
    );
    metrics::describe_counter!(
        "atoll_director_mesh_plans_total",
        Unit::Count,
        "Plans of links and routes that were sent to members of peer-to-peer meshes."
    );
    metrics::describe_counter!(
        "atoll_director_mesh_failures_total",
        Unit::Count,
        "Meshes that did not hold their islands, which moved to another transport."
    );
}
