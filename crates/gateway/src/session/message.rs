//! Messages to a session from other tasks.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{IslandId, NodeName, SystemTopic};

/// A message to a session, to be sent to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionMessage {
    /// The session has a new assignment.
    IslandChanged(IslandChange),
    /// Another peer joined or left the island of the session.
    MemberChanged(Arc<MemberChange>),
    /// A message about the mesh of the session's island.
    Mesh(MeshMessage),
}

/// A message about a mesh, as received on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MeshMessage {
    /// An encoded `Signal` of another member.
    Signal(Bytes),
    /// An encoded `Plan`.
    Plan(Bytes),
    /// ICE servers, as the parameter `ice` of a p2p connection string.
    IceServers(Bytes),
}

/// A new assignment of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IslandChange {
    pub(crate) island: IslandId,
    /// The node of the room, if the director named it.
    pub(crate) node: Option<NodeName>,
    /// Whether the island is a peer-to-peer mesh.
    pub(crate) is_mesh: bool,
    /// An encoded `IslandChangedMessage`.
    pub(crate) message: Bytes,
}

/// A peer joined or left an island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberChange {
    /// Whether the peer joined; otherwise it left.
    pub(crate) joined: bool,
    /// The system topic under which clients subscribe to the change.
    pub(crate) topic: SystemTopic,
    /// An encoded `JoinIslandMessage` or `LeftIslandMessage`.
    pub(crate) message: Bytes,
}
