use std::sync::atomic::{AtomicU64, Ordering};

/// Of which terms of directors messages came: what is said in an earlier one than the latest that
/// was heard of, a director says that does not know yet that it was deposed.
#[derive(Debug, Default)]
pub(crate) struct Epochs(AtomicU64);

impl Epochs {
    /// The latest; 0 where none was heard of.
    pub(crate) fn latest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Hears of one. Whether it is the latest.
    pub(crate) fn observe(&self, epoch: u64) -> bool {
        self.0.fetch_max(epoch, Ordering::Relaxed) <= epoch
    }
}
