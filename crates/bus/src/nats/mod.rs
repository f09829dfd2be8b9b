//! The bus over NATS.
//!
//! Published messages wait in a bounded queue for the writer task, which numbers them and passes them to the
//! client library; so publishing never waits for the network. Each subscriber has a reader task, which merges
//! the messages of its patterns in order and adds them to the subscriber's queue.

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

/// Messages that can wait to be published; when the queue is full the newest is dropped and counted.
const OUTGOING_QUEUE: usize = 65_536;
/// How often [`Nats::wait_for_capacity`] checks whether half of the queue is free.
const CAPACITY_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Messages that the client library can queue. Few, because it sends them late when the connection breaks.
const CLIENT_QUEUE: usize = 256;
/// Messages of one pattern that can wait for the reader task; when the queue is full the newest is dropped
/// and counted.
const PATTERN_QUEUE: usize = 65_536;
/// How often the client pings the server; after three pings without a reply the connection counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// The shortest time between two log messages about refused publications.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// The longest delay between two attempts to reconnect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The address of a NATS server, and the credentials for it.
#[derive(Clone)]
pub struct NatsSettings {
    /// `nats://host:port`, or `tls://`. Several servers of one cluster may be given; the client connects to
    /// any of them.
    pub servers: Vec<String>,
    /// If none are given, `user:password@` or `token@` before the first host that has it is used for all
    /// servers of the cluster.
    pub credentials: Credentials,
    /// Certificates of the authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The scheme in which subjects are written on this server.
    pub subject_scheme: SubjectScheme,
    /// The longest time for the first connection.
    pub connect_timeout: Duration,
    /// Messages of one pattern that can wait for the reader task; `None` for the default.
    pub pattern_queue: Option<usize>,
    /// Servers of a NATS cluster that store the lease of the leader. `None`: three where the cluster has
    /// three or more, else one. The number is never reduced; replicas are added in place.
    pub lease_replicas: Option<usize>,
}

/// How this process authenticates to a NATS server.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Without credentials.
    #[default]
    None,
    /// A user and its password.
    User(String, String),
    /// A token.
    Token(String),
    /// A file with a JWT and the seed of its key.
    File(PathBuf),
}

// Both are printed without their content: URLs may hold passwords.
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

/// Why no connection to NATS was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A server's URL is malformed. The error does not repeat it: it may hold a password.
    #[error("the URL of a NATS server must be nats://host:port or tls://host:port")]
    Url,
    /// The credentials file cannot be read.
    #[error("cannot read the credentials in {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// The file of certificate authorities cannot be read.
    #[error("cannot read the certificates in {}", .0.display())]
    Authorities(PathBuf, #[source] std::io::Error),
    /// The connection was not made in time.
    #[error("no reply from {0} within {1:?}")]
    TimedOut(String, Duration),
    /// The server refuses the credentials.
    #[error("{0} refuses our user and password, token or credentials")]
    Refused(String),
    /// Any other error. The client library's error includes its cause.
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
        f.debug_struct("Nats").field("disconnected", &self.disconnected).finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects. When the connection is lost later, it is re-established with unlimited attempts.
    pub(crate) async fn connect(settings: NatsSettings) -> Result<Self, ConnectError> {
        let NatsSettings {
            servers,
            credentials,
            ca_file,
            subject_scheme,
            connect_timeout,
            pattern_queue,
            lease_replicas,
        } = settings;
        let addresses: Result<Vec<ServerAddr>, _> = servers.iter().map(|url| url.parse()).collect();
        let addresses = addresses.map_err(|_| ConnectError::Url)?;
        let credentials = match credentials {
            Credentials::None => addresses.iter().find_map(Credentials::from_url).unwrap_or_default(),
            given => given,
        };
        let servers: Vec<String> = addresses.iter().map(without_credentials).collect();
        let server_list = servers.join(", ");
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
            // The client library's error would not name the file.
            std::fs::metadata(&file).map_err(|error| ConnectError::Authorities(file.clone(), error))?;
            options = options.add_root_certificates(file);
        }
        let connecting = time::timeout(connect_timeout, options.connect(servers));
        let client = match connecting.await {
            Err(_) => return Err(ConnectError::TimedOut(server_list, connect_timeout)),
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    ConnectErrorKind::TimedOut => ConnectError::TimedOut(server_list, connect_timeout),
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        ConnectError::Refused(server_list)
                    }
                    _ => ConnectError::Unreachable(server_list, error),
                });
            }
        };
        let server = client.server_info();
        tracing::info!(
            server = server_list,
            name = server.server_name,
            version = server.version,
            "connected to NATS"
        );
        let (commands, commands_receiver) = mpsc::channel(OUTGOING_QUEUE);
        let (subscribe_requests, subscribe_requests_receiver) = mpsc::unbounded_channel();
        let disconnected = Arc::new(AtomicBool::new(false));
        let (reconnects_sender, reconnects) = watch::channel(0);
        let channels = (commands_receiver, subscribe_requests_receiver);
        let writer =
            WriterTask::new(client.clone(), channels, disconnected.clone(), reconnects_sender, subscribers);
        tokio::spawn(writer.run());
        let (fence, replicas) = (Arc::default(), ReplicaTarget::new(lease_replicas));
        Ok(Self {
            client,
            commands,
            subscribe_requests,
            disconnected,
            reconnects,
            fence,
            subject_scheme,
            replicas,
        })
    }

    pub(crate) fn publish(&self, subject: &Subject, headers: Headers, payload: Bytes) {
        let headers = self.subject_scheme.has_headers(subject).then_some(headers);
        let survives_disconnect = subject.survives_disconnect();
        if !survives_disconnect && self.is_disconnected() {
            return DropReason::Stale.count();
        }
        let Some(subject) = self.subject_scheme.format(subject) else { return };
        let publication =
            Publication { subject, survives_disconnect, headers, payload, queued_at: Instant::now() };
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
        let (queue, receiver) = SubscriberQueue::new(name, capacity, self.fence.clone());
        let patterns = patterns.iter().filter_map(|pattern| self.subject_scheme.pattern(pattern));
        let patterns = patterns.map(str::to_owned).collect();
        // If the connection is closed for good, the subscription ends too.
        let _ = self.subscribe_requests.send(SubscribeRequest {
            patterns,
            subject_scheme: self.subject_scheme,
            queue,
        });
        receiver
    }

    pub(crate) fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::Relaxed)
    }

    pub(crate) fn campaign(&self, lease_name: &'static str) -> Candidate {
        let (resign, resigned) = oneshot::channel();
        let (observed_sender, observed) = watch::channel(ObservedState::UNKNOWN);
        let mut tasks = JoinSet::new();
        let lease = LeaseTask::new(
            self.client.clone(),
            lease_name,
            self.fence.clone(),
            observed_sender,
            self.replicas,
        );
        tasks.spawn(lease.run(resigned));
        tasks.spawn(ReplicaGrower::new(self.client.clone(), self.replicas, observed.clone()).run());
        Candidate::new(observed, Some(CandidateTasks { resign, tasks }))
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
        let (reply_sender, reply) = oneshot::channel();
        if self.commands.send(WriterCommand::Flush(reply_sender)).await.is_ok() {
            let _ = reply.await;
        }
    }
}

impl Credentials {
    /// The credentials in the URL, which the client library ignores.
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

/// The URL of a server without its credentials, for logs and errors.
fn without_credentials(address: &ServerAddr) -> String {
    let (scheme, host, port) = (address.scheme(), address.host(), address.port());
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

/// The delay before the reconnect attempt of this number: exponential with full jitter, so that clients do
/// not all reconnect at once.
fn backoff(attempt: usize) -> Duration {
    let exponent = u32::try_from(attempt.min(6)).unwrap_or_default();
    (Duration::from_millis(25) * 2_u32.pow(exponent)).min(MAX_BACKOFF).mul_f64(rand::random())
}

/// Counts the messages that the client library drops, under the name of their subscriber, and the requests
/// that the server refuses.
fn event_handler(
    subscribers: Subscribers,
) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static {
    let last_warned = Mutex::<Option<Instant>>::default();
    move |event| {
        match event {
            Event::SlowConsumer(subscription) => {
                let subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(queue) = subscribers.get(&subscription) {
                    queue.count_slow_consumer();
                }
            }
            Event::ServerError(error) => on_server_error(&error, &last_warned),
            _ => {}
        }
        std::future::ready(())
    }
}

/// Counts and logs a request that the server refuses: its permissions do not fit the roles of this process.
/// This is the only sign of it, because the server drops refused messages silently. All subjects share one
/// counter, so that no client can create metric series.
fn on_server_error(error: &ServerError, last_warned: &Mutex<Option<Instant>>) {
    let text = error.to_string();
    let request = if text.contains("Permissions Violation for Publish") {
        "publish"
    } else if text.contains("Permissions Violation for Subscription") {
        "subscribe"
    } else {
        "other"
    };
    metrics::counter!("atoll_bus_refused_total", "what" => request).increment(1);
    let mut last_warned = last_warned.lock().unwrap_or_else(PoisonError::into_inner);
    // Refused subscriptions are always logged: there are few, each once per connection. Publications may be
    // many, so their log is limited.
    if request != "subscribe" {
        if last_warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        *last_warned = Some(Instant::now());
    }
    tracing::error!(error = text, "the NATS server refuses a publication or a subscription");
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
