//! Durations that must hold together across crates and processes: an interval at which one role repeats a
//! message, and the timeout after which another role treats its sender as gone. The assertions below each group
//! state the relations.
//!
//! A duration that names a setting is the default of that setting. All other durations are fixed.
//!
//! The binary checks three of the relations for the configured values too. `config/cross_checks.rs` checks
//! `gateway.vouch_interval_s` against `islands.silence_s`, and `islands.report_interval_ms` against
//! `stats.report_timeout_s`. `config/islands.rs` limits `islands.discovery_interval_s`. The other relations
//! are not checked for configured values.

use std::time::Duration;

// Nodes.

/// The interval at which a transport node is announced: by room nodes themselves, by the director for the
/// nodes of its configuration. A probed LiveKit server is announced by each report of its probe.
pub const NODE_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// A node without an announcement for this long is gone: the director moves its islands
/// (`islands.transport_timeout_s`), and the gateway sends no signed login to it.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// A room node that starts listens for this long. If no other process announces its name meanwhile, the name
/// is free.
pub const NODE_NAME_QUIET_PERIOD: Duration = Duration::from_millis(1_500);

const _: () = {
    let announce = NODE_ANNOUNCE_INTERVAL.as_millis();
    assert!(NODE_TIMEOUT.as_millis() >= 3 * announce, "two lost announcements must not remove a node");
    assert!(
        NODE_NAME_QUIET_PERIOD.as_millis() > announce,
        "a running node announces itself while one starts"
    );
};

// Directors.

/// The interval at which a director announces itself (`islands.discovery_interval_s`). Also the longest that
/// the setting may be, because receivers know only their own timeout.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);
/// A director without an announcement for this long is gone: `/about` reports comms as unhealthy, and
/// `/core-status` reports `healthy: false`. If `stats.report_timeout_s` is longer, `/core-status` reports it
/// only after that time.
pub const DIRECTOR_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval at which the director reports all islands (`islands.report_interval_ms`).
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Presence does not show a report that is older than this (`stats.report_timeout_s`).
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = {
    let discovery = DISCOVERY_INTERVAL.as_millis();
    assert!(
        DIRECTOR_TIMEOUT.as_millis() >= 3 * discovery,
        "two lost announcements must not remove a director"
    );
    assert!(
        REPORT_TIMEOUT.as_millis() > REPORT_INTERVAL.as_millis(),
        "islands must not vanish between reports"
    );
};

// A component that starts, or that reconnected, publishes `atoll.peers.wanted` and collects the answers.

/// Each gateway spreads its answers to `atoll.peers.wanted`, a heartbeat of each client, over this time.
pub const REPUBLISH_SPREAD: Duration = Duration::from_secs(1);
/// A director collects the answers for this long before it campaigns for the lease. A leader that campaigned
/// earlier would decide without some of the peers.
pub const LISTEN_TIME: Duration = Duration::from_millis(1_500);
/// A sign-in at a gateway that is collecting the answers waits for this long at most. A session that was not
/// reported by then cannot be resumed.
pub const RESYNC_ANSWER_WINDOW: Duration = Duration::from_millis(1_200);
/// A gateway collects the answers for this long.
pub const RESYNC_DURATION: Duration = Duration::from_secs(2);

const _: () = {
    let spread = REPUBLISH_SPREAD.as_millis();
    assert!(LISTEN_TIME.as_millis() > spread, "a new leader knows all peers");
    assert!(RESYNC_ANSWER_WINDOW.as_millis() > spread, "a sign-in waits until all gateways have answered");
    assert!(
        RESYNC_DURATION.as_millis() >= RESYNC_ANSWER_WINDOW.as_millis(),
        "a gateway collects answers for as long as a sign-in waits for them"
    );
};

// Peers.

/// The interval at which the client SDK repeats its heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// The interval at which a gateway repeats the last position of a quiet client (`gateway.vouch_interval_s`).
pub const REPUBLISH_INTERVAL: Duration = Duration::from_secs(5);
/// A gateway repeats the position until this long after the client's last heartbeat (`gateway.vouch_for_s`).
pub const REPUBLISH_FOR: Duration = Duration::from_secs(120);
/// The director removes a peer without a message for this long from its island (`islands.silence_s`).
pub const SILENCE: Duration = Duration::from_secs(15);
/// Presence does not show a peer without a message for this long (`stats.peer_timeout_s`).
pub const PRESENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time from an assignment being published to a heartbeat that contains it: until then a heartbeat
/// may contain the previous assignment. A later heartbeat that does shows that the assignment was lost, and
/// the director resends it.
pub const ASSIGNMENT_ROUND_TRIP: Duration = Duration::from_secs(1);
/// A gateway or room node pings a client that sent nothing for this long, and closes it after three such
/// intervals (`gateway.ping_interval_s`, `rooms.ping_interval_s`).
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A session without a heartbeat for this long ends (`gateway.idle_timeout_s`).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A new leader removes no participant from a LiveKit room for this long: it may not know all peers yet.
pub const TAKEOVER_SETTLING: Duration = Duration::from_secs(10);

const _: () = {
    let republish = REPUBLISH_INTERVAL.as_millis();
    assert!(
        TAKEOVER_SETTLING.as_millis() >= 2 * republish,
        "a new leader knows all peers before it removes one"
    );
    // A repetition may be late by a whole interval.
    assert!(SILENCE.as_millis() >= 2 * republish, "quiet clients must stay in their islands");
    assert!(PRESENCE_TIMEOUT.as_millis() >= SILENCE.as_millis(), "presence shows every member of an island");
    assert!(ASSIGNMENT_ROUND_TRIP.as_millis() < republish, "one repetition after a lost assignment shows it");
    let heartbeat = HEARTBEAT_INTERVAL.as_millis();
    assert!(IDLE_TIMEOUT.as_millis() > 3 * heartbeat, "two lost heartbeats must not end a session");
    assert!(
        REPUBLISH_FOR.as_millis() >= IDLE_TIMEOUT.as_millis(),
        "a gateway repeats the position of a quiet client until its session ends"
    );
    assert!(
        IDLE_TIMEOUT.as_millis() > 3 * PING_INTERVAL.as_millis(),
        "unanswered pings close a lost connection before its session ends as idle"
    );
};

// Moves between rooms, and returns.

/// A client SDK stays in its old room for this long after the new one has admitted it.
pub const ROOM_OVERLAP: Duration = Duration::from_secs(2);
/// A room node closes the socket of a peer this long after it left the island (`rooms.grace_s`).
pub const ROOM_GRACE: Duration = Duration::from_secs(10);
/// An island stays on its node for this long after a move, unless another move is required
/// (`islands.move_interval_s`).
pub const MOVE_INTERVAL: Duration = Duration::from_secs(10);
/// A gateway keeps a session resumable for this long after its end. A later resumption keeps no room
/// connection, which is harmless.
pub const RESUMABLE_FOR: Duration = Duration::from_secs(60);
/// The longest backoff of the client SDK before it reconnects.
pub const RECONNECT_BACKOFF: Duration = Duration::from_secs(10);
/// The director reserves the place of a disconnected peer in its island for this long, and the id of an empty
/// island (`islands.return_window_s`).
pub const RETURN_WINDOW: Duration = Duration::from_secs(10);
/// The validity of a token for a room (`rooms.token_ttl_s`, `livekit.<node>.token_ttl_s`).
pub const TOKEN_TTL: Duration = Duration::from_secs(300);
/// A client SDK takes a token that is refused this long after its assignment for an expired one, and signs in
/// again: the gateway may never send another assignment by itself. A token that is refused sooner was replaced
/// by an assignment that is in flight.
pub const TOKEN_EXPIRED_AFTER: Duration = Duration::from_secs(60);

const _: () = {
    let grace = ROOM_GRACE.as_millis();
    assert!(ROOM_OVERLAP.as_millis() < grace, "the client leaves its old room before the room closes it");
    assert!(MOVE_INTERVAL.as_millis() >= grace, "a peer is in two rooms at most");
    assert!(RESUMABLE_FOR.as_millis() >= grace, "room sockets outlive their session by the grace");
    assert!(RETURN_WINDOW.as_millis() >= RECONNECT_BACKOFF.as_millis(), "a peer returns to its island");
    assert!(
        TOKEN_TTL.as_millis() >= TOKEN_EXPIRED_AFTER.as_millis(),
        "a client treats every expired token as expired"
    );
};

// Shutdown.

/// At its end a director may take this long to publish its last decisions and to release the lease. The bus
/// states how long its part takes.
pub const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);
