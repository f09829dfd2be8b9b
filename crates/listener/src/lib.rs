//! The HTTP/1 accept loop of every listener of a process.
//!
//! It serves HTTP/1 and nothing else: HTTP/2 by prior knowledge is answered like any malformed request. Each
//! connection has deadlines for its request head, its idle time and the progress of its responses.
//! Connections are limited in total and per network. Each request carries the network of its client in its
//! extensions, as an [`admission::Network`].

mod address;
mod connection;
mod proxy_protocol;
mod state;
mod stream;

use std::{io, sync::Arc, time::Duration};

use admission::{ConnectionLimiter, ConnectionLimits};
use axum::Router;
use tokio::{net::TcpListener, sync::watch, time};

pub use address::ClientAddresses;
pub use stream::Stream;

/// The deadlines and limits of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The label of its metrics: `public`, `admin` or `metrics`.
    pub name: &'static str,
    /// Time limit for a request head, counted from its first byte; for the first request of a connection,
    /// from `accept`. The PROXY protocol header counts towards that time.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests. Load balancers keep pooled connections for
    /// about 60 s, so this should be longer: otherwise a load balancer may send a request on a connection
    /// that was just closed.
    pub idle_timeout: Duration,
    /// A connection is closed when its client reads less than 1 KiB a second of a response for this long.
    pub write_timeout: Duration,
    /// The limits of connections in total and per network. Connections of trusted proxies count in the total
    /// alone.
    pub connections: ConnectionLimits,
    /// How the address of a client is determined.
    pub addresses: ClientAddresses,
}

/// The largest request head, in bytes; a larger one is answered with 431. hyper checks the size between two
/// reads, so a head may exceed it by the bytes of one read.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The pause after `accept` failed because the process is out of file descriptors or memory: both become
/// available only when connections end.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves `app` on `listener` until `shutdown` completes. Then the listener accepts no more connections and
/// closes idle ones, and the function returns when the running requests have been answered. It does not wait
/// for upgraded connections (WebSockets).
pub async fn serve(
    listener: TcpListener,
    app: Router,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) {
    let limiter = ConnectionLimiter::new(settings.name, settings.connections);
    // Each connection holds a receiver until it ends.
    let closing = watch::Sender::new(());
    let settings = Arc::new(settings);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (settings, app, limiter) = (settings.clone(), app.clone(), limiter.clone());
                tokio::spawn(connection::serve(stream, peer, app, settings, limiter, closing.subscribe()));
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                metrics::counter!("atoll_listener_accept_errors_total", "listener" => settings.name)
                    .increment(1);
                tracing::debug!(%error, listener = settings.name, "accept failed");
                time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    closing.send_replace(());
    closing.closed().await;
}

/// Whether an error of `accept` concerns only the connection that was to be accepted.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
