//! The HTTP/1 accept loop of every listener of a process.
//!
//! It serves HTTP/1 and nothing else: HTTP/2 by prior knowledge is answered like any malformed request.
//! Each connection has deadlines for its request head, its idle time and the progress of its responses.
//! Connections are limited in total and per network, and the network of the client is put into the
//! extensions of each request as an [`admission::Network`].

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

/// How a listener treats its connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The label of its metrics: `public`, `admin`, `metrics`.
    pub name: &'static str,
    /// Until the head of a request has arrived, from its first byte; for the first request of a
    /// connection, from the time it was accepted. A PROXY protocol header counts with that.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests. Load balancers keep pooled connections for
    /// about 60 s, so this should be longer: else a request meets a connection that was just closed.
    pub idle_timeout: Duration,
    /// While a client takes less than 1 KiB a second of a response, for this long, its connection is
    /// closed.
    pub write_timeout: Duration,
    /// Connections in total and per network. Connections of trusted proxies count in the total alone.
    pub connections: ConnectionLimits,
    /// How the address of a client is found.
    pub addresses: ClientAddresses,
}

/// The largest request head, in bytes; a larger one is answered with 431. hyper looks at the size between two
/// reads, so a head may be larger by what one read brings.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How long the loop waits after `accept` failed for want of files or memory: they come back only
/// when connections end.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves `app` on `listener` until `shutdown` completes. Then no more connections are accepted, idle ones are
/// closed, and the function returns when the requests under way have been answered. Upgraded
/// connections (WebSockets) are not waited for.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) {
    let limiter = ConnectionLimiter::new(settings.name, settings.connections);
    // Each connection has a receiver until it ends.
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

/// Whether an error of `accept` is about the one connection that was to be accepted.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
