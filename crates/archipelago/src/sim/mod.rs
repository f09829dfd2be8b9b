//! Simulated worlds for the engine: random layouts, workloads, measurements and drawings.
//!
//! Simulations are deterministic: the seed determines all that happens. Only the duration of a flush is
//! not; it is measured with a clock that the caller passes in.

pub mod layouts;
mod measure;
mod rng;
mod simulation;
mod svg;
mod workload;

pub use rng::Rng;
pub use simulation::{Measurements, Simulation, SimulationConfig, SimulationError};
pub use svg::draw;
pub use workload::{Walkers, Workload, WorkloadError};

use protocol::{Address, NodeName};

use crate::{Transport, TransportKind};

/// The address of the n-th peer of a simulation.
pub fn address(number: u32) -> Address {
    let mut bytes = [0; 20];
    // Evenly distributed, as real addresses are, and unique for each number.
    bytes[..8].copy_from_slice(&rng::mix(u64::from(number)).to_be_bytes());
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    Address::new(bytes)
}

/// A node with unlimited seats and rooms of at most `max_island_size` members.
pub fn node(name: NodeName, max_island_size: u32) -> Transport {
    Transport {
        node: name,
        kind: TransportKind::WsRoom,
        capability: TransportKind::WsRoom.as_str().into(),
        max_island_size,
        seats: None,
        users: 0,
        draining: false,
        public_url: "ws://node".into(),
        started_ms: 0,
    }
}
