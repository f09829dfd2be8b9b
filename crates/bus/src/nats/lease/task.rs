//! The task of one candidate: takes and renews the lease, or waits for it.

use std::{
    sync::Arc,
    time::{Duration, Instant as WarnedAt},
};

use async_nats::{Client, connection::State};
use tokio::{
    sync::{oneshot, watch},
    time::{self, Instant},
};

use super::{
    bucket::Bucket,
    error::LeaseError,
    key::{Entry, LeaseKey},
    replicas::ReplicaTarget,
};
use crate::{
    election::{ElectionState, ObservedState, Term},
    fencing::EpochFence,
    nats::timing::{LEASE_RENEW_INTERVAL, LEASE_RETRY_INTERVAL, LEASE_SAFETY_MARGIN, LEASE_TTL},
};

/// How often standbys read the key. They poll because a watch of a key does not report its expiry.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often a process without JetStream checks whether the server has it by now.
const NO_JETSTREAM_INTERVAL: Duration = Duration::from_secs(1);
/// How long the leader may be unknown before a warning is logged.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// The shortest time between two warnings that the leader is unknown.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The task of one candidate for one lease.
pub(super) struct LeaseTask {
    client: Client,
    lease_name: &'static str,
    bucket: Bucket,
    /// The candidate's id in the key, drawn at random: 16 hex digits.
    candidate_id: String,
    fence: Arc<EpochFence>,
    observed: watch::Sender<ObservedState>,
    /// The epoch of this candidate's term, as long as no other entry was in the key.
    epoch: Option<u64>,
    /// The revision of the last write; `None` if it is unknown whether a later write was applied.
    revision: Option<u64>,
    last_warned: Option<WarnedAt>,
    /// Since when the leader is unknown; `None` while it is known.
    unknown_since: Option<WarnedAt>,
}

/// The candidate with its entry in the key.
enum Holder {
    /// No candidate. The revision to replace.
    None(u64),
    /// This candidate. The revision to replace.
    Us(u64),
    Other,
}

impl LeaseTask {
    pub(super) fn new(
        client: Client,
        lease_name: &'static str,
        fence: Arc<EpochFence>,
        observed: watch::Sender<ObservedState>,
        replicas: ReplicaTarget,
    ) -> Self {
        Self {
            bucket: Bucket::new(client.clone(), lease_name, replicas),
            client,
            lease_name,
            candidate_id: format!("{:016x}", rand::random::<u64>()),
            fence,
            observed,
            epoch: None,
            revision: None,
            last_warned: None,
            unknown_since: None,
        }
    }

    /// Campaigns until it is asked to release the lease.
    pub(super) async fn run(mut self, mut resign: oneshot::Receiver<()>) {
        loop {
            let began = Instant::now();
            let next = match self.poll().await {
                Ok(observed) => {
                    self.unknown_since = None;
                    self.set_state(observed);
                    if self.epoch.is_some() { began + LEASE_RENEW_INTERVAL } else { began + POLL_INTERVAL }
                }
                Err(error) => Instant::now() + self.on_error(error),
            };
            tokio::select! {
                request = &mut resign => {
                    if request.is_ok() {
                        self.release().await;
                    }
                    return;
                }
                () = time::sleep_until(next) => {}
            }
        }
    }

    /// Reads the key, and takes or renews the lease unless another candidate holds it.
    async fn poll(&mut self) -> Result<ObservedState, LeaseError> {
        // While disconnected the client library would queue the request and send it after the reconnect, when
        // its effect is unpredictable.
        if self.client.connection_state() != State::Connected {
            return Err(LeaseError::Disconnected);
        }
        let key = self.bucket.open().await?;
        // `take` forgets the revision: once a write was sent, the revision is unknown until its reply
        // arrives.
        let revision = match self.revision.take() {
            Some(revision) => revision,
            None => match self.read(&key).await? {
                Holder::Us(revision) => revision,
                Holder::None(revision) => {
                    self.epoch = None;
                    revision
                }
                Holder::Other => {
                    self.epoch = None;
                    return Ok(ObservedState { state: ElectionState::Standby, valid_until: None });
                }
            },
        };
        self.claim(&key, revision).await
    }

    /// Writes this candidate's entry in place of the entry with this revision.
    async fn claim(&mut self, key: &LeaseKey, revision: u64) -> Result<ObservedState, LeaseError> {
        let latest = self.fence.highest_known();
        // Receivers drop messages of an epoch below the latest, so a term with such an epoch is not
        // continued.
        let own_epoch = self.epoch.filter(|&epoch| epoch >= latest);
        let epoch_to_claim = own_epoch.unwrap_or(latest.saturating_add(1));
        let sent = Instant::now();
        let written = key.write(&self.candidate_id, epoch_to_claim, revision).await?;
        // The revision alone increases too, as long as the server does not lose its store.
        let epoch = own_epoch.unwrap_or(epoch_to_claim.max(written));
        self.fence.observe(epoch);
        (self.epoch, self.revision) = (Some(epoch), Some(written));
        let state = ElectionState::Leader(Term { epoch: Some(epoch) });
        // The server counts the TTL from the write, which is later than `sent`.
        Ok(ObservedState { state, valid_until: Some(sent + LEASE_TTL - LEASE_SAFETY_MARGIN) })
    }

    /// Reads the key, and records the epoch of its entry.
    async fn read(&self, key: &LeaseKey) -> Result<Holder, LeaseError> {
        Ok(match key.read().await? {
            Entry::Free(revision) => Holder::None(revision),
            Entry::Held(entry) => {
                if let Some(epoch) = entry.epoch {
                    self.fence.observe(epoch);
                }
                if entry.candidate == self.candidate_id { Holder::Us(entry.revision) } else { Holder::Other }
            }
        })
    }

    /// Updates the state after an error, and returns how long to wait.
    fn on_error(&mut self, error: LeaseError) -> Duration {
        // If a director led with an epoch before, JetStream existed and will return.
        let uncontested =
            matches!(error, LeaseError::NoJetStream) && !self.bucket.was_opened() && self.fence.latest() == 0;
        match error {
            _ if uncontested => self.set_state(ObservedState::UNCONTESTED),
            // Our entry stays in the key until it expires and keeps other candidates out, whether or not the
            // server answers. (Without JetStream there is no other candidate, so nothing changes either.)
            LeaseError::Disconnected | LeaseError::TimedOut | LeaseError::NoStreamLeader
                if self.is_leader() => {}
            _ => self.set_state(ObservedState::UNKNOWN),
        }
        if error.may_have_lost_stream() {
            // The stream has to be created again.
            self.bucket.close();
        }
        if !uncontested {
            self.warn(&error);
        }
        match error {
            _ if uncontested => NO_JETSTREAM_INTERVAL,
            LeaseError::TimedOut | LeaseError::WriteConflict if self.epoch.is_some() => LEASE_RETRY_INTERVAL,
            _ => POLL_INTERVAL,
        }
    }

    /// Logs an error, at most once in [`WARN_INTERVAL`]: at once if it does not pass by itself, otherwise when
    /// the leader has been unknown for [`WARN_AFTER`].
    fn warn(&mut self, error: &LeaseError) {
        let due = match error {
            LeaseError::NoJetStream | LeaseError::WrongTtl(_) | LeaseError::Refused(_) => true,
            LeaseError::TimedOut | LeaseError::NoStreamLeader | LeaseError::WriteConflict => {
                !self.is_leader()
                    && self.unknown_since.get_or_insert_with(WarnedAt::now).elapsed() >= WARN_AFTER
            }
            LeaseError::Disconnected => false,
        };
        if due && self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            tracing::warn!(lease = self.lease_name, %error, "the leader is unknown");
            self.last_warned = Some(WarnedAt::now());
        }
    }

    fn is_leader(&self) -> bool {
        matches!(self.observed.borrow().now(), ElectionState::Leader(_))
    }

    fn set_state(&self, observed: ObservedState) {
        let before = self.observed.send_replace(observed);
        if before.state == observed.state {
            return;
        }
        match observed.state {
            ElectionState::Leader(Term { epoch: Some(epoch) }) => {
                tracing::info!(lease = self.lease_name, epoch, "leads")
            }
            ElectionState::Leader(Term { epoch: None }) => {
                tracing::warn!(
                    lease = self.lease_name,
                    "the NATS server has no JetStream: every process leads"
                );
            }
            ElectionState::Standby => tracing::info!(lease = self.lease_name, "another process leads"),
            ElectionState::Unknown => tracing::warn!(lease = self.lease_name, "the leader is unknown"),
        }
    }

    /// Deletes our entry from the key.
    async fn release(mut self) {
        self.observed.send_replace(ObservedState::UNKNOWN);
        let Some(key) = self.bucket.close() else { return };
        // Reads the key again, because the last revision may be unknown.
        if let Ok(Holder::Us(revision)) = self.read(&key).await {
            let released = key.delete(revision).await.unwrap_or(false);
            tracing::info!(lease = self.lease_name, released, "lease released");
        }
    }
}
