//! LiveKit servers: one task for each, which watches its health and administers its rooms.
//!
//! Every director watches all servers. Only the leader creates and deletes rooms and removes participants.

mod calls;
mod command;
#[cfg(test)]
mod fake;
mod known_rooms;
mod monitor;
mod removals;
mod report;
mod server;
mod settings;
mod task;
#[cfg(test)]
mod tests;
mod tracker;

pub(crate) use self::{
    command::RoomChanges,
    server::{Server, ServerSeed, servers},
    task::start,
};
pub use self::{
    monitor::{LiveKitServers, LiveKitStatus, WebhookRefusal},
    settings::LiveKitSettings,
};
