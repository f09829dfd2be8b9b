use std::sync::atomic::{AtomicU64, Ordering};

use protocol::Subject;

use crate::Envelope;

/// Of which terms of directors messages came: what is said in an earlier one than the latest that
/// was heard of, a director says that does not know yet that it was deposed.
#[derive(Debug, Default)]
pub(crate) struct EpochFence {
    /// The latest in which a director said something.
    latest: AtomicU64,
    /// The greatest that anybody has heard of: later terms have a greater one, so that nobody takes
    /// them for earlier ones.
    highest_reported: AtomicU64,
}

/// No realm lives to see more terms. A greater number is somebody's who would have it that there can be
/// none after it.
const MAX_EPOCH: u64 = 1 << 62;

impl EpochFence {
    /// The latest; 0 where none was heard of.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// What a term that begins has to be greater than.
    pub(crate) fn highest_known(&self) -> u64 {
        self.latest().max(self.highest_reported.load(Ordering::Relaxed))
    }

    /// Hears that somebody heard of one, whoever that is: it deposes nobody.
    pub(crate) fn observe_reported(&self, epoch: u64) {
        if epoch <= MAX_EPOCH {
            self.highest_reported.fetch_max(epoch, Ordering::Relaxed);
        }
    }

    /// Whether a message is to be heard: not if a director says it that was deposed. What others say in
    /// some epoch deposes nobody.
    pub(crate) fn admits(&self, envelope: &Envelope) -> bool {
        let Some(epoch) = envelope.headers.epoch else { return true };
        !envelope.subject().is_some_and(|subject| is_director_subject(&subject)) || self.observe(epoch)
    }

    /// Hears of one. Whether it is the latest.
    pub(crate) fn observe(&self, epoch: u64) -> bool {
        epoch <= MAX_EPOCH && self.latest.fetch_max(epoch, Ordering::Relaxed) <= epoch
    }
}

/// Whether directors alone say such things.
fn is_director_subject(subject: &Subject) -> bool {
    match subject {
        Subject::PeerIslandChanged(_)
        | Subject::IslandPeerJoin(_)
        | Subject::IslandPeerLeft(_)
        | Subject::EngineIslands
        | Subject::EngineDiscovery
        | Subject::MembershipEnded(_) => true,
        Subject::PeerConnect(_)
        | Subject::PeerHeartbeat(_)
        | Subject::PeerDisconnect(_)
        | Subject::PeerClusterChange(_)
        | Subject::PeerTopic(..)
        | Subject::SystemTopic(_)
        | Subject::SceneTopic(_)
        | Subject::TransportAnnounce(_)
        | Subject::PeersWanted => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_rejects_older_and_out_of_range_epochs() {
        let epochs = EpochFence::default();
        assert!(epochs.observe(7) && epochs.observe(7) && epochs.observe(9));
        assert!(!epochs.observe(8));
        assert!(!epochs.observe(u64::MAX));
        assert_eq!(epochs.latest(), 9);
        epochs.observe_reported(20);
        epochs.observe_reported(u64::MAX);
        assert_eq!((epochs.latest(), epochs.highest_known()), (9, 20));
        assert!(epochs.observe(10), "it deposes nobody");
    }
}
