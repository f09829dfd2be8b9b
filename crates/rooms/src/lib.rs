//! The WebSocket room service (RFC-5): membership and fan-out of messages.
//!
//! A room is the channel of one island. A message of one member reaches every other member: the frames of a
//! room and a tick are encoded once, into one shared slab, and written with few large system calls (`batch`,
//! `send_queue`). A slow reader costs the memory of its bounded queue and does not delay other members.

mod batch;
mod egress;
mod evictions;
mod handshake;
mod member;
mod metrics;
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

pub use metrics::describe_metrics;
pub use node_name::NameTaken;
pub use service::{Rooms, Subscriptions};
pub use settings::Settings;
