//! The settings of a room node.

use std::time::Duration;

use admission::ConnectionLimits;
use protocol::{NodeName, RoomName, RoomPattern};

/// The settings of a room node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name on the bus.
    pub node: NodeName,
    /// The URL at which clients reach the process: `ws://host:port` or `wss://host`.
    pub public_url: String,
    /// The path of the node below `public_url`: empty, or a path such as `/nodes/rooms-2`. It is unique
    /// within the process.
    pub path: String,
    /// The most members of an island that the director assigns to this node.
    pub max_island_size: u32,
    /// The most members of one room. Higher than `max_island_size`, because peers that leave an island stay
    /// in its room for the grace.
    pub max_room_size: usize,
    /// The most members on the whole node.
    pub max_users: usize,
    /// Rooms that clients enter with a wallet's signature instead of a token.
    pub open_rooms: Vec<RoomPattern>,
    /// A room to which clients are assigned by name. Its free seats are announced together with those of the
    /// node.
    pub fixed_room: Option<RoomName>,
    /// How long the frames of a room are collected, from the oldest of them, before they are sent together.
    pub flush_interval: Duration,
    /// Entries of one address to one room allowed per minute; a third of them at once.
    pub entries_per_minute: u32,
    /// Whether a challenge reports that its address is already in the room.
    pub tell_connected: bool,
    /// Bytes a second that one room may send to all its members together. Above this, its unreliable messages
    /// are dropped. 0 is no limit.
    pub max_room_egress_bytes_per_second: u64,
    /// The same for all rooms together. Each room that sends has an equal share. 0 is no limit.
    pub max_node_egress_bytes_per_second: u64,
    /// Time limit for the whole handshake.
    pub handshake_timeout: Duration,
    /// Limits of concurrent handshakes, and of the handshake rate of one network.
    pub handshakes: ConnectionLimits,
    /// A client that sent nothing for this long is pinged; after three such intervals it is closed.
    pub ping_interval: Duration,
    /// How long a socket stays open after its address left the island.
    pub grace: Duration,
    /// The validity of a token. A revocation is kept as long.
    pub token_ttl: Duration,
    /// A member that reads nothing for this long is closed.
    pub write_timeout: Duration,
    /// Limit of the queue of one member, in bytes. Unreliable messages are dropped when it is half full; the
    /// member is closed when it is full.
    pub queue_bytes: usize,
    /// Messages a second that one member may send. Above this, unreliable ones are dropped and others wait.
    pub messages_per_second: u32,
    /// Bytes a second that one member may send. Above this, the same applies.
    pub bytes_per_second: u32,
}

impl Settings {
    /// The URL of the node, as it announces it.
    pub(crate) fn node_url(&self) -> String {
        format!("{}{}", self.public_url, self.path)
    }

    /// Whether clients enter a room with a signature instead of a token.
    pub(crate) fn is_open(&self, room: &RoomName) -> bool {
        self.open_rooms.iter().any(|pattern| pattern.matches(room))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings of a node for tests.
    pub(crate) fn settings() -> Settings {
        Settings {
            node: "rooms-1".parse().unwrap(),
            public_url: String::new(),
            path: String::new(),
            max_island_size: 100,
            max_room_size: 150,
            max_users: 1_000,
            open_rooms: Vec::new(),
            fixed_room: None,
            flush_interval: Duration::from_millis(10),
            handshake_timeout: Duration::from_secs(10),
            entries_per_minute: 30,
            tell_connected: true,
            max_room_egress_bytes_per_second: 0,
            max_node_egress_bytes_per_second: 0,
            handshakes: ConnectionLimits { total: 10, per_network: None, rate: None },
            ping_interval: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            token_ttl: Duration::from_secs(300),
            write_timeout: Duration::from_secs(10),
            queue_bytes: 1024 * 1024,
            messages_per_second: 100,
            bytes_per_second: 256 * 1024,
        }
    }
}
