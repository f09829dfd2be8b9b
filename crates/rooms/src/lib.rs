//! The WebSocket room service (RFC-5): membership and fan-out.
//!
//! A room is an island's: its members hear each other. What one sends reaches every other through
//! one encoded frame in one shared slab per room and tick, written with few large system calls
//! (`batch`, `outbox`). Whoever is too slow to read costs a bounded queue and nobody else's time.

mod batch;
mod egress;
mod evictions;
mod handshake;
mod member;
mod node;
mod node_name;
mod reentry;
mod registry;
mod room;
mod router;
mod send_queue;
mod service;
mod settings;
mod throttled_reader;

pub use node_name::NameTaken;
pub use service::{Rooms, Subscriptions};
pub use settings::Settings;
