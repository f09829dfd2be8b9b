//! What operators ask a director, and tell it.

use std::sync::Arc;

use archipelago::{
    Engine,
    explain::{Diff, Explanation, Question},
    rules::Rules,
};
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
    /// A copy of the engine, and the time on its clock.
    Copy(oneshot::Sender<(Engine, std::time::Duration)>),
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
