//! Whether a director knows which director leads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a director knows which director leads: itself, or another one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leadership(Arc<AtomicBool>);

impl Leadership {
    /// Not before the director has campaigned, while the connection to the bus is down, or while no lease can be read or
    /// renewed, as in a NATS cluster without a quorum.
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set_known(&self, known: bool) {
        self.0.store(known, Ordering::Relaxed);
    }
}
