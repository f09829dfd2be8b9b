//! The [`Input`]s that an engine handles and the [`Output`]s that a flush emits.

use std::sync::Arc;

use protocol::{Address, IslandId, NodeName, Position, SessionId};

use crate::{rules::Rules, transport::Transport};

/// An event that the engine handles.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A session begins. The last assignment of the peer's client is cleared; the peer gets an
    /// assignment after its first heartbeat.
    Connected {
        /// The peer that signed in.
        peer: Address,
        /// The session that begins; `None` from a service without sessions.
        session: Option<SessionId>,
        /// The transports that its client announced, if it did; otherwise
        /// [`assumed_transports`](crate::Settings::assumed_transports) applies.
        transports: Option<Vec<String>>,
        /// The older session of this peer that the new one resumes, as its client proved. A newer
        /// session that does not resume the one before [takes over](Output::TakenOver).
        resumes: Option<SessionId>,
    },
    /// A peer reports its position.
    Heartbeat {
        /// The peer.
        peer: Address,
        /// The session that sent it; `None` counts as the current one.
        session: Option<SessionId>,
        /// Its position, in metres.
        position: Position,
        /// The id of the island that the peer prefers. `None` keeps an earlier preference, `Some("")`
        /// clears it.
        desired_room: Option<String>,
    },
    /// A session ends.
    Disconnected {
        /// The peer.
        peer: Address,
        /// The session that ends; `None` counts as the current one.
        session: Option<SessionId>,
    },
    /// The caller sets the cluster of a peer. It applies until another one is set or the peer is
    /// removed. Ignored unless [`clustering`](crate::Settings::clustering) is external.
    Cluster {
        /// The peer.
        peer: Address,
        /// Its session; `None` counts as the current one.
        session: Option<SessionId>,
        /// The name of its cluster from now on, if any.
        cluster: Option<String>,
    },
    /// A node announces its offer, for the first time or again.
    Transport(Transport),
    /// A node withdraws its offer.
    TransportGone {
        /// The name of the node.
        node: NodeName,
    },
    /// The owner's rules changed. They apply from the next flush on, to all peers at once.
    Rules(Arc<Rules>),
    /// A peer's client did not receive its last assignment: it gets one again at the next flush, if the
    /// peer is in an island that has a node.
    ResendAssignment {
        /// The peer.
        peer: Address,
        /// Its session; `None` counts as the current one. The input is ignored for any other session
        /// than the current one.
        session: Option<SessionId>,
        /// The island of the last assignment that the client did receive, if any. The next assignment
        /// has it as [`from`](Output::Assigned::from).
        from: Option<IslandId>,
    },
    /// The time of day changed. Before the first one, no rule with hours is active.
    TimeOfDay {
        /// Minutes since midnight, UTC.
        minute: u16,
    },
}

/// A decision of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The peer's client is to be sent an assignment: its peer is now in `island` on `transport`.
    Assigned {
        /// The peer.
        peer: Address,
        /// The session to send it to; `None` if the peer's messages carry none.
        session: Option<SessionId>,
        /// The island of the peer.
        island: IslandId,
        /// The node that hosts the island's room.
        transport: NodeName,
        /// The island of the last assignment of this client, if any. It is the same island if only the
        /// node changed.
        from: Option<IslandId>,
    },
    /// A peer is in an island and was not in it at the end of the flush before.
    Joined {
        /// The island.
        island: IslandId,
        /// The peer.
        peer: Address,
        /// Its session; `None` if its messages carry none.
        session: Option<SessionId>,
    },
    /// A peer was in an island at the end of the flush before and no longer is, because it moved away,
    /// disconnected or timed out.
    Left {
        /// The island, which may be closed by now.
        island: IslandId,
        /// The peer.
        peer: Address,
        /// Its last session; `None` if its messages carry none.
        session: Option<SessionId>,
    },
    /// A newer session of a member took over and did not resume the session before. Tokens of the old
    /// session must no longer admit its client to the island's room. The peer stays in the island, or
    /// has just joined it, and its current client is sent a newer token.
    TakenOver {
        /// The island.
        island: IslandId,
        /// The peer.
        peer: Address,
    },
    /// An island was created.
    Opened {
        /// Its id, which no island had before.
        island: IslandId,
    },
    /// An island was closed. Its id is never used again. An island that became empty because its last
    /// member left is closed only after that member's return window.
    Closed {
        /// Its id.
        island: IslandId,
    },
    /// An island moved from one node to another.
    Moved {
        /// The island.
        island: IslandId,
        /// The node that hosted its room, which may be gone.
        from: NodeName,
        /// The node that hosts its room now.
        to: NodeName,
    },
}
