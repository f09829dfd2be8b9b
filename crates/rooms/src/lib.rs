//! The WebSocket room service (RFC-5): membership and fan-out of messages.
//!
//! A room is the channel of one island. A message of one member reaches every other member. A `shard` reads and
//! writes the sockets of its rooms: the frames of a room between two flushes are encoded once, into one slab
//! that all members share (`batch`), and written with few large system calls (`connection`). A slow reader
//! costs the memory of its bounded queue (`send_queue`) and does not delay other members.

mod batch;
mod connection;
mod egress;
mod evictions;
mod handshake;
mod handshake_socket;
mod member;
mod member_stream;
mod metrics;
mod node;
mod node_name;
mod pace;
mod reentry;
mod registry;
mod room;
mod router;
mod send_queue;
mod service;
mod settings;
mod shard;
mod shard_handle;

pub use metrics::describe_metrics;
pub use node_name::NameTaken;
pub use service::{Rooms, Subscriptions};
pub use settings::Settings;
