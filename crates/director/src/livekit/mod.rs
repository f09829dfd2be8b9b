//! LiveKit servers: one task for each, which watches its health and administers its rooms.
//!
//! Every director watches all servers. Only the leader creates and deletes rooms and removes participants.

mod calls;
#[cfg(test)]
mod fake;
mod monitor;
mod removals;
mod server;
mod settings;
mod task;
#[cfg(test)]
mod tests;
mod tracker;

pub(crate) use self::server::{RoomChanges, Server, ServerSeed, servers};
pub use self::{
    monitor::{LiveKitServers, LiveKitStatus, WebhookRefusal},
    settings::LiveKitSettings,
};
