//! Rooms of LiveKit servers: connection strings, and the health of a server.

mod health;
mod keys;
mod minter;
mod probe;

pub use keys::Keys;
pub use minter::Minter;
pub use probe::{HealthReport, HealthWatch, Probe, ProbeError};
