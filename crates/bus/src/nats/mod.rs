//! The bus over NATS.
//!
//! What is published waits in a bounded queue for one task, the courier, which numbers it and hands
//! it to the client library; so publishing never waits for the network. What one subscriber asked
//! for comes together in a task of its own, which puts it into the subscriber's queue in order.

mod lease;
mod reader;
mod reassembly;
mod replicas;
mod wire;
mod writer;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use protocol::{Subject, subject::SubjectScheme};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time,
};

use crate::{
    Candidate, Envelope, Headers,
    election::{CandidateTasks, ObservedState},
    fencing::EpochFence,
    subscriber_queue::SubscriberQueue,
};
use lease::LeaseTask;
use replicas::{ReplicaGrower, ReplicaTarget};
use writer::{DropReason, Publication, SubscribeRequest, Subscribers, WriterCommand, WriterTask};

/// Messages that may wait to be published; at the bound the newest is dropped and counted.
const OUTGOING_QUEUE: usize = 65_536;
/// How often whoever waits for half of it to be free looks.
const CAPACITY_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Messages that the client library may have before it: few, as those are sent late when the
/// connection goes.
const CLIENT_QUEUE: usize = 256;
/// Messages of one pattern that may wait for the task that sorts them; at the bound the newest is
/// dropped and counted.
const PATTERN_QUEUE: usize = 65_536;
/// How often the server is asked whether it is there; after three times without an answer it is not.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// How often it is said in the log that the server refuses what is said.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to reconnect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Where a NATS server is, and who we are to it.
#[derive(Clone)]
pub struct NatsSettings {
    /// `nats://host:port`, or `tls://`; several of one cluster, of which any will do.
    pub servers: Vec<String>,
    /// Who we are. Where this does not say it, `user:password@` or `token@` before a host does, and
    /// holds for all of the cluster.
    pub credentials: Credentials,
    /// Certificates of authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How subjects are spelled there.
    pub subject_scheme: SubjectScheme,
    /// How long the first connection may take.
    pub connect_timeout: Duration,
    /// Messages of one pattern that may wait to be sorted; `None` for the default.
    pub pattern_queue: Option<usize>,
    /// Servers of a NATS cluster that hold the lease of the leader. `None`: three where the cluster has three or more,
    /// else one. Fewer than it has are never set; more are added in place.
    pub lease_replicas: Option<usize>,
}

/// Who we are to a NATS server.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user and its password.
    User(String, String),
    /// A token.
    Token(String),
    /// A file with a JWT and the seed of its key.
    File(PathBuf),
}

// Neither is ever printed as it is: URLs may hold passwords.
impl fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSettings").finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Why there is no connection to NATS.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A server's URL cannot be read. What it is is not repeated: it may hold a password.
    #[error("the URL of a NATS server must be nats://host:port or tls://host:port")]
    Url,
    /// The file of credentials cannot be read.
    #[error("cannot read the credentials in {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// The file of authorities cannot be read.
    #[error("cannot read the certificates in {}", .0.display())]
    Authorities(PathBuf, #[source] std::io::Error),
    /// It took too long.
    #[error("no answer from {0} within {1:?}")]
    TimedOut(String, Duration),
    /// The server does not know us.
    #[error("{0} refuses our user and password, token or credentials")]
    Refused(String),
    /// Anything else. The library's error tells its cause, too.
    #[error("cannot connect to {0}: {1}")]
    Unreachable(String, async_nats::ConnectError),
}

/// A connection to NATS.
pub(crate) struct Nats {
    client: Client,
    commands: mpsc::Sender<WriterCommand>,
    subscribe_requests: mpsc::UnboundedSender<SubscribeRequest>,
    disconnected: Arc<AtomicBool>,
    reconnects: watch::Receiver<u64>,
    fence: Arc<EpochFence>,
    subject_scheme: SubjectScheme,
    replicas: ReplicaTarget,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("away", &self.disconnected).finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects, and stays connected: when the connection goes, it is tried again for ever.
    pub(crate) async fn connect(settings: NatsSettings) -> Result<Self, ConnectError> {
        let NatsSettings {
            servers,
            credentials,
            ca_file,
            subject_scheme: layout,
            connect_timeout,
            pattern_queue,
            lease_replicas,
        } = settings;
        let read: Result<Vec<ServerAddr>, _> = servers.iter().map(|url| url.parse()).collect();
        let read = read.map_err(|_| ConnectError::Url)?;
        let credentials = match credentials {
            Credentials::None => read.iter().find_map(Credentials::from_url).unwrap_or_default(),
            given => given,
        };
        let servers: Vec<String> = read.iter().map(without_credentials).collect();
        let named = servers.join(", ");
        let subscribers = Subscribers::default();
        let mut options = credentials
            .apply(ConnectOptions::new())
            .await?
            .name("atoll")
            .client_capacity(CLIENT_QUEUE)
            .subscription_capacity(pattern_queue.unwrap_or(PATTERN_QUEUE))
            .ping_interval(PING_INTERVAL)
            .connection_timeout(connect_timeout)
            .reconnect_delay_callback(backoff)
            .event_callback(event_handler(subscribers.clone()));
        if let Some(file) = ca_file {
            // The library would not say which file it is.
            std::fs::metadata(&file).map_err(|error| ConnectError::Authorities(file.clone(), error))?;
            options = options.add_root_certificates(file);
        }
        let connecting = time::timeout(connect_timeout, options.connect(servers));
        let client = match connecting.await {
            Err(_) => return Err(ConnectError::TimedOut(named, connect_timeout)),
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    ConnectErrorKind::TimedOut => ConnectError::TimedOut(named, connect_timeout),
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        ConnectError::Refused(named)
                    }
                    _ => ConnectError::Unreachable(named, error),
                });
            }
        };
        let server = client.server_info();
        tracing::info!(server = named, name = server.server_name, version = server.version, "on the bus");
        let (errands, errands_receiver) = mpsc::channel(OUTGOING_QUEUE);
        let (openings, openings_receiver) = mpsc::unbounded_channel();
        let away = Arc::new(AtomicBool::new(false));
        let (returned, returns) = watch::channel(0);
        let channels = (errands_receiver, openings_receiver);
        let courier = WriterTask::new(client.clone(), channels, away.clone(), returned, subscribers);
        tokio::spawn(courier.run());
        let (epochs, replicas) = (Arc::default(), ReplicaTarget::new(lease_replicas));
        Ok(Self {
            client,
            commands: errands,
            subscribe_requests: openings,
            disconnected: away,
            reconnects: returns,
            fence: epochs,
            subject_scheme: layout,
            replicas,
        })
    }

    pub(crate) fn publish(&self, subject: &Subject, headers: Headers, payload: Bytes) {
        let headers = self.subject_scheme.has_headers(subject).then_some(headers);
        let holds_late = subject.survives_disconnect();
        if !holds_late && self.is_disconnected() {
            return DropReason::Stale.count();
        }
        let Some(subject) = self.subject_scheme.format(subject) else { return };
        let publication = Publication {
            subject,
            survives_disconnect: holds_late,
            headers,
            payload,
            queued_at: Instant::now(),
        };
        if self.commands.try_send(WriterCommand::Publish(publication)).is_err() {
            DropReason::Full.count();
        }
    }

    pub(crate) fn subscribe(
        &self,
        name: &'static str,
        patterns: &[&str],
        capacity: usize,
    ) -> mpsc::Receiver<Envelope> {
        let (inbox, receiver) = SubscriberQueue::new(name, capacity, self.fence.clone());
        let patterns = patterns.iter().filter_map(|pattern| self.subject_scheme.pattern(pattern));
        let patterns = patterns.map(str::to_owned).collect();
        // Where the connection has ended for good, so has the subscription.
        let _ = self.subscribe_requests.send(SubscribeRequest {
            patterns,
            subject_scheme: self.subject_scheme,
            queue: inbox,
        });
        receiver
    }

    pub(crate) fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::Relaxed)
    }

    pub(crate) fn campaign(&self, lease_name: &'static str) -> Candidate {
        let (resign, resigned) = oneshot::channel();
        let (found, polled) = watch::channel(ObservedState::UNKNOWN);
        let mut task = JoinSet::new();
        let lease = LeaseTask::new(self.client.clone(), lease_name, self.fence.clone(), found, self.replicas);
        task.spawn(lease.run(resigned));
        task.spawn(ReplicaGrower::new(self.client.clone(), self.replicas, polled.clone()).run());
        Candidate::new(polled, Some(CandidateTasks { resign, tasks: task }))
    }

    pub(crate) fn subject_scheme(&self) -> SubjectScheme {
        self.subject_scheme
    }

    pub(crate) fn fence(&self) -> &EpochFence {
        &self.fence
    }

    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.clone()
    }

    pub(crate) async fn wait_for_capacity(&self) {
        while self.commands.capacity() < OUTGOING_QUEUE / 2 && !self.commands.is_closed() {
            time::sleep(CAPACITY_POLL_INTERVAL).await;
        }
    }

    pub(crate) async fn flush(&self) {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(WriterCommand::Flush(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}

impl Credentials {
    /// What stands before the host, which the client library does not read.
    fn from_url(address: &ServerAddr) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = decoded(address.username()?);
        Some(match address.password() {
            Some(password) => Self::User(user, decoded(password)),
            None => Self::Token(user),
        })
    }

    async fn apply(self, options: ConnectOptions) -> Result<ConnectOptions, ConnectError> {
        Ok(match self {
            Self::None => options,
            Self::User(user, password) => options.user_and_password(user, password),
            Self::Token(token) => options.token(token),
            Self::File(path) => {
                let read = options.credentials_file(&path).await;
                read.map_err(|error| ConnectError::File(path, error))?
            }
        })
    }
}

/// The URL of a server, without what nobody may read.
fn without_credentials(address: &ServerAddr) -> String {
    let (scheme, host, port) = (address.scheme(), address.host(), address.port());
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

/// Before the attempt of this number: at random, so that not everybody comes back at once.
fn backoff(attempt: usize) -> Duration {
    let exponent = u32::try_from(attempt.min(6)).unwrap_or_default();
    (Duration::from_millis(25) * 2_u32.pow(exponent)).min(MAX_BACKOFF).mul_f64(rand::random())
}

/// Counts what the client library drops, under the name of whom it was for, and what the server refuses.
fn event_handler(
    subscribers: Subscribers,
) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static {
    let warned = Mutex::<Option<Instant>>::default();
    move |event| {
        match event {
            Event::SlowConsumer(subscription) => {
                let subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(inbox) = subscribers.get(&subscription) {
                    inbox.count_slow_consumer();
                }
            }
            Event::ServerError(error) => on_server_error(&error, &warned),
            _ => {}
        }
        std::future::ready(())
    }
}

/// What we may not say or hear goes nowhere, and nothing but this tells of it: permissions that do not
/// fit the roles of the process. Each subject is counted alike, so that no client can make names.
fn on_server_error(error: &ServerError, warned: &Mutex<Option<Instant>>) {
    let text = error.to_string();
    let what = if text.contains("Permissions Violation for Publish") {
        "publish"
    } else if text.contains("Permissions Violation for Subscription") {
        "subscribe"
    } else {
        "other"
    };
    metrics::counter!("atoll_bus_refused_total", "what" => what).increment(1);
    let mut warned = warned.lock().unwrap_or_else(PoisonError::into_inner);
    // We ask to hear few things, each once a connection, and may say many.
    if what != "subscribe" {
        if warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
    }
    tracing::error!(error = text, "the NATS server refuses what we say or want to hear");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_credentials_are_parsed_and_never_printed() {
        let read = |url: &str| {
            let address: ServerAddr = url.parse().unwrap();
            let credentials = match Credentials::from_url(&address) {
                None => Vec::new(),
                Some(Credentials::User(user, password)) => vec![user, password],
                Some(Credentials::Token(token)) => vec![token],
                Some(other) => panic!("{other:?}"),
            };
            (credentials, without_credentials(&address))
        };
        assert_eq!(read("nats://host"), (vec![], "nats://host:4222".to_owned()));
        let user = vec!["user".to_owned(), "p@ss".to_owned()];
        assert_eq!(read("tls://user:p%40ss@host:1"), (user, "tls://host:1".to_owned()));
        assert_eq!(read("nats://token@[::1]:2"), (vec!["token".to_owned()], "nats://[::1]:2".to_owned()));
    }

    #[test]
    fn backoff_grows_up_to_its_maximum() {
        for attempt in [0, 1, 2, 10, usize::MAX] {
            assert!(backoff(attempt) <= MAX_BACKOFF);
        }
        assert!(backoff(1) <= Duration::from_millis(50));
    }
}
