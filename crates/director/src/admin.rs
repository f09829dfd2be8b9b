//! Administrative requests to a director, from operators.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use archipelago::{
    Engine, IslandView, PeerView,
    explain::{Explanation, Question, RulesDiff},
    rules::Rules,
};
use protocol::{Address, IslandId, MediaGrants, NodeName, SessionId};
use tokio::sync::{mpsc, oneshot};

/// Sends requests to a director. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminHandle(mpsc::Sender<AdminRequest>);

/// Why a director does not reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// It has ended.
    #[error("the director has ended")]
    Gone,
    /// It does not lead.
    #[error("this director is a standby: ask the leader (its metric atoll_director_leads is 1)")]
    Standby,
    /// It led, and another director may lead by now.
    #[error("the leader is unknown at the moment: ask again, or ask another director")]
    Suspended,
}

/// A request.
#[derive(Debug)]
pub(crate) enum AdminRequest {
    /// Explains a decision of the engine.
    Explain(Question, Reply<Explanation>),
    /// Replaces the rules. Replies whether they changed.
    SetRules(Arc<Rules>, Reply<bool>),
    /// Lists all assignments.
    Assignments(Reply<Vec<Assignment>>),
    /// Lists the islands on a node, or only this one.
    AssignedRooms { node: NodeName, island: Option<IslandId>, reply: Reply<HashMap<IslandId, AssignedRoom>> },
    /// Copies the engine, with the time on its clock.
    CopyEngine(Reply<(Engine, std::time::Duration)>),
    /// Stops leading.
    Resign(Reply<()>),
}

/// The last assignment of a peer's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The peer of the client.
    pub peer: Address,
    /// Its session; `None` if no message of the peer named one.
    pub session: Option<SessionId>,
    /// The assigned island.
    pub island: IslandId,
    /// The node of the island at that time.
    pub node: NodeName,
}

/// An island on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AssignedRoom {
    /// The name of the rule that applies to it, if any.
    pub(crate) rule: Option<String>,
    /// The media that its members may publish.
    pub(crate) media: MediaGrants,
    pub(crate) members: HashSet<Address>,
}

impl AssignedRoom {
    /// Whether the participant with this identity is a member.
    pub(crate) fn has_member(&self, identity: &str) -> bool {
        identity.parse::<Address>().is_ok_and(|address| self.members.contains(&address))
    }
}

/// The islands on a node, or only this one if it is there.
pub(crate) fn assigned_rooms(
    engine: &Engine,
    node: &NodeName,
    island: Option<&IslandId>,
) -> HashMap<IslandId, AssignedRoom> {
    let room = |view: IslandView<'_>| {
        let members = view.members().map(|(peer, _)| peer).collect();
        (view.id(), AssignedRoom { rule: view.rule(), media: view.media(), members })
    };
    let is_here = |view: &IslandView<'_>| view.room_node() == Some(node);
    match island {
        Some(island) => engine.kept_island(island).filter(is_here).map(room).into_iter().collect(),
        None => engine.kept_islands().filter(is_here).map(room).collect(),
    }
}

/// The last assignments of all present peers.
pub(crate) fn assignments(engine: &Engine) -> Vec<Assignment> {
    let assignment = |peer: PeerView<'_>| {
        let (island, node) = peer.last_assigned()?;
        Some(Assignment { peer: peer.address(), session: peer.session(), island, node: node.clone() })
    };
    engine.peers().filter_map(assignment).collect()
}

/// The channel for the reply.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, AdminError>>;

/// Requests that can wait; when the queue is full, the requester waits too.
const REQUEST_QUEUE: usize = 16;

impl AdminHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<AdminRequest>) {
        let (sender, receiver) = mpsc::channel(REQUEST_QUEUE);
        (Self(sender), receiver)
    }

    /// Explains the current state of a peer, a pair, a position or an island.
    pub async fn explain(&self, question: Question) -> Result<Explanation, AdminError> {
        self.request(|reply_sender| AdminRequest::Explain(question, reply_sender)).await
    }

    /// The last assignments of all present peers, in no particular order.
    pub async fn assignments(&self) -> Result<Vec<Assignment>, AdminError> {
        self.request(AdminRequest::Assignments).await
    }

    /// The islands on a node with their members, or only this island if it is there. A leader that has just taken
    /// over may not know all peers yet: the error is [`AdminError::Suspended`] then.
    pub(crate) async fn assigned_rooms(
        &self,
        node: NodeName,
        island: Option<IslandId>,
    ) -> Result<HashMap<IslandId, AssignedRoom>, AdminError> {
        self.request(|reply| AdminRequest::AssignedRooms { node, island, reply }).await
    }

    /// Replaces the rules from the next flush on, or once this director leads. Returns whether they changed.
    pub async fn set_rules(&self, rules: Rules) -> Result<bool, AdminError> {
        self.request(|reply_sender| AdminRequest::SetRules(Arc::new(rules), reply_sender)).await
    }

    /// The changes that other rules would cause. The director is blocked only while it copies its engine; the
    /// evaluation runs on a blocking thread.
    pub async fn diff(&self, rules: Arc<Rules>) -> Result<RulesDiff, AdminError> {
        let (engine, now) = self.request(AdminRequest::CopyEngine).await?;
        let diff = tokio::task::spawn_blocking(move || engine.diff(rules, now));
        diff.await.map_err(|_| AdminError::Gone)
    }

    /// Publishes the decided changes and then stops leading for good, so that another director takes over at
    /// once.
    pub async fn resign(&self) -> Result<(), AdminError> {
        self.request(AdminRequest::Resign).await
    }

    async fn request<T>(&self, make_request: impl FnOnce(Reply<T>) -> AdminRequest) -> Result<T, AdminError> {
        let (reply_sender, reply) = oneshot::channel();
        self.0.send(make_request(reply_sender)).await.map_err(|_| AdminError::Gone)?;
        reply.await.unwrap_or(Err(AdminError::Gone))
    }
}
