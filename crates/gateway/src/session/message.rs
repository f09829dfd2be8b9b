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
}

/// A new assignment of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IslandChange {
    pub(crate) island: IslandId,
    /// The node of the room, if the director named it.
    pub(crate) node: Option<NodeName>,
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
