//! What operators ask a director, and tell it.

use std::sync::Arc;

use archipelago::{
    Engine, PeerView,
    explain::{Explanation, Question, RulesDiff},
    rules::Rules,
};
use protocol::{Address, IslandId, NodeName, SessionId};
use tokio::sync::{mpsc, oneshot};

/// Asks a director. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminHandle(mpsc::Sender<AdminRequest>);

/// Why a director does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// It has ended.
    #[error("the director is gone")]
    Gone,
    /// It decides nothing at present.
    #[error("this director stands by: ask the one that leads (its metric atoll_director_leads is 1)")]
    Standby,
    /// It led, and somebody else may do so by now.
    #[error("this director cannot say at present whether it leads: ask again, or another")]
    Suspended,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum AdminRequest {
    /// Why?
    Explain(Question, Reply<Explanation>),
    /// These are the rules from now on.
    SetRules(Arc<Rules>),
    /// Who was told of which island?
    Assignments(Reply<Vec<Assignment>>),
    /// A copy of the engine, and the time on its clock.
    CopyEngine(Reply<(Engine, std::time::Duration)>),
    /// Lead no more.
    Resign(Reply<()>),
}

/// What the client of a peer was last told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Whose client.
    pub peer: Address,
    /// Its session; `None`: no message of it named one.
    pub session: Option<SessionId>,
    /// The island of which it was told.
    pub island: IslandId,
    /// The node on which this island was then.
    pub node: NodeName,
}

/// What everybody who is in the world was last told.
pub(crate) fn assignments(engine: &Engine) -> Vec<Assignment> {
    let told = |peer: PeerView<'_>| {
        let (island, node) = peer.last_assigned()?;
        Some(Assignment { peer: peer.address(), session: peer.session(), island, node: node.clone() })
    };
    engine.peers().filter_map(told).collect()
}

/// Where an answer is waited for.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, AdminError>>;

/// Queries that may wait; at the bound, whoever asks waits too.
const REQUEST_QUEUE: usize = 16;

impl AdminHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<AdminRequest>) {
        let (sender, receiver) = mpsc::channel(REQUEST_QUEUE);
        (Self(sender), receiver)
    }

    /// Answers a question about what is now.
    pub async fn explain(&self, question: Question) -> Result<Explanation, AdminError> {
        self.request(|answer| AdminRequest::Explain(question, answer)).await
    }

    /// What everybody was last told, of those who are in the world; in no order that means anything.
    pub async fn assignments(&self) -> Result<Vec<Assignment>, AdminError> {
        self.request(AdminRequest::Assignments).await
    }

    /// Has these rules hold from the next flush on, or as soon as this director leads.
    pub async fn set_rules(&self, rules: Arc<Rules>) -> Result<(), AdminError> {
        self.0.send(AdminRequest::SetRules(rules)).await.map_err(|_| AdminError::Gone)
    }

    /// What other rules would change. The director is held up for as long as it takes to copy its
    /// engine; the rest is done elsewhere.
    pub async fn diff(&self, rules: Arc<Rules>) -> Result<RulesDiff, AdminError> {
        let (engine, now) = self.request(AdminRequest::CopyEngine).await?;
        let diff = tokio::task::spawn_blocking(move || engine.diff(rules, now));
        diff.await.map_err(|_| AdminError::Gone)
    }

    /// Has it tell what it has decided and then lead no more, now and later, so that another takes
    /// over at once.
    pub async fn resign(&self) -> Result<(), AdminError> {
        self.request(AdminRequest::Resign).await
    }

    async fn request<T>(&self, query: impl FnOnce(Reply<T>) -> AdminRequest) -> Result<T, AdminError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(query(answer)).await.map_err(|_| AdminError::Gone)?;
        answered.await.unwrap_or(Err(AdminError::Gone))
    }
}
