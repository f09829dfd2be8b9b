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

/// Why a director does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It has ended.
    #[error("the director is gone")]
    Gone,
    /// It decides nothing at present.
    #[error("this director stands by: ask the one that leads (its metric atoll_director_leads is 1)")]
    StandsBy,
    /// It led, and somebody else may do so by now.
    #[error("this director cannot say at present whether it leads: ask again, or another")]
    Suspended,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Query {
    /// Why?
    Explain(Question, Answer<Explanation>),
    /// These are the rules from now on.
    SetRules(Arc<Rules>),
    /// Who was told of which island?
    Assignments(Answer<Vec<Assignment>>),
    /// A copy of the engine, and the time on its clock.
    Copy(Answer<(Engine, std::time::Duration)>),
    /// Lead no more.
    Resign(Answer<()>),
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

/// Where an answer is waited for.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, NoAnswer>>;

/// Queries that may wait; at the bound, whoever asks waits too.
const QUERY_QUEUE: usize = 16;

impl Console {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Query>) {
        let (sender, receiver) = mpsc::channel(QUERY_QUEUE);
        (Self(sender), receiver)
    }

    /// Answers a question about what is now.
    pub async fn explain(&self, question: Question) -> Result<Explanation, NoAnswer> {
        self.ask(|answer| Query::Explain(question, answer)).await
    }

    /// What everybody was last told, of those who are in the world; in no order that means anything.
    pub async fn assignments(&self) -> Result<Vec<Assignment>, NoAnswer> {
        self.ask(Query::Assignments).await
    }

    /// Has these rules hold from the next flush on, or as soon as this director leads.
    pub async fn set_rules(&self, rules: Arc<Rules>) -> Result<(), NoAnswer> {
        self.0.send(Query::SetRules(rules)).await.map_err(|_| NoAnswer::Gone)
    }

    /// What other rules would change. The director is held up for as long as it takes to copy its
    /// engine; the rest is done elsewhere.
    pub async fn diff(&self, rules: Arc<Rules>) -> Result<Diff, NoAnswer> {
        let (engine, now) = self.ask(Query::Copy).await?;
        let diff = tokio::task::spawn_blocking(move || engine.diff(rules, now));
        diff.await.map_err(|_| NoAnswer::Gone)
    }

    /// Has it tell what it has decided and then lead no more, now and later, so that another takes
    /// over at once.
    pub async fn resign(&self) -> Result<(), NoAnswer> {
        self.ask(Query::Resign).await
    }

    async fn ask<T>(&self, query: impl FnOnce(Answer<T>) -> Query) -> Result<T, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        self.0.send(query(answer)).await.map_err(|_| NoAnswer::Gone)?;
        answered.await.unwrap_or(Err(NoAnswer::Gone))
    }
}
