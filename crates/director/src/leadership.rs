//! Whether a director knows the leader.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a director knows the leader: itself or another director. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leadership(Arc<AtomicBool>);

impl Leadership {
    /// `false` before the director has campaigned, while the bus is disconnected, and while the lease can be
    /// neither read nor renewed, as in a NATS cluster without a quorum.
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set_known(&self, known: bool) {
        self.0.store(known, Ordering::Relaxed);
    }
}
