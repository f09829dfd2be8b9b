//! Rooms of LiveKit servers: connection strings, permissions, the room service, the health of a server, its events,
//! and its occupancy.

mod api;
mod health;
mod keys;
mod minter;
pub mod occupancy;
mod permissions;
mod room_options;
#[cfg(test)]
mod stub;
mod verifier;
mod watch;
pub mod webhook;

pub use api::{ApiClient, ApiError, ListedParticipant};
pub use keys::Keys;
pub use minter::Minter;
pub use room_options::RoomOptions;
pub use verifier::{Admission, TokenRefusal, Verifier};
pub use watch::{HealthReport, HealthWatch};
