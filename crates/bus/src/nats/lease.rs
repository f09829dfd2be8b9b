//! Leader election through a lease: the key of a NATS key-value bucket names the leader.
//!
//! The bucket expires entries that are not written again, and each write names the revision that it replaces
//! (compare-and-swap). So one candidate at a time has its name in the key, as long as it renews it in time. A
//! write that times out may or may not have been applied. The task then reads the key again, and treats
//! leadership as unconfirmed until a later write is acknowledged.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant as WarnedAt},
};

use async_nats::{
    Client, RequestError, RequestErrorKind,
    connection::State,
    jetstream::{
        self,
        context::{CreateStreamErrorKind, PublishError, PublishErrorKind},
        kv::{Operation, Store, UpdateErrorKind},
        stream::{Config, DiscardPolicy, StorageType},
    },
};
use tokio::{
    sync::{oneshot, watch},
    time::{self, Instant},
};

use super::replicas::{ReplicaTarget, may_fit_single_replica};
use crate::{
    election::{ElectionState, ObservedState, Term},
    fencing::EpochFence,
};

/// The bucket of all leases, one key each.
const BUCKET: &str = "atoll-leases";
/// The stream behind the bucket.
pub(super) const STREAM: &str = "KV_atoll-leases";
/// How long an entry lasts without being renewed.
const TTL: Duration = Duration::from_secs(2);
/// How much earlier the leader considers its lease expired: the clocks of servers differ.
const SAFETY_MARGIN: Duration = Duration::from_millis(250);
/// How often the leader renews the lease: if one write fails, the next is still in time.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// How often standbys read the key. They poll because a watch of a key does not report its expiry.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The delay of a leader after a failed write.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How often a process without JetStream checks whether the server has it by now.
const NO_JETSTREAM_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time for one request to the server.
const CALL_TIMEOUT: Duration = Duration::from_millis(400);
/// How long the leader may be unknown before a warning is logged.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// The shortest time between two warnings that the leader is unknown.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The task of one candidate for one lease.
pub(super) struct LeaseTask {
    client: Client,
    jetstream: jetstream::Context,
    key: &'static str,
    /// The candidate's id in the key, drawn at random.
    candidate_id: u64,
    fence: Arc<EpochFence>,
    observed: watch::Sender<ObservedState>,
    replicas: ReplicaTarget,
    /// The bucket, once it was opened.
    store: Option<Store>,
    /// Whether the bucket was ever opened.
    bucket_seen: bool,
    /// The epoch of this candidate's term, as long as no other entry was in the key.
    epoch: Option<u64>,
    /// The revision of the last write; `None` if it is unknown whether a later write was applied.
    revision: Option<u64>,
    last_warned: Option<WarnedAt>,
    /// Since when the leader is unknown; `None` while it is known.
    unknown_since: Option<WarnedAt>,
}

/// The entry in the key.
enum Entry {
    /// No entry, or a deleted one. The revision to replace.
    Free(u64),
    /// This candidate's entry. The revision to replace.
    Ours(u64),
    /// Another candidate's entry.
    Theirs,
}

/// Why the leader is unknown.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("not connected")]
    Disconnected,
    #[error("no reply in time")]
    TimedOut,
    /// In a NATS cluster: the server that led the stream stopped, and the others have not elected a new one
    /// yet, or cannot.
    #[error("the lease stream has no leader among the NATS servers")]
    NoStreamLeader,
    #[error("another candidate wrote the key first")]
    WriteConflict,
    #[error("the server has no JetStream")]
    NoJetStream,
    #[error("the bucket {BUCKET} expires entries after {0:?} instead of {TTL:?}: delete the stream {STREAM}")]
    WrongTtl(Duration),
    #[error("{0}")]
    Refused(String),
}

impl LeaseTask {
    pub(super) fn new(
        client: Client,
        key: &'static str,
        fence: Arc<EpochFence>,
        observed: watch::Sender<ObservedState>,
        replicas: ReplicaTarget,
    ) -> Self {
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            key,
            candidate_id: rand::random(),
            fence,
            observed,
            replicas,
            store: None,
            bucket_seen: false,
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
                    if self.epoch.is_some() { began + RENEW_INTERVAL } else { began + POLL_INTERVAL }
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
        let store = match self.store.clone() {
            Some(store) => store,
            None => self.open().await?,
        };
        // `take` forgets the revision: once a write was sent, the revision is unknown until its reply
        // arrives.
        let revision = match self.revision.take() {
            Some(revision) => revision,
            None => match self.read(&store).await? {
                Entry::Ours(revision) => revision,
                Entry::Free(revision) => {
                    self.epoch = None;
                    revision
                }
                Entry::Theirs => {
                    self.epoch = None;
                    return Ok(ObservedState { state: ElectionState::Standby, valid_until: None });
                }
            },
        };
        let latest = self.fence.highest_known();
        // Receivers drop messages of an epoch below the latest, so a term with such an epoch is not
        // continued.
        let own_epoch = self.epoch.filter(|&epoch| epoch >= latest);
        let epoch_to_claim = own_epoch.unwrap_or(latest.saturating_add(1));
        let entry = format!("{:016x} {epoch_to_claim}", self.candidate_id);
        let sent = Instant::now();
        let written = match with_timeout(store.update(self.key, entry.into(), revision)).await? {
            Ok(written) => written,
            Err(error) => {
                return Err(match error.kind() {
                    UpdateErrorKind::WrongLastRevision => LeaseError::WriteConflict,
                    UpdateErrorKind::TimedOut => LeaseError::TimedOut,
                    _ => LeaseError::from_client_error(&error),
                });
            }
        };
        // The revision alone increases too, as long as the server does not lose its store.
        let epoch = own_epoch.unwrap_or(epoch_to_claim.max(written));
        self.fence.observe(epoch);
        (self.epoch, self.revision) = (Some(epoch), Some(written));
        let state = ElectionState::Leader(Term { epoch: Some(epoch) });
        // The server counts the TTL from the write, which is later than `sent`.
        Ok(ObservedState { state, valid_until: Some(sent + TTL - SAFETY_MARGIN) })
    }

    /// Opens the bucket, or creates it.
    async fn open(&mut self) -> Result<Store, LeaseError> {
        // The stream is created directly and not as a bucket: the client library cannot decode the reply of
        // older servers to that.
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("$KV.{BUCKET}.>")],
            max_messages_per_subject: 1,
            max_age: TTL,
            // Revisions have to survive a restart of the server.
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: self.replicas.resolve(&self.client),
            ..Config::default()
        };
        let created = match with_timeout(self.jetstream.create_stream(&config)).await? {
            // Replicas are added once there are enough servers.
            Err(error) if config.num_replicas > 1 && may_fit_single_replica(&error) => {
                let config = Config { num_replicas: 1, ..config };
                with_timeout(self.jetstream.create_stream(config)).await?
            }
            created => created,
        };
        if let Err(error) = created {
            use jetstream::ErrorCode as Code;
            match error.kind() {
                CreateStreamErrorKind::JetStream(error) => match error.error_code() {
                    // Another candidate created it with a different configuration, for example with more
                    // replicas.
                    Code::STREAM_NAME_EXIST => {}
                    Code::JETSTREAM_NOT_ENABLED | Code::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                        return Err(LeaseError::NoJetStream);
                    }
                    Code::CLUSTER_NOT_AVAILABLE => return Err(LeaseError::NoStreamLeader),
                    _ => return Err(LeaseError::Refused(error.to_string())),
                },
                // A server that announces JetStream has it, but not at the moment.
                CreateStreamErrorKind::JetStreamUnavailable if !self.client.server_info().jetstream => {
                    return Err(LeaseError::NoJetStream);
                }
                CreateStreamErrorKind::JetStreamUnavailable => return Err(LeaseError::NoStreamLeader),
                CreateStreamErrorKind::TimedOut => return Err(LeaseError::TimedOut),
                _ => return Err(LeaseError::Refused(error.to_string())),
            }
        }
        let store = with_timeout(self.jetstream.get_key_value(BUCKET)).await?;
        let store = store.map_err(|error| LeaseError::from_client_error(&error))?;
        let age = store.stream.cached_info().config.max_age;
        if age != TTL {
            return Err(LeaseError::WrongTtl(age));
        }
        self.bucket_seen = true;
        Ok(self.store.insert(store).clone())
    }

    async fn read(&self, store: &Store) -> Result<Entry, LeaseError> {
        let found = with_timeout(store.entry(self.key)).await?;
        let found = found.map_err(|error| LeaseError::from_client_error(&error))?;
        Ok(match found {
            None => Entry::Free(0),
            Some(entry) if entry.operation != Operation::Put => Entry::Free(entry.revision),
            Some(entry) => {
                let text = String::from_utf8_lossy(&entry.value);
                let (candidate, epoch) = text.split_once(' ').unwrap_or((&text, ""));
                if let Ok(epoch) = epoch.parse() {
                    self.fence.observe(epoch);
                }
                if candidate == format!("{:016x}", self.candidate_id) {
                    Entry::Ours(entry.revision)
                } else {
                    Entry::Theirs
                }
            }
        })
    }

    /// Updates the state after an error, and returns how long to wait.
    fn on_error(&mut self, error: LeaseError) -> Duration {
        // If a director led with an epoch before, JetStream existed and will return.
        let uncontested =
            matches!(error, LeaseError::NoJetStream) && !self.bucket_seen && self.fence.latest() == 0;
        match error {
            _ if uncontested => self.set_state(ObservedState::UNCONTESTED),
            // Our entry stays in the key until it expires and keeps other candidates out, whether or not the
            // server answers. (Without JetStream there is no other candidate, so nothing changes either.)
            LeaseError::Disconnected | LeaseError::TimedOut | LeaseError::NoStreamLeader
                if self.is_leader() => {}
            _ => self.set_state(ObservedState::UNKNOWN),
        }
        if matches!(error, LeaseError::NoStreamLeader) {
            // The stream may have been deleted and has to be created again.
            self.store = None;
        }
        if matches!(error, LeaseError::NoJetStream | LeaseError::WrongTtl(_) | LeaseError::Refused(_)) {
            // The stream may have been lost and has to be created again.
            self.store = None;
            if self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) && !uncontested {
                tracing::warn!(lease = self.key, %error, "the leader is unknown");
                self.last_warned = Some(WarnedAt::now());
            }
        }
        if matches!(error, LeaseError::TimedOut | LeaseError::NoStreamLeader | LeaseError::WriteConflict)
            && !self.is_leader()
        {
            let since = *self.unknown_since.get_or_insert_with(WarnedAt::now);
            if since.elapsed() >= WARN_AFTER
                && self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL)
            {
                tracing::warn!(lease = self.key, %error, "the leader is unknown");
                self.last_warned = Some(WarnedAt::now());
            }
        }
        match error {
            _ if uncontested => NO_JETSTREAM_INTERVAL,
            LeaseError::TimedOut | LeaseError::WriteConflict if self.epoch.is_some() => RETRY_INTERVAL,
            _ => POLL_INTERVAL,
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
                tracing::info!(lease = self.key, epoch, "leads")
            }
            ElectionState::Leader(Term { epoch: None }) => {
                tracing::warn!(lease = self.key, "the NATS server has no JetStream: every process leads");
            }
            ElectionState::Standby => tracing::info!(lease = self.key, "another process leads"),
            ElectionState::Unknown => tracing::warn!(lease = self.key, "the leader is unknown"),
        }
    }

    /// Deletes our entry from the key.
    async fn release(mut self) {
        self.observed.send_replace(ObservedState::UNKNOWN);
        let Some(store) = self.store.take() else { return };
        // Reads the key again, because the last revision may be unknown.
        if let Ok(Entry::Ours(revision)) = self.read(&store).await {
            let deleted = with_timeout(store.delete_expect_revision(self.key, Some(revision))).await;
            tracing::info!(lease = self.key, released = matches!(deleted, Ok(Ok(()))), "lease released");
        }
    }
}

impl LeaseError {
    /// Classifies an error of the client library. While no server leads the stream, a request has no
    /// responder.
    fn from_client_error(error: &(dyn Error + 'static)) -> Self {
        let is_leaderless = |cause: &(dyn Error + 'static)| {
            let request = cause.downcast_ref::<RequestError>();
            let publish = cause.downcast_ref::<PublishError>();
            request.is_some_and(|error| error.kind() == RequestErrorKind::NoResponders)
                || publish.is_some_and(|error| error.kind() == PublishErrorKind::StreamNotFound)
        };
        let mut cause = Some(error);
        while let Some(error) = cause {
            if is_leaderless(error) {
                return Self::NoStreamLeader;
            }
            cause = error.source();
        }
        Self::Refused(error.to_string())
    }
}

/// The server's reply, if it arrives within [`CALL_TIMEOUT`].
async fn with_timeout<T>(call: impl Future<Output = T>) -> Result<T, LeaseError> {
    time::timeout(CALL_TIMEOUT, call).await.map_err(|_| LeaseError::TimedOut)
}
