use std::future;

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{self, Instant},
};

/// Somebody who would hold an office that one at a time holds. Dropping it ends the campaign: who
/// held the office then holds it until its time is over, and nobody does meanwhile.
#[derive(Debug)]
pub struct Candidacy {
    polled: watch::Receiver<Polled>,
    /// What [`Candidacy::changed`] returned for last.
    noticed: Option<Standing>,
    /// `None` where there is nobody to campaign against.
    campaign: Option<Campaign>,
}

/// How it is with an office.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// We hold it, and nobody else does.
    Leads(Term),
    /// Somebody else does.
    Follows,
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
pub(crate) struct Polled {
    pub(crate) standing: Standing,
    /// Until when it can be relied upon, if not for ever.
    pub(crate) until: Option<Instant>,
}

/// The tasks that campaign; they end with this.
#[derive(Debug)]
pub(crate) struct Campaign {
    /// Sending asks it to give the office back.
    pub(crate) resign: oneshot::Sender<()>,
    /// Only the task that holds the lease ends by itself.
    pub(crate) task: JoinSet<()>,
}

impl Polled {
    /// What is so wherever nobody campaigns.
    pub(crate) const ALONE: Self = Self { standing: Standing::Leads(Term { epoch: None }), until: None };
    pub(crate) const UNKNOWN: Self = Self { standing: Standing::Unknown, until: None };

    /// Whoever was stopped for a while finds out here, whatever else has not been done since.
    pub(crate) fn now(self) -> Standing {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            Standing::Unknown
        } else {
            self.standing
        }
    }
}

impl Candidacy {
    pub(crate) fn new(polled: watch::Receiver<Polled>, campaign: Option<Campaign>) -> Self {
        Self { polled, noticed: None, campaign }
    }

    /// How it is right now, by this process's clock, too: a term that was not renewed in time does
    /// not hold any more.
    pub fn standing(&self) -> Standing {
        self.polled.borrow().now()
    }

    /// Waits until the standing is another one than when this last returned; the first time for
    /// nothing. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let polled = *self.polled.borrow_and_update();
            let standing = polled.now();
            if self.noticed != Some(standing) {
                self.noticed = Some(standing);
                return;
            }
            let lapse = async {
                match polled.until.filter(|_| standing == polled.standing) {
                    Some(until) => time::sleep_until(until).await,
                    None => future::pending().await,
                }
            };
            let news = async {
                if self.polled.changed().await.is_err() {
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
        if let Some(Campaign { resign, mut task }) = self.campaign {
            // Where the task has ended there is nothing to give back.
            let _ = resign.send(());
            task.join_next().await;
        }
    }
}
