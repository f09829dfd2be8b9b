use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{Address, ConnectionString, IslandId, Position};

use crate::Disconnect;

/// A stay in a room; a later stay in the same room has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(pub u64);

/// What happened to an explorer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The gateway knows the wallet now.
    SignedIn,
    /// The gateway named an island, and how to reach it.
    IslandChanged {
        /// The island.
        island: IslandId,
        /// Where its members meet; an explorer enters WebSocket rooms, and is in no room while it is
        /// told anything else.
        connection: ConnectionString,
        /// The island before it, if there was one; the same island, if its members only meet
        /// elsewhere from now on.
        from: Option<String>,
        /// Who is in it and where, the explorer itself included.
        peers: BTreeMap<Address, Position>,
    },
    /// Somebody came to the explorer's island, as its gateway says; gateways need not say it.
    IslandJoined {
        /// The island.
        island: IslandId,
        /// Who came.
        address: Address,
    },
    /// Somebody left the explorer's island, as its gateway says; gateways need not say it.
    IslandLeft {
        /// The island.
        island: IslandId,
        /// Who left.
        address: Address,
    },
    /// A room has welcomed the explorer.
    RoomEntered {
        /// This stay.
        room: RoomId,
        /// Whose room it is.
        island: IslandId,
        /// Where it is, without the token.
        url: String,
        /// What the explorer is called there.
        alias: u32,
        /// Who was there before it.
        members: BTreeMap<u32, Address>,
    },
    /// Somebody entered the room.
    PeerJoined {
        /// The stay in which this was heard.
        room: RoomId,
        /// What the peer is called there.
        alias: u32,
        /// Who it is.
        address: Address,
    },
    /// Somebody left the room.
    PeerLeft {
        /// The stay in which this was heard.
        room: RoomId,
        /// What the peer was called there.
        alias: u32,
    },
    /// Somebody said something in the room.
    Message {
        /// The stay in which this was heard.
        room: RoomId,
        /// Who said it.
        alias: u32,
        /// Who that is, if the room has told.
        sender: Option<Address>,
        /// An RFC-4 packet.
        body: Bytes,
    },
    /// What somebody said came through this room as well: a [`Event::Message`] of another room has
    /// given it.
    Duplicate {
        /// The stay in which it was heard again.
        room: RoomId,
        /// Who said it.
        alias: u32,
        /// An RFC-4 packet.
        body: Bytes,
    },
    /// A stay is over, or did not come about.
    RoomLeft {
        /// The stay.
        room: RoomId,
        /// Why.
        reason: Disconnect,
    },
    /// The gateway's socket is closed.
    Disconnected {
        /// Why, which prints as a sentence.
        reason: Disconnect,
        /// After which pause the explorer tries again; `None`: it does not, leaves its rooms, and is
        /// gone.
        retry_in: Option<Duration>,
    },
}
