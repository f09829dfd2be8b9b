//! The leader election as a process sees it: [`Candidate`] takes part in it, [`ElectionState`] is its
//! outcome.

use std::future;

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{self, Instant},
};

/// A participant in a leader election: at most one candidate leads at a time. Dropping a candidate ends its
/// campaign without releasing the lease: a leader's lease then runs out, and no candidate leads until then.
#[derive(Debug)]
pub struct Candidate {
    observed: watch::Receiver<ObservedState>,
    /// The state that [`Candidate::changed`] last returned for.
    last_reported: Option<ElectionState>,
    /// `None` where no other candidate can exist.
    tasks: Option<CandidateTasks>,
}

/// The outcome of an election, as one candidate knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionState {
    /// This candidate leads, and no other does.
    Leader(Term),
    /// Another candidate leads.
    Standby,
    /// The leader is unknown at the moment. A candidate that led must stop acting as the leader.
    Unknown,
}

/// The time for which one candidate leads without interruption. Between two terms of different epochs another
/// candidate may have led; within one term no other did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The number of the term; it increases with each term. `None` where every process leads.
    pub epoch: Option<u64>,
}

/// The result of the last poll of the lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedState {
    pub(crate) state: ElectionState,
    /// When the state expires; `None`: never.
    pub(crate) valid_until: Option<Instant>,
}

/// The tasks that campaign. They are aborted when this is dropped.
#[derive(Debug)]
pub(crate) struct CandidateTasks {
    /// A message asks the lease task to release the lease.
    pub(crate) resign: oneshot::Sender<()>,
    /// The lease task and the task that adds replicas. Only the lease task ends by itself.
    pub(crate) tasks: JoinSet<()>,
}

impl ObservedState {
    /// The state where there is no election.
    pub(crate) const UNCONTESTED: Self =
        Self { state: ElectionState::Leader(Term { epoch: None }), valid_until: None };
    pub(crate) const UNKNOWN: Self = Self { state: ElectionState::Unknown, valid_until: None };

    /// The state at this moment. The process may have been paused since the last poll, so the expiry is
    /// checked on every call.
    pub(crate) fn now(self) -> ElectionState {
        if self.valid_until.is_some_and(|until| until <= Instant::now()) {
            ElectionState::Unknown
        } else {
            self.state
        }
    }
}

impl Candidate {
    pub(crate) fn new(observed: watch::Receiver<ObservedState>, tasks: Option<CandidateTasks>) -> Self {
        Self { observed, last_reported: None, tasks }
    }

    /// The state at this moment. It is checked against the clock of this process: a term that was not renewed
    /// in time has ended.
    pub fn state(&self) -> ElectionState {
        self.observed.borrow().now()
    }

    /// Waits until the state differs from the one for which this last returned; the first call returns at
    /// once. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let observed = *self.observed.borrow_and_update();
            let state = observed.now();
            if self.last_reported != Some(state) {
                self.last_reported = Some(state);
                return;
            }
            let expiry = async {
                match observed.valid_until.filter(|_| state == observed.state) {
                    Some(until) => time::sleep_until(until).await,
                    None => future::pending().await,
                }
            };
            let update = async {
                if self.observed.changed().await.is_err() {
                    // The lease task has ended: the state never changes again.
                    future::pending().await
                }
            };
            tokio::select! {
                () = update => {}
                () = expiry => {}
            }
        }
    }

    /// Releases the lease, if this candidate holds it, so that another candidate can take it at once.
    pub async fn resign(self) {
        if let Some(CandidateTasks { resign, mut tasks }) = self.tasks {
            // A task that has already ended holds no lease.
            let _ = resign.send(());
            tasks.join_next().await;
        }
    }
}
