//! The metrics of the gateway: for each one a function with its name and labels, and its description.

use metrics::{Counter, Gauge, Unit, describe_counter, describe_gauge};
use protocol::Close;

/// Sessions of this gateway.
pub(crate) fn connected_users() -> Gauge {
    metrics::gauge!("explorer_bff_connected_users")
}

/// Open sockets.
pub(crate) fn sockets() -> Gauge {
    metrics::gauge!("atoll_gateway_sockets")
}

/// Topic subscriptions of all sessions.
pub(crate) fn topic_subscriptions() -> Gauge {
    metrics::gauge!("atoll_gateway_topic_subscriptions")
}

/// Handshakes in progress.
pub(crate) fn signing_in() -> Gauge {
    metrics::gauge!("atoll_gateway_signing_in")
}

/// Whether new users are accepted: 1 or 0.
pub(crate) fn accepting() -> Gauge {
    metrics::gauge!("atoll_gateway_accepting")
}

/// Heartbeats published on the bus.
pub(crate) fn heartbeats() -> Counter {
    metrics::counter!("atoll_gateway_heartbeats_total")
}

/// Heartbeats with an invalid position.
pub(crate) fn heartbeats_refused(reason: &'static str) -> Counter {
    metrics::counter!("atoll_gateway_heartbeats_refused_total", "reason" => reason)
}

/// Messages that clients published under topics.
pub(crate) fn topic_messages() -> Counter {
    metrics::counter!("atoll_gateway_topic_messages_total")
}

/// Deliveries of topic messages to subscriptions.
pub(crate) fn topic_deliveries() -> Counter {
    metrics::counter!("atoll_gateway_topic_deliveries_total")
}

/// Topic messages that were dropped because a queue was full.
pub(crate) fn topic_messages_dropped() -> Counter {
    metrics::counter!("atoll_gateway_topic_messages_dropped_total")
}

/// Sockets that the gateway closed with this code.
pub(crate) fn closed(close: Close) -> Counter {
    metrics::counter!("atoll_gateway_closed_total", "code" => close.code().to_string())
}

/// Invalid lists of transports in requests to sign in.
pub(crate) fn transports_refused() -> Counter {
    metrics::counter!("atoll_gateway_transports_refused_total")
}

/// Sessions that ended because an island change found their queue full.
pub(crate) fn slow_sessions() -> Counter {
    metrics::counter!("atoll_gateway_slow_sessions_total")
}

/// Member changes that were dropped because a session's queue was full.
pub(crate) fn member_changes_dropped() -> Counter {
    metrics::counter!("atoll_gateway_member_changes_dropped_total")
}

/// Sessions that a newer session of their wallet replaced.
pub(crate) fn kicks() -> Counter {
    metrics::counter!("atoll_gateway_kicks_total")
}

/// Whether a service of the realm is healthy: 1 or 0.
pub(crate) fn realm_service_healthy(service: &'static str) -> Gauge {
    metrics::gauge!("atoll_realm_service_healthy", "service" => service)
}

/// Signed logins, by their outcome.
pub(crate) fn logins(outcome: &'static str) -> Counter {
    metrics::counter!("atoll_gateway_logins_total", "outcome" => outcome)
}

/// Signed logins that name another realm.
pub(crate) fn logins_for_other_realms(action: &'static str) -> Counter {
    metrics::counter!("atoll_gateway_logins_for_other_realms_total", "action" => action)
}

/// Signals between members of meshes that were forwarded, by their kind.
pub(crate) fn mesh_signals(kind: &'static str) -> Counter {
    metrics::counter!("atoll_gateway_mesh_signals_total", "kind" => kind)
}

/// Signals between members of meshes that were not forwarded, by the reason.
pub(crate) fn mesh_signals_refused(reason: &'static str) -> Counter {
    metrics::counter!("atoll_gateway_mesh_signals_refused_total", "reason" => reason)
}

/// Messages about meshes that were dropped because a session's queue was full.
pub(crate) fn mesh_messages_dropped() -> Counter {
    metrics::counter!("atoll_gateway_mesh_messages_dropped_total")
}

/// Requests and connections of the signalling proxy in progress.
pub(crate) fn livekit_proxy_connections() -> Gauge {
    metrics::gauge!("atoll_gateway_livekit_proxy_connections")
}

/// Requests that the signalling proxy refused, by the reason.
pub(crate) fn livekit_proxy_refusals(reason: &'static str) -> Counter {
    metrics::counter!("atoll_gateway_livekit_proxy_refusals_total", "reason" => reason)
}

/// Registers the unit and the description of each metric of the gateway.
pub fn describe_metrics() {
    describe_sessions();
    describe_topics();
    describe_realm();
    describe_livekit_proxy();
    describe_meshes();
}

fn describe_sessions() {
    describe_gauge!("explorer_bff_connected_users", Unit::Count, "Sessions of this gateway.");
    describe_gauge!(
        "atoll_gateway_sockets",
        Unit::Count,
        "Open sockets: signed in, in the handshake or in the closing handshake."
    );
    describe_gauge!("atoll_gateway_signing_in", Unit::Count, "Handshakes in progress.");
    describe_counter!("atoll_gateway_heartbeats_total", Unit::Count, "Heartbeats published on the bus.");
    describe_counter!(
        "atoll_gateway_heartbeats_refused_total",
        Unit::Count,
        "Heartbeats with an invalid position, by the reason."
    );
    describe_counter!(
        "atoll_gateway_closed_total",
        Unit::Count,
        "Sockets that the gateway closed, by the close code."
    );
    describe_counter!(
        "atoll_gateway_transports_refused_total",
        Unit::Count,
        "Invalid lists of transports in requests to sign in."
    );
    describe_counter!(
        "atoll_gateway_slow_sessions_total",
        Unit::Count,
        "Sessions that ended because an island change found their queue full."
    );
    describe_counter!(
        "atoll_gateway_member_changes_dropped_total",
        Unit::Count,
        "Notices of joining and leaving members that were dropped because a session's queue was full."
    );
    describe_counter!(
        "atoll_gateway_kicks_total",
        Unit::Count,
        "Sessions that a newer session of their wallet replaced."
    );
}

fn describe_livekit_proxy() {
    describe_gauge!(
        "atoll_gateway_livekit_proxy_connections",
        Unit::Count,
        "Requests and connections of LiveKit clients through the signalling proxy, in progress."
    );
    describe_counter!(
        "atoll_gateway_livekit_proxy_refusals_total",
        Unit::Count,
        "Requests that the signalling proxy for LiveKit refused, by the reason."
    );
}

fn describe_meshes() {
    describe_counter!(
        "atoll_gateway_mesh_signals_total",
        Unit::Count,
        "Signals between members of meshes that were forwarded, by their kind."
    );
    describe_counter!(
        "atoll_gateway_mesh_signals_refused_total",
        Unit::Count,
        "Signals between members of meshes that were not forwarded, by the reason."
    );
    describe_counter!(
        "atoll_gateway_mesh_messages_dropped_total",
        Unit::Count,
        "Signals, plans and ICE servers that were dropped because a session's queue was full."
    );
}

fn describe_topics() {
    describe_gauge!("atoll_gateway_topic_subscriptions", Unit::Count, "Topic subscriptions of all sessions.");
    describe_counter!(
        "atoll_gateway_topic_messages_total",
        Unit::Count,
        "Messages that clients published under topics."
    );
    describe_counter!(
        "atoll_gateway_topic_deliveries_total",
        Unit::Count,
        "Deliveries of topic messages to subscriptions."
    );
    describe_counter!(
        "atoll_gateway_topic_messages_dropped_total",
        Unit::Count,
        "Topic messages that were dropped because a subscription's queue was full."
    );
}

fn describe_realm() {
    describe_gauge!("atoll_gateway_accepting", Unit::Count, "Whether the realm accepts new users: 1 or 0.");
    describe_gauge!(
        "atoll_realm_service_healthy",
        Unit::Count,
        "Whether a service of the realm is healthy: 1 or 0, by the service."
    );
    describe_counter!("atoll_gateway_logins_total", Unit::Count, "Signed logins, by their outcome.");
    describe_counter!(
        "atoll_gateway_logins_for_other_realms_total",
        Unit::Count,
        "Signed logins that name another realm, by the action: refused or logged."
    );
}
