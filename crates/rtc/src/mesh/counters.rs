//! Counters of a mesh peer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Counts since the start of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were dropped because they had arrived before.
    pub duplicates: u64,
    /// Packets that were dropped because they arrived from another neighbour than their tree names, or belong to a
    /// plan that is older than the kept ones.
    pub refused_packets: u64,
    /// Packets that could not be decoded.
    pub malformed: u64,
    /// Messages for a link that were dropped: its queue was full, or it was down.
    pub link_dropped: u64,
    /// Links that were closed because their queue of reliable packets overflowed or made no progress for 5 s.
    pub overflows: u64,
    /// Received messages that were dropped because events were not read fast enough.
    pub undelivered: u64,
    /// Own messages that were not sent through the gateway because of the rate limit, and signals and reports that
    /// were not read fast enough.
    pub output_dropped: u64,
    /// Signals that were refused: of members that the plan does not link, of old negotiations, or above a limit.
    pub refused_signals: u64,
    /// Plans that were refused: of another island, malformed, or older than the newest.
    pub refused_plans: u64,
    /// Neighbours that were cut off.
    pub cut_off: u64,
    /// Attempts to link that failed, and links that were lost.
    pub failed_attempts: u64,
    /// ICE restarts that this peer began.
    pub restarts: u64,
}

/// The counters while the peer runs.
#[derive(Debug, Default)]
pub(crate) struct LiveCounters {
    pub(crate) duplicates: AtomicU64,
    pub(crate) refused_packets: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) link_dropped: AtomicU64,
    pub(crate) overflows: AtomicU64,
    /// Shared with the readers of lossy channels.
    pub(crate) undelivered: Arc<AtomicU64>,
    pub(crate) output_dropped: AtomicU64,
    pub(crate) refused_signals: AtomicU64,
    pub(crate) refused_plans: AtomicU64,
    pub(crate) cut_off: AtomicU64,
    pub(crate) failed_attempts: AtomicU64,
    pub(crate) restarts: AtomicU64,
}

/// Adds 1 to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl LiveCounters {
    pub(crate) fn snapshot(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Counters {
            duplicates: read(&self.duplicates),
            refused_packets: read(&self.refused_packets),
            malformed: read(&self.malformed),
            link_dropped: read(&self.link_dropped),
            overflows: read(&self.overflows),
            undelivered: read(&self.undelivered),
            output_dropped: read(&self.output_dropped),
            refused_signals: read(&self.refused_signals),
            refused_plans: read(&self.refused_plans),
            cut_off: read(&self.cut_off),
            failed_attempts: read(&self.failed_attempts),
            restarts: read(&self.restarts),
        }
    }
}
