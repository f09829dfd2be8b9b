//! The events of an [`crate::Explorer`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use protocol::{Address, ConnectionString, IslandId, Position};

use crate::Disconnect;

/// The id of one connection to a room. A later connection to the same room has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(pub u64);

/// A change in the state of the client, or a received message.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client has signed in to the gateway.
    SignedIn,
    /// The gateway sent an assignment: an island, and how to reach it.
    IslandChanged {
        /// The island.
        island: IslandId,
        /// The room of the island. The client enters rooms for which [`crate::is_joinable`] holds; with any other
        /// connection string, it is in no room.
        connection: ConnectionString,
        /// The previous island, if there was one. It is the same island if only its room moved to another
        /// node.
        from: Option<String>,
        /// The members and their positions, including this client.
        peers: BTreeMap<Address, Position>,
    },
    /// A peer joined the client's island. Gateways need not send this.
    IslandJoined {
        /// The island.
        island: IslandId,
        /// The peer.
        address: Address,
    },
    /// A peer left the client's island. Gateways need not send this.
    IslandLeft {
        /// The island.
        island: IslandId,
        /// The peer.
        address: Address,
    },
    /// A room has admitted the client.
    RoomEntered {
        /// The connection to the room.
        room: RoomId,
        /// The island of the room.
        island: IslandId,
        /// The URL of the room, without the token. For a LiveKit room: the URL of the server, and the name of the room
        /// as its fragment.
        url: String,
        /// The transport of the room, named as in [`crate::Settings::transports`].
        transport: &'static str,
        /// The alias of the client in the room. In a LiveKit room aliases are local to this connection.
        alias: u32,
        /// The other members, by alias.
        members: BTreeMap<u32, Address>,
    },
    /// A peer entered the room.
    PeerJoined {
        /// The connection to the room.
        room: RoomId,
        /// The alias of the peer in the room.
        alias: u32,
        /// The address of the peer.
        address: Address,
    },
    /// A peer left the room.
    PeerLeft {
        /// The connection to the room.
        room: RoomId,
        /// The alias that the peer had in the room.
        alias: u32,
    },
    /// In a mesh, links have come up or gone down.
    LinksChanged {
        /// The connection to the room.
        room: RoomId,
        /// The members that this client has a link to. Messages of the others are relayed.
        neighbours: BTreeSet<Address>,
    },
    /// A message was received in the room.
    Message {
        /// The connection to the room.
        room: RoomId,
        /// The alias of the sender.
        alias: u32,
        /// The address of the sender, if the room has announced it.
        sender: Option<Address>,
        /// An RFC-4 packet.
        body: Bytes,
    },
    /// A message was received again, in this room: an [`Event::Message`] of another room has delivered it.
    Duplicate {
        /// The connection to the room.
        room: RoomId,
        /// The alias of the sender.
        alias: u32,
        /// An RFC-4 packet.
        body: Bytes,
    },
    /// A connection to a room has ended, or could not be established.
    RoomLeft {
        /// The connection to the room.
        room: RoomId,
        /// The reason.
        reason: Disconnect,
    },
    /// The connection to the gateway has ended, or could not be established.
    Disconnected {
        /// The reason, which prints as a sentence.
        reason: Disconnect,
        /// The delay until the next attempt. `None`: the client does not reconnect; it leaves its rooms and
        /// stops.
        retry_in: Option<Duration>,
    },
}
