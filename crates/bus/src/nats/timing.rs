//! Durations of this bus that must hold together. The assertions state the relations.

use std::time::Duration;

use protocol::timing::RESIGN_TIMEOUT;

/// The longest delay between two attempts to reconnect.
pub(super) const MAX_RECONNECT_BACKOFF: Duration = Duration::from_secs(1);
/// How long after a reconnect nothing is published. Other processes that also lost the connection should have
/// reconnected by then, so that they receive the buffered messages.
pub(super) const RECONNECT_GRACE: Duration = Duration::from_millis(1_500);
/// How often the writer task checks the state of the connection, also while the client library accepts no
/// message.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait of the writer task for the connection to be flushed.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the entry of a leader lasts without being renewed.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(2);
/// How much earlier the leader considers its lease expired: the clocks of servers differ.
pub(super) const LEASE_SAFETY_MARGIN: Duration = Duration::from_millis(250);
/// How often the leader renews the lease: if one write times out, the next is still in time.
pub(super) const LEASE_RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// The delay of a leader after a request that timed out, or a write conflict.
pub(super) const LEASE_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// The longest time for one request to the server.
pub(super) const LEASE_CALL_TIMEOUT: Duration = Duration::from_millis(400);

const _: () = {
    assert!(
        RECONNECT_GRACE.as_millis() > MAX_RECONNECT_BACKOFF.as_millis(),
        "all processes reconnect before one of them publishes"
    );
    let call = LEASE_CALL_TIMEOUT.as_millis();
    // After a write that timed out, the leader reads the key before it writes again.
    let second_write = LEASE_RENEW_INTERVAL.as_millis() + call + LEASE_RETRY_INTERVAL.as_millis() + call;
    assert!(
        second_write + call <= LEASE_TTL.as_millis() - LEASE_SAFETY_MARGIN.as_millis(),
        "if one write times out, the next is still in time"
    );
    // A resignation flushes the last decisions, reads the key and deletes it. After the flush it may also
    // wait for a poll of the lease that is in flight, which this sum leaves out. In the worst case the process
    // then stops before it has released the lease, and the lease expires after its TTL.
    assert!(
        FLUSH_TIMEOUT.as_millis() + 2 * call <= RESIGN_TIMEOUT.as_millis(),
        "a leader with no request in flight can resign"
    );
};
