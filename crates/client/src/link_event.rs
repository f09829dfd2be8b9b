//! Events on their way from a session to the event loop of the client.

use protocol::v3::{IslandChangedMessage, JoinIslandMessage, LeftIslandMessage};

use crate::{Event, mesh_link::MeshMessage};

/// A message of the gateway about the islands of a session, or for a mesh.
#[derive(Debug)]
pub(crate) enum IslandEvent {
    IslandChanged(IslandChangedMessage),
    Joined(JoinIslandMessage),
    Left(LeftIslandMessage),
    Mesh(MeshMessage),
}

/// An event of the link to the gateway.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The client has signed in. If `keeps_room` is false, the next assignment makes the client enter the
    /// room anew, even the room that it is in.
    SignedIn { keeps_room: bool },
    /// The gateway sent an assignment.
    IslandChanged(IslandChangedMessage),
    /// The gateway sent a message for a mesh.
    Mesh(MeshMessage),
    /// Another event, which is emitted unchanged.
    Event(Event),
}

impl LinkEvent {
    /// Converts a message of the gateway; `None` if an id in it is malformed.
    pub(crate) fn new(event: IslandEvent) -> Option<Self> {
        Some(match event {
            IslandEvent::IslandChanged(change) => Self::IslandChanged(change),
            IslandEvent::Mesh(message) => Self::Mesh(message),
            IslandEvent::Joined(join) => {
                let (island, address) = (join.island_id.parse().ok()?, join.peer_id.parse().ok()?);
                Self::Event(Event::IslandJoined { island, address })
            }
            IslandEvent::Left(left) => {
                let (island, address) = (left.island_id.parse().ok()?, left.peer_id.parse().ok()?);
                Self::Event(Event::IslandLeft { island, address })
            }
        })
    }
}
