//! What operators ask a director, and tell it.

use std::sync::Arc;

use archipelago::{
    Engine, PeerView,
    explain::{Diff, Explanation, Question},
    rules::Rules,
};
use protocol::{Address, IslandId, NodeName, SessionId};
use tokio::sync::{mpsc, oneshot};

/// Asks a director. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Console(mpsc::Sender<Query>);

/// The director is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the director is gone")]
pub struct DirectorGone;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Query {
    /// Why?
    Explain(Question, oneshot::Sender<Explanation>),
    /// These are the rules from now on.
    SetRules(Arc<Rules>),
    /// Who was told of which island?
    Assignments(oneshot::Sender<Vec<Assignment>>),
    /// A copy of the engine, and the time on its clock.
    Copy(oneshot::Sender<(Engine, std::time::Duration)>),
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
        let (island, node) = peer.told()?;
        Some(Assignment { peer: peer.address(), session: peer.session(), island, node: node.clone() })
    };
    engine.peers().filter_map(told).collect()
}

/// Queries that may wait; at the bound, whoever asks waits too.
const QUERY_QUEUE: usize = 16;

impl Console {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Query>) {
        let (sender, receiver) = mpsc::channel(QUERY_QUEUE);
        (Self(sender), receiver)
    }

    /// Answers a question about what is now.
    pub async fn explain(&self, question: Question) -> Result<Explanation, DirectorGone> {
        let (answer, answered) = oneshot::channel();
        self.ask(Query::Explain(question, answer)).await?;
        answered.await.map_err(|_| DirectorGone)
    }

    /// What everybody was last told, of those who are in the world; in no order that means anything.
    pub async fn assignments(&self) -> Result<Vec<Assignment>, DirectorGone> {
        let (answer, answered) = oneshot::channel();
        self.ask(Query::Assignments(answer)).await?;
        answered.await.map_err(|_| DirectorGone)
    }

    /// Has these rules hold from the next flush on.
    pub async fn set_rules(&self, rules: Arc<Rules>) -> Result<(), DirectorGone> {
        self.ask(Query::SetRules(rules)).await
    }

    /// What other rules would change. The director is held up for as long as it takes to copy its
    /// engine; the rest is done elsewhere.
    pub async fn diff(&self, rules: Arc<Rules>) -> Result<Diff, DirectorGone> {
        let (answer, answered) = oneshot::channel();
        self.ask(Query::Copy(answer)).await?;
        let (engine, now) = answered.await.map_err(|_| DirectorGone)?;
        let diff = tokio::task::spawn_blocking(move || engine.diff(rules, now));
        diff.await.map_err(|_| DirectorGone)
    }

    async fn ask(&self, query: Query) -> Result<(), DirectorGone> {
        self.0.send(query).await.map_err(|_| DirectorGone)
    }
}
