//! The [`Input`]s that an engine handles and the [`Output`]s that a flush emits.

use std::{sync::Arc, time::Duration};

use protocol::{Address, IslandId, MediaGrants, NodeName, Position, SessionId};

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
    Heartbeat(Heartbeat),
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
    /// A node is down: it hosts no island until it announces its offer again.
    TransportDown {
        /// Its offer otherwise.
        transport: Transport,
        /// Why, for the operator.
        reason: Arc<str>,
    },
    /// A node withdraws its offer.
    TransportGone {
        /// The name of the node.
        node: NodeName,
    },
    /// A node cannot host an island for a while. The island takes the next node that can host it. If there is
    /// none, it keeps the node. Ignored if there is no such island.
    RoomUnavailable {
        /// The island.
        island: IslandId,
        /// The node.
        node: NodeName,
        /// The time for which the node does not host the island.
        retry_in: Duration,
        /// The reason, for explanations.
        failure: RoomFailure,
    },
    /// The owner's rules changed. They apply from the next flush on, to all peers at once.
    Rules(Arc<Rules>),
    /// The [assignments that heartbeats reported](ClientReport::last_assigned) so far are outdated,
    /// because the caller publishes outputs late or handles heartbeats late. Mismatches that have not
    /// caused a resend yet are forgotten.
    ReportsOutdated,
    /// The time of day changed. Before the first one, no rule with hours is active.
    TimeOfDay {
        /// Minutes since midnight, UTC.
        minute: u16,
    },
}

/// The reason for which a node cannot host an island for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomFailure {
    /// It could not open the room.
    NotOpened,
    /// The mesh of the island failed: a description with the pairs of peers without a path.
    Mesh(Arc<str>),
}

/// A peer's position, with the data that its gateway adds.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// The peer.
    pub peer: Address,
    /// The session that sent it; `None` counts as the current one.
    pub session: Option<SessionId>,
    /// Its position, in metres.
    pub position: Position,
    /// The id of the island that the peer prefers. `None` keeps an earlier preference, `Some("")`
    /// clears it.
    pub desired_room: Option<String>,
    /// `None` from a service that reports nothing about clients.
    pub client: Option<Box<ClientReport>>,
}

/// The data of a client, which its gateway repeats in each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientReport {
    /// As in [`Input::Connected`], separated by commas. It is used only if that input was missed.
    pub transports: Option<String>,
    /// As in [`Input::Connected`]. It is used only if that input was missed.
    pub resumes: Option<SessionId>,
    /// The last assignment that the client received; `None` while the caller cannot know it, because
    /// an assignment may be on its way. If the client received another assignment than the engine's
    /// last one, and still did a [round trip](protocol::timing::ASSIGNMENT_ROUND_TRIP) later, it is sent its
    /// assignment again.
    pub last_assigned: Option<ReportedAssignment>,
}

/// An assignment that a client received, as its gateway reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportedAssignment {
    /// The id of the island; empty if the client received no assignment.
    pub island: String,
    /// The name of the node; empty if it is not known.
    pub node: String,
}

impl Heartbeat {
    /// The heartbeat of a peer in its current session, without anything else.
    pub fn new(peer: Address, position: Position) -> Self {
        Self { peer, session: None, position, desired_room: None, client: None }
    }
}

/// A decision of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// The peer's client is to be sent an assignment.
    Assigned {
        /// The peer.
        peer: Address,
        /// The session to send it to; `None` if the peer's messages carry none.
        session: Option<SessionId>,
        /// The island of the peer. The assignments of one flush to the same island share it.
        island: Arc<AssignedIsland>,
        /// The island of the last assignment of this client, if any. It is the same island if only the
        /// node changed.
        from: Option<IslandId>,
    },
    /// A peer's client did not receive its last assignment, as its heartbeats show. It is sent its
    /// assignment again: an [`Assigned`](Self::Assigned) follows in this flush, or in the first one in
    /// which the node of its island accepts peers.
    AssignmentMissed {
        /// The peer.
        peer: Address,
        /// The last assignment that the client did receive.
        reported: ReportedAssignment,
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
        /// Its members, in an order without meaning.
        members: Vec<Address>,
    },
    /// The members of an island may publish other media from now on, because another rule decides for it or
    /// the rules changed. Assignments of this flush and of later ones contain the new grants; members that are
    /// not assigned again have tokens with the old ones. Emitted once for each change, on any kind of
    /// transport, and not for an island that opened in this flush. An engine that [resumed](crate::Engine::resume)
    /// does not know which grants the tokens contain, and reports only changes after its first flush.
    MediaChanged {
        /// The island.
        island: IslandId,
        /// The media that its members may publish now.
        media: MediaGrants,
    },
}

/// The part of an assignment that is the same for all members of an island.
#[derive(Debug, PartialEq)]
pub struct AssignedIsland {
    /// Its id.
    pub id: IslandId,
    /// The node that hosts its room.
    pub node: NodeName,
    /// The URL at which clients reach the node.
    pub node_url: Arc<str>,
    /// The name of the rule that applies to it, if any.
    pub rule: Option<String>,
    /// The media that its members may publish.
    pub media: MediaGrants,
    /// Its members and their positions at the end of the flush, in an order without meaning.
    pub members: Vec<(Address, Position)>,
}
