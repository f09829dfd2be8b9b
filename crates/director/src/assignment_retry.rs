//! Clients that were not told what they should have been, as their heartbeats say.

use std::{collections::HashMap, time::Duration};

use protocol::Address;

use crate::standby::ASSIGNMENT_ROUND_TRIP;

/// Whose heartbeats disagree with what the director last told them, and since when. Times are the
/// engine's.
#[derive(Debug, Default)]
pub(crate) struct AssignmentRetry(HashMap<Address, Mismatch>);

#[derive(Debug, Clone, Copy)]
struct Mismatch {
    /// Since when, or when it was last told again.
    since: Duration,
    /// How long it may last before it is told again: longer each time, for a client whose socket
    /// takes nothing would otherwise be told ever more.
    backoff: Duration,
}

const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl AssignmentRetry {
    /// A heartbeat says whether it `agrees`. Gives whether it has not for so long that its client is
    /// to be told again.
    pub(crate) fn observe(&mut self, peer: Address, agrees: bool, now: Duration) -> bool {
        if agrees {
            // Hardly anybody is in it, ever.
            if !self.0.is_empty() {
                self.0.remove(&peer);
            }
            return false;
        }
        let new = Mismatch { since: now, backoff: ASSIGNMENT_ROUND_TRIP };
        let disagreement = self.0.entry(peer).or_insert(new);
        if now <= disagreement.since + disagreement.backoff {
            return false;
        }
        disagreement.since = now;
        disagreement.backoff = (disagreement.backoff * 2).min(MAX_BACKOFF);
        true
    }

    /// This client is told something just now, which takes its time.
    pub(crate) fn on_assigned(&mut self, peer: Address, now: Duration) {
        if self.0.is_empty() {
            return;
        }
        if let Some(disagreement) = self.0.get_mut(&peer) {
            disagreement.since = now;
        }
    }

    /// Forgets those who are not there any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(Address) -> bool) {
        self.0.retain(|&peer, _| is_there(peer));
    }

    /// Everything that is told is late: what heartbeats say means nothing.
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
        let (mut dissent, peer) = (AssignmentRetry::default(), Address::new([1; 20]));
        assert!(!dissent.observe(peer, false, seconds(5.0)));
        assert!(!dissent.observe(peer, false, seconds(6.0)), "not for longer than a second yet");
        assert!(dissent.observe(peer, false, seconds(6.1)));
        assert!(!dissent.observe(peer, false, seconds(8.0)));
        assert!(dissent.observe(peer, false, seconds(8.2)), "again after two seconds");
        assert!(!dissent.observe(peer, true, seconds(9.0)));
        assert!(!dissent.observe(peer, false, seconds(9.5)), "it agreed meanwhile");
        assert!(dissent.observe(peer, false, seconds(10.6)), "and is waited for no longer than at first");
    }

    #[test]
    fn recent_assignment_restarts_the_wait() {
        let (mut dissent, peer) = (AssignmentRetry::default(), Address::new([1; 20]));
        assert!(!dissent.observe(peer, false, seconds(5.0)));
        dissent.on_assigned(peer, seconds(6.0));
        assert!(!dissent.observe(peer, false, seconds(6.9)));
        assert!(dissent.observe(peer, false, seconds(7.1)));
    }
}
