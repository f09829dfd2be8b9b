//! Who holds an office: whoever's name stands in a key of NATS.
//!
//! The key is in a bucket that forgets what was not written for a while, and every write names the
//! revision that it replaces: so one candidate at a time has its name there, for as long as it
//! writes it again in time. Whether a write that was not answered was made nobody knows; then the key
//! is read, and nothing is believed before the next write was answered.

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

/// The bucket of all offices; a key each.
const BUCKET: &str = "atoll-leases";
/// Its stream.
pub(super) const STREAM: &str = "KV_atoll-leases";
/// For how long a name stands in the key.
const TTL: Duration = Duration::from_secs(2);
/// By how much less its holder relies on that: clocks of servers differ.
const SAFETY_MARGIN: Duration = Duration::from_millis(250);
/// How often the holder writes it again: one write may fail, and the next is still in time.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// How often the others look: who watches a key is not told that it was forgotten.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The pause of a holder after a write that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked whether there is a JetStream by now, where there was none.
const NO_JETSTREAM_INTERVAL: Duration = Duration::from_secs(1);
/// How long one question to the server may take.
const CALL_TIMEOUT: Duration = Duration::from_millis(400);
/// For how long nobody may say who leads before that is said in the log.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// How often it is said in the log that an office cannot be campaigned for.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The campaign of one candidate for one office.
pub(super) struct LeaseTask {
    client: Client,
    jetstream: jetstream::Context,
    key: &'static str,
    /// The candidate's name, drawn at random.
    candidate_id: u64,
    fence: Arc<EpochFence>,
    observed: watch::Sender<ObservedState>,
    replicas: ReplicaTarget,
    /// The bucket, once it was found.
    store: Option<Store>,
    /// Whether it was ever found.
    bucket_seen: bool,
    /// Of our term, for as long as nothing but our name was in the key.
    epoch: Option<u64>,
    /// What we last wrote, if we know that.
    revision: Option<u64>,
    last_warned: Option<WarnedAt>,
    /// Since when nobody has said who leads, while that is so.
    unknown_since: Option<WarnedAt>,
}

/// What is in the key.
enum Entry {
    /// Nothing that counts. The revision to replace.
    Free(u64),
    /// Our name. The revision to replace.
    Ours(u64),
    /// Somebody else's.
    Theirs,
}

/// Why it is not known who holds an office.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("there is no connection")]
    Disconnected,
    #[error("no answer in time")]
    TimedOut,
    /// In a NATS cluster: its server has stopped, and the others have not elected another yet, or cannot.
    #[error("the lease stream has no leader among the NATS servers")]
    NoStreamLeader,
    #[error("somebody else wrote first")]
    WriteConflict,
    #[error("there is no JetStream")]
    NoJetStream,
    #[error("the bucket {BUCKET} forgets after {0:?} instead of {TTL:?}: delete the stream {STREAM}")]
    WrongTtl(Duration),
    #[error("{0}")]
    Refused(String),
}

impl LeaseTask {
    pub(super) fn new(
        client: Client,
        office: &'static str,
        epochs: Arc<EpochFence>,
        polled: watch::Sender<ObservedState>,
        replicas: ReplicaTarget,
    ) -> Self {
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            key: office,
            candidate_id: rand::random(),
            fence: epochs,
            observed: polled,
            replicas,
            store: None,
            bucket_seen: false,
            epoch: None,
            revision: None,
            last_warned: None,
            unknown_since: None,
        }
    }

    /// Campaigns until it is asked to give the office back.
    pub(super) async fn run(mut self, mut resign: oneshot::Receiver<()>) {
        loop {
            let began = Instant::now();
            let next = match self.poll().await {
                Ok(polled) => {
                    self.unknown_since = None;
                    self.set_state(polled);
                    if self.epoch.is_some() { began + RENEW_INTERVAL } else { began + POLL_INTERVAL }
                }
                Err(failure) => Instant::now() + self.on_error(failure),
            };
            tokio::select! {
                asked = &mut resign => {
                    if asked.is_ok() {
                        self.release().await;
                    }
                    return;
                }
                () = time::sleep_until(next) => {}
            }
        }
    }

    /// Looks who holds the office, and takes it or goes on holding it where nobody else does.
    async fn poll(&mut self) -> Result<ObservedState, LeaseError> {
        // The library would send it later, when nobody knows what it does then.
        if self.client.connection_state() != State::Connected {
            return Err(LeaseError::Disconnected);
        }
        let store = match self.store.clone() {
            Some(store) => store,
            None => self.open().await?,
        };
        // Once something else is written, it is known again what only when that was answered.
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
        // What is said in an earlier epoch than the latest, nobody hears.
        let held = self.epoch.filter(|&epoch| epoch >= latest);
        let least = held.unwrap_or(latest.saturating_add(1));
        let name = format!("{:016x} {least}", self.candidate_id);
        let sent = Instant::now();
        let written = match with_timeout(store.update(self.key, name.into(), revision)).await? {
            Ok(written) => written,
            Err(error) => {
                return Err(match error.kind() {
                    UpdateErrorKind::WrongLastRevision => LeaseError::WriteConflict,
                    UpdateErrorKind::TimedOut => LeaseError::TimedOut,
                    _ => LeaseError::from_client_error(&error),
                });
            }
        };
        // The revision alone would do for as long as the server does not lose its store.
        let epoch = held.unwrap_or(least.max(written));
        self.fence.observe(epoch);
        (self.epoch, self.revision) = (Some(epoch), Some(written));
        let standing = ElectionState::Leader(Term { epoch: Some(epoch) });
        // The server counts from when it was written, which was later.
        Ok(ObservedState { state: standing, valid_until: Some(sent + TTL - SAFETY_MARGIN) })
    }

    /// Finds the bucket, or makes it.
    async fn open(&mut self) -> Result<Store, LeaseError> {
        // Not as a bucket: of the answer to that the library cannot read what older servers say.
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("$KV.{BUCKET}.>")],
            max_messages_per_subject: 1,
            max_age: TTL,
            // Revisions are to outlive the server.
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: self.replicas.resolve(&self.client),
            ..Config::default()
        };
        let created = match with_timeout(self.jetstream.create_stream(&config)).await? {
            // More are added once there are enough servers.
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
                    // Somebody made it in another way, with more replicas, say.
                    Code::STREAM_NAME_EXIST => {}
                    Code::JETSTREAM_NOT_ENABLED | Code::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                        return Err(LeaseError::NoJetStream);
                    }
                    Code::CLUSTER_NOT_AVAILABLE => return Err(LeaseError::NoStreamLeader),
                    _ => return Err(LeaseError::Refused(error.to_string())),
                },
                // Where the server has one, it is only not there yet.
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
                let (holder, epoch) = text.split_once(' ').unwrap_or((&text, ""));
                if let Ok(epoch) = epoch.parse() {
                    self.fence.observe(epoch);
                }
                if holder == format!("{:016x}", self.candidate_id) {
                    Entry::Ours(entry.revision)
                } else {
                    Entry::Theirs
                }
            }
        })
    }

    /// What a failure changes, and how long to wait after it.
    fn on_error(&mut self, failure: LeaseError) -> Duration {
        // Where some director led in terms, there has been a JetStream, and will be again.
        let alone =
            matches!(failure, LeaseError::NoJetStream) && !self.bucket_seen && self.fence.latest() == 0;
        match failure {
            _ if alone => self.set_state(ObservedState::UNCONTESTED),
            // Our name stands in the key for its time, and nobody's else, whether we hear of it or not.
            // (Where nobody else can lead, nothing changes either.)
            LeaseError::Disconnected | LeaseError::TimedOut | LeaseError::NoStreamLeader
                if self.is_leader() => {}
            _ => self.set_state(ObservedState::UNKNOWN),
        }
        if matches!(failure, LeaseError::NoStreamLeader) {
            // It may have been deleted as well, and has to be made again.
            self.store = None;
        }
        if matches!(failure, LeaseError::NoJetStream | LeaseError::WrongTtl(_) | LeaseError::Refused(_)) {
            // It may have been lost, and has to be made again.
            self.store = None;
            if self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) && !alone {
                tracing::warn!(office = self.key, %failure, "cannot find out who leads");
                self.last_warned = Some(WarnedAt::now());
            }
        }
        if matches!(failure, LeaseError::TimedOut | LeaseError::NoStreamLeader | LeaseError::WriteConflict)
            && !self.is_leader()
        {
            let since = *self.unknown_since.get_or_insert_with(WarnedAt::now);
            if since.elapsed() >= WARN_AFTER
                && self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL)
            {
                tracing::warn!(office = self.key, %failure, "cannot find out who leads");
                self.last_warned = Some(WarnedAt::now());
            }
        }
        match failure {
            _ if alone => NO_JETSTREAM_INTERVAL,
            LeaseError::TimedOut | LeaseError::WriteConflict if self.epoch.is_some() => RETRY_INTERVAL,
            _ => POLL_INTERVAL,
        }
    }

    fn is_leader(&self) -> bool {
        matches!(self.observed.borrow().now(), ElectionState::Leader(_))
    }

    fn set_state(&self, polled: ObservedState) {
        let before = self.observed.send_replace(polled);
        if before.state == polled.state {
            return;
        }
        match polled.state {
            ElectionState::Leader(Term { epoch: Some(epoch) }) => tracing::info!(self.key, epoch, "leads"),
            ElectionState::Leader(Term { epoch: None }) => {
                tracing::warn!(self.key, "the NATS server has no JetStream: every process leads");
            }
            ElectionState::Standby => tracing::info!(self.key, "another process leads"),
            ElectionState::Unknown => tracing::warn!(self.key, "it is not known who leads"),
        }
    }

    /// Takes our name out of the key.
    async fn release(mut self) {
        self.observed.send_replace(ObservedState::UNKNOWN);
        let Some(store) = self.store.take() else { return };
        // What was last written may not be known.
        if let Ok(Entry::Ours(revision)) = self.read(&store).await {
            let deleted = with_timeout(store.delete_expect_revision(self.key, Some(revision))).await;
            tracing::info!(self.key, given_back = matches!(deleted, Ok(Ok(()))), "leads no more");
        }
    }
}

impl LeaseError {
    /// The failure behind an error of the client library. Without a server that answers for the stream, a request has no
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

/// What the server answers, if it does so in time.
async fn with_timeout<T>(call: impl Future<Output = T>) -> Result<T, LeaseError> {
    time::timeout(CALL_TIMEOUT, call).await.map_err(|_| LeaseError::TimedOut)
}
