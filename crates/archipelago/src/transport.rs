//! The nodes that host rooms, as they announce themselves.

use std::{fmt, str::FromStr, sync::Arc};

use protocol::NodeName;

/// A node that hosts rooms, as it announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Its name, which identifies it across announcements.
    pub node: NodeName,
    /// The kind of its rooms.
    pub kind: TransportKind,
    /// The capability that a client required to join, as clients announce it: the name of the kind, or for
    /// an external transport its protocol.
    pub capability: Arc<str>,
    /// The greatest number of peers in one of its rooms. A node with 0 offers nothing.
    pub max_island_size: u32,
    /// Free seats at the time of the announcement; `None` for no limit.
    pub seats: Option<u32>,
    /// Peers in its rooms at the time of the announcement.
    pub users: u32,
    /// Whether the node drains: it accepts no more peers, and its islands move to other nodes as soon
    /// as they can.
    pub draining: bool,
    /// The URL at which clients reach it. The engine does not interpret it; a change invalidates the
    /// assignments to the node.
    pub public_url: Arc<str>,
    /// When its process started, in milliseconds since the Unix epoch; 0 if not known. A later start
    /// time means another process, which does not accept connection strings that clients were sent
    /// before.
    pub started_ms: u64,
    /// A remark for the operator that does not affect any decision, such as a slow API.
    pub note: Option<Arc<str>>,
}

/// The kind of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// Rooms over WebSocket.
    WsRoom,
    /// LiveKit rooms.
    LiveKit,
    /// A mesh of direct connections between peers.
    P2p,
    /// Another transport, with a configured connection string.
    External,
}

impl TransportKind {
    /// The name of the kind in rules, announcements and clients' transport lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WsRoom => "ws-room",
            Self::LiveKit => "livekit",
            Self::P2p => "p2p",
            Self::External => "external",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TransportKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let kinds = [Self::WsRoom, Self::LiveKit, Self::P2p, Self::External];
        kinds.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// A node: its last announcement, and what the engine has assigned to it.
#[derive(Debug, Clone, Copy)]
pub struct TransportView<'a> {
    /// Its last announcement.
    pub transport: &'a Transport,
    /// Whether it may host more islands: announced recently, not draining, and with rooms for at least
    /// one peer.
    pub available: bool,
    /// Members of the islands on the node.
    pub assigned: u32,
    /// Free seats; `None` for no limit.
    pub free_seats: Option<u32>,
}
