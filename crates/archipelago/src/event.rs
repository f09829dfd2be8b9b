use std::sync::Arc;

use protocol::{Address, IslandId, NodeName, Position, SessionId};

use crate::{registry::Transport, rules::Rules};

/// What happens to the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A session begins. What this peer's client was told before is forgotten; it is told its
    /// island at the first heartbeat.
    Connected {
        /// Who signed in.
        peer: Address,
        /// The session that begins; none from a service that knows no sessions.
        session: Option<SessionId>,
        /// What its client can join, if it said so; otherwise
        /// [`assumed_transports`](crate::Settings::assumed_transports) holds.
        transports: Option<Vec<String>>,
        /// The older session of this peer that the new one resumes, as its client proved. A newer
        /// session that does not resume the one before [takes over](Output::TakenOver).
        resumes: Option<SessionId>,
    },
    /// A peer says where it is.
    Heartbeat {
        /// Who.
        peer: Address,
        /// The session that it speaks in; none counts as the current one.
        session: Option<SessionId>,
        /// Where it stands.
        position: Position,
        /// The id of the island that it would like to be in. `None` leaves an earlier wish as it
        /// is, `Some("")` ends it.
        desired_room: Option<String>,
    },
    /// A session ends.
    Disconnected {
        /// Whose.
        peer: Address,
        /// The session that ends; none counts as the current one.
        session: Option<SessionId>,
    },
    /// Somebody else says whom a peer is together with, until it says otherwise or the peer is
    /// forgotten. It means nothing unless [`clustering`](crate::Settings::clustering) is given.
    Cluster {
        /// Who.
        peer: Address,
        /// Of which session; none counts as the current one.
        session: Option<SessionId>,
        /// The cluster that it is in from now on, if any.
        cluster: Option<String>,
    },
    /// A node offers rooms, or repeats that it does.
    Transport(Transport),
    /// A node says that it offers rooms no more.
    TransportGone {
        /// Which node.
        node: NodeName,
    },
    /// The owners have other rules. They hold from the next flush on, for everybody at once.
    Rules(Arc<Rules>),
    /// A peer's client has not heard what it was told last: it is told again at the next flush
    /// where it is, if it is in an island that has a node.
    ResendAssignment {
        /// Whose.
        peer: Address,
        /// Of which session; of another than the present one it means nothing, and none counts as
        /// the present one.
        session: Option<SessionId>,
        /// The island that the client did hear of last, if any, which it will be told that it
        /// comes [from](Output::Assigned::from).
        from: Option<IslandId>,
    },
    /// What time it is. Until it is said, no rule that asks for it holds.
    TimeOfDay {
        /// Minutes since midnight, UTC.
        minute: u16,
    },
}

/// What the engine decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell this peer: it is now in `island` on `transport`.
    Assigned {
        /// Whom to tell.
        peer: Address,
        /// The session to tell; none when the peer's messages carry none.
        session: Option<SessionId>,
        /// The island that it is in.
        island: IslandId,
        /// The node that holds the island's room.
        transport: NodeName,
        /// The island that this client was last told of, if any. The same island when only the
        /// transport changed.
        from: Option<IslandId>,
    },
    /// A peer is in an island and was not at the end of the flush before.
    Joined {
        /// The island.
        island: IslandId,
        /// The peer.
        peer: Address,
        /// Its session; none when its messages carry none.
        session: Option<SessionId>,
    },
    /// A peer was in an island at the end of the flush before and is no longer, whether it walked
    /// away, disconnected or fell silent.
    Left {
        /// The island, which may be closed by now.
        island: IslandId,
        /// The peer.
        peer: Address,
        /// Its session, the last that it had; none when its messages carry none.
        session: Option<SessionId>,
    },
    /// A newer session of a member took over and did not resume the session before: tokens of that
    /// session admit its client to the island's room no more. The peer stays in the island, or has
    /// just joined it, and its present client is told a newer token.
    TakenOver {
        /// The island.
        island: IslandId,
        /// The peer.
        peer: Address,
    },
    /// An island begins.
    Opened {
        /// Its id, which no island had before.
        island: IslandId,
    },
    /// An island ends. Its id never comes back. An island that its last member's leaving emptied
    /// ends only when that member's time to return has passed.
    Closed {
        /// Its id.
        island: IslandId,
    },
    /// An island goes from one node to another.
    Moved {
        /// The island.
        island: IslandId,
        /// The node that held its room, which may be gone.
        from: NodeName,
        /// The node that holds it now.
        to: NodeName,
    },
}
