//! The state of an engine that was lost, as far as other components know it.

use std::{sync::Arc, time::Duration};

use protocol::{Address, IslandId, NodeName, Position, SessionId};

use crate::{rules::Rules, transport::Transport};

/// The known state of a realm from which an engine resumes. It is collected from other components, not
/// copied from the engine that was lost.
#[derive(Debug, Clone, Default)]
pub struct EngineSnapshot {
    /// The rules of the realm's owner.
    pub rules: Arc<Rules>,
    /// The time of day in minutes since midnight, UTC, if it is known.
    pub minute: Option<u16>,
    /// The nodes that offer rooms. They count as announced at the time of the resume.
    pub transports: Vec<Transport>,
    /// The peers, in any order. If a peer occurs more than once, its greatest session counts. A peer
    /// that signed in and has not sent a heartbeat is not included: pass an [`Input::Connected`](crate::Input::Connected) for it
    /// afterwards.
    pub peers: Vec<PeerSnapshot>,
}

/// The known state of a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSnapshot {
    /// Its address.
    pub peer: Address,
    /// Its session; `None` if its messages carry none.
    pub session: Option<SessionId>,
    /// The transports that its client announced, if it did.
    pub transports: Option<Vec<String>>,
    /// Its position.
    pub position: Position,
    /// The id of its preferred island, if it has one.
    pub desired_room: Option<String>,
    /// The last assignment that its client was sent, unless the peer has [left](crate::Output::Left)
    /// that island since; `None` for a peer without an assignment. For a departed peer: the island and
    /// node before it left, unless that island was closed since because its last members joined other
    /// islands.
    pub last_assigned: Option<LastAssignment>,
    /// The client lacks its last assignment, or the node does not accept its connection string any more:
    /// the first flush assigns it again, as if it had no assignment.
    pub needs_assignment: bool,
    /// Its cluster, with [external clustering](crate::Clustering::External). If it is not known, the
    /// cluster of most peers with the same last island is assumed.
    pub cluster: Option<String>,
    /// When its last message arrived, in the time of the engine.
    pub last_seen: Duration,
    /// When it disconnected, in the time of the engine, if its [`Output::Left`](crate::Output::Left)
    /// was emitted: it may rejoin within the return window. If it was not emitted, the value is `None`,
    /// the peer still counts as a member, and an [`Input::Disconnected`](crate::Input::Disconnected) must follow.
    pub departed_at: Option<Duration>,
    /// Its session took over from an older one and, as far as is known, the tokens of the old session
    /// are not revoked yet. The first flush revokes them before it emits an assignment.
    pub taken_over: bool,
}

/// The island and node of the assignment that a client was sent last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LastAssignment {
    /// The island.
    pub island: IslandId,
    /// The node that hosts its room.
    pub node: NodeName,
}
