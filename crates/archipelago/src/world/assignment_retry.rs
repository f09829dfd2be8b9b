//! When to resend assignments to clients that did not receive them, as their heartbeats show.

use std::time::Duration;

use protocol::timing::ASSIGNMENT_ROUND_TRIP;
use rustc_hash::FxHashMap;

use crate::ids::PeerIndex;

/// The peers with heartbeats that report another assignment than their last one, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct AssignmentRetry(FxHashMap<PeerIndex, Mismatch>);

#[derive(Debug, Clone, Copy)]
struct Mismatch {
    /// Since when, or when the assignment was last resent.
    since: Duration,
    /// How long the mismatch may last before the assignment is resent. It doubles each time, so that a client
    /// with a blocked socket does not get ever more messages.
    backoff: Duration,
}

/// The longest time between two resends to a client.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl AssignmentRetry {
    /// Records whether a heartbeat `agrees` with the last assignment. Returns whether the assignment has
    /// to be resent because the heartbeats have not agreed for too long.
    pub(crate) fn observe(&mut self, peer: PeerIndex, agrees: bool, now: Duration) -> bool {
        if agrees {
            self.remove(peer);
            return false;
        }
        let new = Mismatch { since: now, backoff: ASSIGNMENT_ROUND_TRIP };
        let mismatch = self.0.entry(peer).or_insert(new);
        if now <= mismatch.since + mismatch.backoff {
            return false;
        }
        mismatch.since = now;
        mismatch.backoff = (mismatch.backoff * 2).min(MAX_BACKOFF);
        true
    }

    /// This peer is sent a new assignment, which takes time to arrive.
    pub(crate) fn on_assigned(&mut self, peer: PeerIndex, now: Duration) {
        if let Some(mismatch) = self.0.get_mut(&peer) {
            mismatch.since = now;
        }
    }

    /// Forgets a peer.
    pub(crate) fn remove(&mut self, peer: PeerIndex) {
        // The map is empty nearly always.
        if !self.0.is_empty() {
            self.0.remove(&peer);
        }
    }

    /// Forgets all mismatches: while assignments are late, heartbeats prove nothing.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TableIndex;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn mismatch_is_resent_after_a_second_with_backoff() {
        let (mut retry, peer) = (AssignmentRetry::default(), PeerIndex::new(1));
        assert!(!retry.observe(peer, false, seconds(5.0)));
        assert!(!retry.observe(peer, false, seconds(6.0)), "not for longer than a second yet");
        assert!(retry.observe(peer, false, seconds(6.1)));
        assert!(!retry.observe(peer, false, seconds(8.0)));
        assert!(retry.observe(peer, false, seconds(8.2)), "again after two seconds");
        assert!(!retry.observe(peer, true, seconds(9.0)));
        assert!(!retry.observe(peer, false, seconds(9.5)), "a matching heartbeat resets the wait");
        assert!(retry.observe(peer, false, seconds(10.6)), "the wait is as short as at first");
    }

    #[test]
    fn recent_assignment_restarts_the_wait() {
        let (mut retry, peer) = (AssignmentRetry::default(), PeerIndex::new(1));
        assert!(!retry.observe(peer, false, seconds(5.0)));
        retry.on_assigned(peer, seconds(6.0));
        assert!(!retry.observe(peer, false, seconds(6.9)));
        assert!(retry.observe(peer, false, seconds(7.1)));
    }
}
