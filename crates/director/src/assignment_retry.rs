//! Resends assignments to clients that did not receive them, as their heartbeats show.

use std::{collections::HashMap, time::Duration};

use protocol::Address;

use crate::standby::ASSIGNMENT_ROUND_TRIP;

/// The peers with heartbeats that differ from their last assignment, and since when. Times are the engine's.
#[derive(Debug, Default)]
pub(crate) struct AssignmentRetry(HashMap<Address, Mismatch>);

#[derive(Debug, Clone, Copy)]
struct Mismatch {
    /// Since when, or when the assignment was last resent.
    since: Duration,
    /// How long the mismatch may last before the assignment is resent. It doubles each time, so that a client
    /// with a blocked socket does not get ever more messages.
    backoff: Duration,
}

const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl AssignmentRetry {
    /// Records whether a heartbeat `agrees` with the last assignment. Returns whether the assignment has to
    /// be resent because it did not for too long.
    pub(crate) fn observe(&mut self, peer: Address, agrees: bool, now: Duration) -> bool {
        if agrees {
            // The map is empty nearly always.
            if !self.0.is_empty() {
                self.0.remove(&peer);
            }
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
    pub(crate) fn on_assigned(&mut self, peer: Address, now: Duration) {
        if self.0.is_empty() {
            return;
        }
        if let Some(mismatch) = self.0.get_mut(&peer) {
            mismatch.since = now;
        }
    }

    /// Forgets peers that are gone.
    pub(crate) fn retain(&mut self, is_present: impl Fn(Address) -> bool) {
        self.0.retain(|&peer, _| is_present(peer));
    }

    /// Forgets all mismatches: while assignments are late, heartbeats prove nothing.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn mismatch_is_resent_after_a_second_with_backoff() {
        let (mut retry, peer) = (AssignmentRetry::default(), Address::new([1; 20]));
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
        let (mut retry, peer) = (AssignmentRetry::default(), Address::new([1; 20]));
        assert!(!retry.observe(peer, false, seconds(5.0)));
        retry.on_assigned(peer, seconds(6.0));
        assert!(!retry.observe(peer, false, seconds(6.9)));
        assert!(retry.observe(peer, false, seconds(7.1)));
    }
}
