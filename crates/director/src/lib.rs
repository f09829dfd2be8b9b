//! Runs the engine as a service: bus messages in, flushes on a timer, assignments with connection strings
//! out.
//!
//! One task owns the engine. It processes the messages of gateways and nodes, flushes on a timer, and waits
//! for nothing else. A second task, the publisher, mints connection strings and publishes the changes. When
//! the publisher is behind, the engine continues and its batches are queued.
//!
//! When several directors share a bus, one leads. The others are standbys: they receive the same messages and
//! the leader's assignments, and the next leader's engine continues from that state.

mod admin;
mod configured_nodes;
mod decode;
mod director;
mod election;
mod flush_batch;
mod jump_limiter;
mod leader;
mod leadership;
mod livekit;
mod meshes;
mod metrics;
mod mode;
mod pausable_clock;
mod publisher;
mod room_gate;
mod settings;
mod standby;
mod task;
mod task_metrics;

pub use self::admin::{AdminError, AdminHandle, Assignment};
pub use self::configured_nodes::{ConfiguredNode, TransportOffer};
pub use self::director::Director;
pub use self::leadership::Leadership;
pub use self::livekit::{LiveKitServers, LiveKitSettings, LiveKitStatus, WebhookRefusal};
pub use self::metrics::describe_metrics;
pub use self::settings::Settings;

#[cfg(test)]
mod tests;
