//! When bots received each other.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// When each bot last received a message of each other bot, in milliseconds since the start.
pub(crate) struct ReceiptTimes {
    count: usize,
    at: Vec<AtomicU32>,
}

/// Above so many bots the pairs are not tracked: the matrix has 4 bytes a pair (16 MB at this bound).
pub(crate) const MAX_PAIRWISE_BOTS: usize = 2_000;

impl ReceiptTimes {
    pub(crate) fn new(count: usize) -> Self {
        let watched = if count <= MAX_PAIRWISE_BOTS { count } else { 0 };
        Self {
            count: watched,
            at: std::iter::repeat_with(AtomicU32::default).take(watched * watched).collect(),
        }
    }

    pub(crate) fn set(&self, bot: usize, sender: usize, at_ms: u32) {
        if let Some(cell) = self.at.get(bot * self.count + sender) {
            cell.store(at_ms.max(1), Relaxed);
        }
    }

    /// `None`: never, or pairs are not tracked.
    pub(crate) fn last(&self, bot: usize, sender: usize) -> Option<u32> {
        self.at.get(bot * self.count + sender).map(|cell| cell.load(Relaxed)).filter(|&at| at > 0)
    }
}
