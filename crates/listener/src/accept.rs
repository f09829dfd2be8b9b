//! The accept loop.

use std::{io, sync::Arc, time::Duration};

use admission::ConnectionLimiter;
use axum::Router;
use tokio::{net::TcpListener, sync::watch, time};

use crate::{connection, metrics, settings::Settings};

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
                metrics::accept_errors(settings.name).increment(1);
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
