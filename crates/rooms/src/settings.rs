use std::time::Duration;

use admission::ConnectionLimits;
use protocol::{NodeName, RoomName, RoomPattern};

/// What a room node is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name on the bus.
    pub node: NodeName,
    /// Where clients reach the process: `ws://host:port` or `wss://host`.
    pub public_url: String,
    /// Where the node is below that: nothing, or a path such as `/nodes/rooms-2`. No two nodes of a
    /// process have the same.
    pub path: String,
    /// The most members that an island is given here.
    pub max_island_size: u32,
    /// The most members of one room. Higher than `max_island_size`, because those who leave an
    /// island stay in its room for the grace.
    pub max_room_size: usize,
    /// The most members on the whole node.
    pub max_users: usize,
    /// Rooms that are entered with a wallet's signature instead of a token.
    pub open_rooms: Vec<RoomPattern>,
    /// A room that clients are sent to by name: how many seats it has left is announced with those
    /// of the node.
    pub fixed_room: Option<RoomName>,
    /// How long frames are collected before they are sent on together.
    pub flush_interval: Duration,
    /// How often one address may enter one room in a minute; a third of that at once.
    pub entries_per_minute: u32,
    /// Whether a challenge reports that its address is in the room already.
    pub tell_connected: bool,
    /// Bytes a second that one room may send to all its members together; above, its unreliable
    /// messages are dropped. 0 is no limit.
    pub max_room_egress_bytes_per_second: u64,
    /// The same, for all rooms together; each room that sends keeps an equal share. 0 is no limit.
    pub max_node_egress_bytes_per_second: u64,
    /// How long the whole of an entry may take.
    pub handshake_timeout: Duration,
    /// How many sockets may be entering, and how often one network may begin to.
    pub handshakes: ConnectionLimits,
    /// A client from which nothing arrived for so long is pinged; after three such intervals it is closed.
    pub ping_interval: Duration,
    /// How long a socket stays open after its address left the island.
    pub grace: Duration,
    /// How long a token admits, so that a revocation is remembered as long.
    pub token_ttl: Duration,
    /// How long a socket may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// The queue of one member, in bytes: unreliable messages are dropped when it is half full,
    /// the member is closed when it is full.
    pub queue_bytes: usize,
    /// Messages that one member may send in a second; above, its unreliable ones are dropped, and others wait.
    pub messages_per_second: u32,
    /// Bytes that one member may send in a second; above, the same holds.
    pub bytes_per_second: u32,
}

impl Settings {
    /// Where clients reach the node, as it announces it.
    pub(crate) fn node_url(&self) -> String {
        format!("{}{}", self.public_url, self.path)
    }

    /// Whether a room is entered without a token.
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
