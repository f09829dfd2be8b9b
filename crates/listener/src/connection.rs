//! One connection, from `accept` to its end or its upgrade.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use admission::{ConnectionLimiter, Network, Permit};
use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{self, Instant},
};
use tower_service::Service as _;

use crate::{
    metrics, proxy_protocol,
    settings::Settings,
    state::{ConnectionState, Deadlines},
    stream::Stream,
};

/// The largest request head, in bytes; a larger one is answered with 431. hyper checks the size between two
/// reads, so a head may exceed it by the bytes of one read.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Serves one connection of `peer` until it ends or is upgraded. When `closing` changes, the connection ends
/// after the running request.
pub(crate) async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    app: Router,
    settings: Arc<Settings>,
    limiter: ConnectionLimiter,
    mut closing: watch::Receiver<()>,
) {
    let Some((tcp, client, permit, head_deadline)) = admit(tcp, peer.ip(), &settings, &limiter).await else {
        return;
    };
    let state = Arc::new(ConnectionState::new(permit));
    let stream = TokioIo::new(Stream::new(tcp, state.clone()));
    let shared = (state.clone(), settings.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, settings) = &shared;
        let client = settings.addresses.client_of_request(client, request.headers());
        serve_request(app.clone(), request, settings.addresses.network(client), state.clone())
    });
    // hyper has one timer for idle connections and request heads together, so `Deadlines` implements both.
    let connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .header_read_timeout(None)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut evicted = pin!(state.evicted());
    let mut deadlines = Deadlines::new(&state, &settings, head_deadline);
    let mut is_closing = false;
    let ended = async {
        loop {
            tokio::select! {
                biased;
                // A connection that the client ended is not counted.
                _ = &mut connection => return None,
                reason = poll_fn(|cx| deadlines.poll(cx)) => return Some(reason),
                () = &mut evicted => return Some("evicted"),
                _ = closing.changed(), if !is_closing => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    if let Some(reason) = ended.await {
        metrics::closed(settings.name, reason).increment(1);
    }
}

/// Acquires a permit for a connection and determines its client: the address in the PROXY protocol header, or
/// the other end of the connection. `None`: the connection is rejected by closing it.
async fn admit(
    mut tcp: TcpStream,
    peer: IpAddr,
    settings: &Settings,
    limiter: &ConnectionLimiter,
) -> Option<(TcpStream, IpAddr, Permit, Instant)> {
    let addresses = &settings.addresses;
    let refuse = |reason: &'static str| {
        metrics::closed(settings.name, reason).increment(1);
        None
    };
    if configure_socket(&tcp, settings).is_err() {
        return refuse("socket_error");
    }
    let head_deadline = Instant::now() + settings.head_timeout;
    let is_trusted = addresses.is_trusted(peer);
    let acquire = |address: IpAddr| {
        let network = addresses.network(address);
        match addresses.is_trusted(address) {
            true => limiter.acquire_exempt(network),
            false => limiter.acquire(network),
        }
    };
    let Ok(permit) = acquire(peer) else { return refuse("full") };
    if !(addresses.proxy_protocol && is_trusted) {
        return Some((tcp, peer, permit, head_deadline));
    }
    let header = time::timeout_at(head_deadline, proxy_protocol::read_header(&mut tcp)).await;
    match header {
        Ok(Ok(Some(client))) => {
            drop(permit);
            match acquire(client) {
                Ok(permit) => Some((tcp, client, permit, head_deadline)),
                Err(_) => refuse("full"),
            }
        }
        Ok(Ok(None)) => Some((tcp, peer, permit, head_deadline)),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "connection refused");
            refuse("proxy_protocol")
        }
        Err(_) => refuse("head_timeout"),
    }
}

fn configure_socket(tcp: &TcpStream, settings: &Settings) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    // Ends a connection after its other end vanished while a response is in flight: no more acknowledgements
    // arrive, so without this limit the stream would report no error.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(settings.write_timeout))?;
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = settings;
    Ok(())
}

/// Answers one request and records its begin and end in `state`.
async fn serve_request(
    mut app: Router,
    request: Request<Incoming>,
    client: Network,
    state: Arc<ConnectionState>,
) -> Result<Response<TrackedBody>, Infallible> {
    state.begin_request();
    let mut end = RequestGuard { state, upgraded: false };
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(client);
    let response = app.call(request).await?;
    end.upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    Ok(response.map(|body| TrackedBody { body, _guard: end }))
}

/// Records the end of a request when it is dropped.
struct RequestGuard {
    state: Arc<ConnectionState>,
    upgraded: bool,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.state.end_request(self.upgraded);
    }
}

/// The body of a response. hyper drops it when all of it was handed to the connection, and the dropped guard
/// records the end of the request.
struct TrackedBody {
    body: Body,
    _guard: RequestGuard,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
