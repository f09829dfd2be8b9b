//! Connecting to NATS.

use std::{path::PathBuf, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::time;

use super::{
    settings::{Credentials, NatsSettings},
    timing::MAX_RECONNECT_BACKOFF,
};

/// Messages that the client library can queue. Few, because it sends them late when the connection breaks.
const CLIENT_QUEUE: usize = 256;
/// Messages of one pattern that can wait for the reader task; when the queue is full the newest is dropped
/// and counted.
const PATTERN_QUEUE: usize = 65_536;
/// How often the client pings the server; after three pings without a reply the connection counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(3);

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

/// Connects, and reports the events of the connection to `on_event`. When the connection is lost later, it is
/// re-established with unlimited attempts.
pub(super) async fn connect(
    settings: NatsSettings,
    on_event: impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static,
) -> Result<Client, ConnectError> {
    let addresses: Result<Vec<ServerAddr>, _> = settings.servers.iter().map(|url| url.parse()).collect();
    let addresses = addresses.map_err(|_| ConnectError::Url)?;
    let credentials = match settings.credentials {
        Credentials::None => addresses.iter().find_map(Credentials::from_url).unwrap_or_default(),
        given => given,
    };
    let mut options = credentials
        .apply(ConnectOptions::new())
        .await?
        .name("atoll")
        .client_capacity(CLIENT_QUEUE)
        .subscription_capacity(settings.pattern_queue.unwrap_or(PATTERN_QUEUE))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(settings.connect_timeout)
        .reconnect_delay_callback(backoff)
        .event_callback(on_event);
    if let Some(file) = settings.ca_file {
        // The client library's error would not name the file.
        std::fs::metadata(&file).map_err(|error| ConnectError::Authorities(file.clone(), error))?;
        options = options.add_root_certificates(file);
    }
    let servers: Vec<String> = addresses.iter().map(without_credentials).collect();
    let server_list = servers.join(", ");
    let connecting = time::timeout(settings.connect_timeout, options.connect(servers));
    let client = match connecting.await {
        Err(_) => return Err(ConnectError::TimedOut(server_list, settings.connect_timeout)),
        Ok(Err(error)) => return Err(ConnectError::new(error, server_list, settings.connect_timeout)),
        Ok(Ok(client)) => client,
    };
    let server = client.server_info();
    tracing::info!(
        server = server_list,
        name = server.server_name,
        version = server.version,
        "connected to NATS"
    );
    Ok(client)
}

impl ConnectError {
    /// Classifies an error of the client library.
    fn new(error: async_nats::ConnectError, servers: String, timeout: Duration) -> Self {
        match error.kind() {
            ConnectErrorKind::TimedOut => Self::TimedOut(servers, timeout),
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Self::Refused(servers)
            }
            _ => Self::Unreachable(servers, error),
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
    (Duration::from_millis(25) * 2_u32.pow(exponent)).min(MAX_RECONNECT_BACKOFF).mul_f64(rand::random())
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
            assert!(backoff(attempt) <= MAX_RECONNECT_BACKOFF);
        }
        assert!(backoff(1) <= Duration::from_millis(50));
    }
}
