//! Rooms of LiveKit servers: connection strings, the room service, the health of a server, and its events.

mod api;
mod health;
mod keys;
mod minter;
mod room_options;
#[cfg(test)]
mod stub;
mod watch;
pub mod webhook;

pub use api::{ApiClient, ApiError, Participant, RoomSummary};
pub use keys::Keys;
pub use minter::Minter;
pub use room_options::RoomOptions;
pub use watch::{HealthReport, HealthWatch};
