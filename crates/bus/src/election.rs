use std::future;

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{self, Instant},
};

/// Somebody who would hold an office that one at a time holds. Dropping it ends the campaign: who
/// held the office then holds it until its time is over, and nobody does meanwhile.
#[derive(Debug)]
pub struct Candidate {
    observed: watch::Receiver<ObservedState>,
    /// What [`Candidate::changed`] returned for last.
    last_reported: Option<ElectionState>,
    /// `None` where there is nobody to campaign against.
    tasks: Option<CandidateTasks>,
}

/// How it is with an office.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionState {
    /// We hold it, and nobody else does.
    Leader(Term),
    /// Somebody else does.
    Standby,
    /// Nobody can say for the moment. Who held the office is to do nothing of it.
    Unknown,
}

/// For how long somebody holds an office. Between two terms of different epochs somebody else may
/// have held it; in one term nobody else did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// A later term has a greater one. `None` where everybody leads.
    pub epoch: Option<u64>,
}

/// What a campaign last found out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedState {
    pub(crate) state: ElectionState,
    /// Until when it can be relied upon, if not for ever.
    pub(crate) valid_until: Option<Instant>,
}

/// The tasks that campaign; they end with this.
#[derive(Debug)]
pub(crate) struct CandidateTasks {
    /// Sending asks it to give the office back.
    pub(crate) resign: oneshot::Sender<()>,
    /// Only the task that holds the lease ends by itself.
    pub(crate) tasks: JoinSet<()>,
}

impl ObservedState {
    /// What is so wherever nobody campaigns.
    pub(crate) const UNCONTESTED: Self =
        Self { state: ElectionState::Leader(Term { epoch: None }), valid_until: None };
    pub(crate) const UNKNOWN: Self = Self { state: ElectionState::Unknown, valid_until: None };

    /// Whoever was stopped for a while finds out here, whatever else has not been done since.
    pub(crate) fn now(self) -> ElectionState {
        if self.valid_until.is_some_and(|until| until <= Instant::now()) {
            ElectionState::Unknown
        } else {
            self.state
        }
    }
}

impl Candidate {
    pub(crate) fn new(polled: watch::Receiver<ObservedState>, campaign: Option<CandidateTasks>) -> Self {
        Self { observed: polled, last_reported: None, tasks: campaign }
    }

    /// How it is right now, by this process's clock, too: a term that was not renewed in time does
    /// not hold any more.
    pub fn state(&self) -> ElectionState {
        self.observed.borrow().now()
    }

    /// Waits until the standing is another one than when this last returned; the first time for
    /// nothing. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let polled = *self.observed.borrow_and_update();
            let standing = polled.now();
            if self.last_reported != Some(standing) {
                self.last_reported = Some(standing);
                return;
            }
            let lapse = async {
                match polled.valid_until.filter(|_| standing == polled.state) {
                    Some(until) => time::sleep_until(until).await,
                    None => future::pending().await,
                }
            };
            let news = async {
                if self.observed.changed().await.is_err() {
                    // Nobody will find out anything new.
                    future::pending().await
                }
            };
            tokio::select! {
                () = news => {}
                () = lapse => {}
            }
        }
    }

    /// Gives the office back, if it is ours, so that the next one takes it at once.
    pub async fn resign(self) {
        if let Some(CandidateTasks { resign, tasks: mut task }) = self.tasks {
            // Where the task has ended there is nothing to give back.
            let _ = resign.send(());
            task.join_next().await;
        }
    }
}
