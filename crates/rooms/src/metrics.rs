//! The metrics of the room nodes.

use metrics::{Counter, Gauge, Unit, describe_counter, describe_gauge};

/// The counters of the message path, looked up once and not for each message.
pub(crate) struct MessageCounters {
    pub(crate) in_messages: Counter,
    pub(crate) in_bytes: Counter,
    pub(crate) out_messages: Counter,
    pub(crate) out_bytes: Counter,
    pub(crate) unknown_messages: Counter,
    pub(crate) ingress_dropped: Counter,
}

impl MessageCounters {
    pub(crate) fn new() -> Self {
        Self {
            in_messages: in_messages(),
            in_bytes: in_bytes(),
            out_messages: out_messages(),
            out_bytes: out_bytes(),
            unknown_messages: unknown_messages(),
            ingress_dropped: ingress_dropped(),
        }
    }
}

/// Messages received from members.
fn in_messages() -> Counter {
    metrics::counter!("dcl_ws_rooms_in_messages")
}

/// Bytes of messages received from members.
fn in_bytes() -> Counter {
    metrics::counter!("dcl_ws_rooms_in_bytes")
}

/// Messages of other members that were written to members.
fn out_messages() -> Counter {
    metrics::counter!("dcl_ws_rooms_out_messages")
}

/// Bytes written to members, with frame headers and control frames.
fn out_bytes() -> Counter {
    metrics::counter!("dcl_ws_rooms_out_bytes")
}

/// Messages from members other than updates.
fn unknown_messages() -> Counter {
    metrics::counter!("dcl_ws_rooms_unknown_sent_messages_total")
}

/// Unreliable updates dropped because their sender was above its rate.
fn ingress_dropped() -> Counter {
    metrics::counter!("atoll_rooms_ingress_dropped_total")
}

/// Unreliable messages dropped because the egress budget of `scope` was spent.
pub(crate) fn egress_dropped(scope: &'static str) -> Counter {
    metrics::counter!("atoll_rooms_egress_dropped_total", "scope" => scope)
}

/// Batches queued without their unreliable messages, because the reader is slow.
pub(crate) fn batches_cut() -> Counter {
    metrics::counter!("atoll_rooms_batches_cut_total")
}

/// Upgraded sockets.
pub(crate) fn connections() -> Counter {
    metrics::counter!("dcl_ws_rooms_connections_total")
}

/// Sockets that the node closed or rejected with this close code.
pub(crate) fn closed(code: u16) -> Counter {
    metrics::counter!("atoll_rooms_closed_total", "code" => code.to_string())
}

/// Members kicked because their wallet entered the room again.
pub(crate) fn kicks() -> Counter {
    metrics::counter!("dcl_ws_rooms_kicks_total")
}

/// Ended memberships that were ignored because their ULID is invalid or far in the future.
pub(crate) fn ends_refused() -> Counter {
    metrics::counter!("atoll_rooms_ends_refused_total")
}

/// Announcements of another process under the name of this node.
pub(crate) fn name_taken() -> Counter {
    metrics::counter!("atoll_rooms_name_taken_total")
}

/// Rooms with members.
pub(crate) fn rooms() -> Gauge {
    metrics::gauge!("dcl_ws_rooms_count")
}

/// Members of all rooms.
pub(crate) fn members() -> Gauge {
    metrics::gauge!("dcl_ws_rooms_connections")
}

/// Open sockets: during the handshake, in a room, or while closing.
pub(crate) fn sockets() -> Gauge {
    metrics::gauge!("atoll_rooms_sockets")
}

/// Bytes of message slabs that are still referenced, by queues or by writes in progress.
pub(crate) fn slab_bytes() -> Gauge {
    metrics::gauge!("atoll_rooms_slab_bytes")
}

/// Describes the metrics of this crate to the recorder of the process.
pub fn describe_metrics() {
    describe_messages();
    describe_members();
}

fn describe_messages() {
    describe_counter!("dcl_ws_rooms_in_messages", Unit::Count, "Messages received from members of rooms.");
    describe_counter!(
        "dcl_ws_rooms_in_bytes",
        Unit::Bytes,
        "Bytes of messages received from members of rooms."
    );
    describe_counter!(
        "dcl_ws_rooms_out_messages",
        Unit::Count,
        "Messages of other members that were written to members of rooms."
    );
    describe_counter!(
        "dcl_ws_rooms_out_bytes",
        Unit::Bytes,
        "Bytes written to members of rooms, with frame headers and control frames."
    );
    describe_counter!(
        "dcl_ws_rooms_unknown_sent_messages_total",
        Unit::Count,
        "Messages from members other than updates."
    );
    describe_counter!(
        "atoll_rooms_ingress_dropped_total",
        Unit::Count,
        "Unreliable updates dropped because their sender was above its rate."
    );
    describe_counter!(
        "atoll_rooms_egress_dropped_total",
        Unit::Count,
        "Unreliable messages dropped because the egress budget of the room or the node was spent."
    );
    describe_counter!(
        "atoll_rooms_batches_cut_total",
        Unit::Count,
        "Batches queued without their unreliable messages, because the reader is slow."
    );
    describe_gauge!(
        "atoll_rooms_slab_bytes",
        Unit::Bytes,
        "Bytes of message slabs that are still referenced, by queues or by writes in progress."
    );
}

fn describe_members() {
    describe_counter!("dcl_ws_rooms_connections_total", Unit::Count, "Sockets opened to rooms.");
    describe_counter!(
        "atoll_rooms_closed_total",
        Unit::Count,
        "Sockets that a room node closed or rejected, by close code."
    );
    describe_counter!(
        "dcl_ws_rooms_kicks_total",
        Unit::Count,
        "Members kicked because their wallet entered the room again."
    );
    describe_counter!(
        "atoll_rooms_ends_refused_total",
        Unit::Count,
        "Ended memberships ignored because their ULID is invalid or far in the future."
    );
    describe_counter!(
        "atoll_rooms_name_taken_total",
        Unit::Count,
        "Announcements of another process under the name of a node of this process."
    );
    describe_gauge!("dcl_ws_rooms_count", Unit::Count, "Rooms with members.");
    describe_gauge!("dcl_ws_rooms_connections", Unit::Count, "Members of all rooms.");
    describe_gauge!(
        "atoll_rooms_sockets",
        Unit::Count,
        "Open sockets of room nodes: during the handshake, in a room, or while closing."
    );
}
