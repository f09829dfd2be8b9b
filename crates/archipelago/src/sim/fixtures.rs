//! The addresses of simulated peers, and the node of simulated worlds.

use protocol::{Address, NodeName};

use super::rng;
use crate::transport::{Transport, TransportKind};

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
        note: None,
    }
}
