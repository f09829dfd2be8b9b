//! The HTTP server: connections that dawdle are closed.

use std::{
    net::{SocketAddr, TcpListener},
    pin::Pin,
    time::Duration,
};

use anyhow::Result;
use axum::Router;
use axum_server::{Handle, accept::Accept};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{net::TcpStream, time};

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until the head of a request is there.
    pub(super) head: Duration,
    /// While it takes nothing of what it is sent.
    pub(super) write: Duration,
}

/// Serves HTTP/1.1 on the listener. A connection that says nothing, or its request too slowly, or
/// does not take its answer, is closed.
pub(super) fn listen(
    listener: TcpListener,
    app: Router,
    handle: Handle<SocketAddr>,
    patience: Patience,
) -> Result<impl Future<Output = std::io::Result<()>> + Send> {
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(Punctual(patience));
    // Without the guess at the version, which waits for first bytes for ever.
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(patience.head);
    *server.http_builder() = http;
    Ok(server.serve(app.into_make_service_with_connect_info::<SocketAddr>()))
}

/// Takes connections whose first byte comes in time: until then the HTTP server runs no timer. While
/// nothing of what they are sent is taken, their time runs, too.
#[derive(Clone)]
struct Punctual(Patience);

impl<S: Send + 'static> Accept<TcpStream, S> for Punctual {
    type Stream = TcpStream;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<(TcpStream, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self(patience) = *self;
        Box::pin(async move {
            stream.set_nodelay(true)?;
            // The HTTP server has no timer for writes either; the kernel does.
            #[cfg(any(target_os = "android", target_os = "linux"))]
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience.write))?;
            time::timeout(patience.head, stream.peek(&mut [0])).await??;
            Ok((stream, service))
        })
    }
}
