//! Fencing: messages of a director that was deposed are recognized by their epoch and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::envelope::Envelope;

/// The epochs seen on one bus. A message with a lower epoch than the latest comes from a director that does
/// not know yet that it was deposed.
#[derive(Debug, Default)]
pub(crate) struct EpochFence {
    /// The latest epoch in which a director published, or that was read from the lease.
    latest: AtomicU64,
    /// The highest epoch that any participant reported. Later terms get a higher one; otherwise receivers
    /// would take them for earlier terms.
    highest_reported: AtomicU64,
}

/// The highest epoch that is accepted. No realm reaches it; a higher number can only come from a participant
/// that wants to prevent later terms.
const MAX_EPOCH: u64 = 1 << 62;

impl EpochFence {
    /// The latest epoch; 0 if none was seen.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// The epoch that a new term must exceed.
    pub(crate) fn highest_known(&self) -> u64 {
        self.latest().max(self.highest_reported.load(Ordering::Relaxed))
    }

    /// Records an epoch that a participant reported. It raises the epoch of later terms but fences no leader,
    /// because any participant can report one.
    pub(crate) fn observe_reported(&self, epoch: u64) {
        if epoch <= MAX_EPOCH {
            self.highest_reported.fetch_max(epoch, Ordering::Relaxed);
        }
    }

    /// Whether a message may be delivered: not if it is a director's message of a lower epoch than the
    /// latest. Epochs on other subjects are ignored, so that only directors can fence a director.
    pub(crate) fn admits(&self, envelope: &Envelope) -> bool {
        let Some(epoch) = envelope.headers.epoch else { return true };
        !envelope.subject().is_some_and(|subject| subject.is_from_director()) || self.observe(epoch)
    }

    /// Records the epoch of a leader. Returns whether no later one was seen.
    pub(crate) fn observe(&self, epoch: u64) -> bool {
        epoch <= MAX_EPOCH && self.latest.fetch_max(epoch, Ordering::Relaxed) <= epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_rejects_older_and_out_of_range_epochs() {
        let fence = EpochFence::default();
        assert!(fence.observe(7) && fence.observe(7) && fence.observe(9));
        assert!(!fence.observe(8));
        assert!(!fence.observe(u64::MAX));
        assert_eq!(fence.latest(), 9);
        fence.observe_reported(20);
        fence.observe_reported(u64::MAX);
        assert_eq!((fence.latest(), fence.highest_known()), (9, 20));
        assert!(fence.observe(10), "a reported epoch fences no leader");
    }
}
