//! The WebSocket room service (RFC-5): membership and fan-out.
//!
//! A room is an island's: its members hear each other. What one sends reaches every other through
//! one encoded frame in one shared slab per room and tick, written with few large system calls
//! (`batch`, `outbox`). Whoever is too slow to read costs a bounded queue and nobody else's time.

mod admitted;
mod batch;
mod claim;
mod egress;
mod ending;
mod entry;
mod member;
mod node;
mod outbox;
mod paced;
mod registry;
mod room;
mod router;
mod service;
mod settings;

pub use claim::NameTaken;
pub use service::{Inbound, Rooms};
pub use settings::Settings;
