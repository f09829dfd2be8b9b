//! The listener on real sockets: slow clients, floods, wrong proxy headers, limits and shutdown.

// Test helpers outside of test functions fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod deadlines;
mod limits;
mod protocol;
mod proxies;
mod shutdown;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use admission::{ConnectionLimits, Network};
use axum::{Extension, Router, body::Body, extract::Request, http::StatusCode, routing::get};
use hyper_util::rt::TokioIo;
use listener::{ClientAddresses, Settings, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, oneshot},
    time::{self, Instant, timeout},
};

/// Longer than any step of these tests takes, on any machine.
const TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET /network HTTP/1.1\r\nhost: a\r\n\r\n";

fn settings() -> Settings {
    Settings {
        name: "test",
        head_timeout: TIMEOUT,
        idle_timeout: TIMEOUT,
        write_timeout: TIMEOUT,
        connections: ConnectionLimits { total: 100, per_network: None, rate: None },
        addresses: ClientAddresses { ipv6_prefix: 64, ..ClientAddresses::default() },
    }
}

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        Self::start_with(settings, Router::new()).await
    }

    async fn start_with(settings: Settings, app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = app
            .route("/network", get(async |Extension(network): Extension<Network>| network.to_string()))
            // Larger than the socket buffers of the kernel.
            .route("/large", get(async || vec![b'x'; 64 * 1024 * 1024]));
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(listener::serve(listener, app, settings, async {
            let _ = stopped.await;
        }));
        Self { address, stop: Some(stop), ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection from a loopback address of its own.
    async fn connect_from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 7, last], 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends `request` on a new connection and reads until the connection ends.
    async fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        read_to_end(&mut stream).await
    }
}

/// An endpoint, `/gated`, that blocks each request until the test opens the gate.
#[derive(Clone, Default)]
struct Gate {
    arrived: Arc<Notify>,
    open: Arc<Notify>,
}

const GATED: &[u8] = b"GET /gated HTTP/1.1\r\nhost: a\r\n\r\n";

impl Gate {
    fn router(&self) -> Router {
        let gate = self.clone();
        let gated = async move || {
            gate.arrived.notify_one();
            gate.open.notified().await;
            "done"
        };
        Router::new().route("/gated", get(gated))
    }
}

/// Reads until the connection ends, by a close or a reset.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut received)).await.expect("the connection must end");
    String::from_utf8_lossy(&received).into_owned()
}

/// Reads one response with a body from a connection that stays open.
async fn response(stream: &mut TcpStream) -> String {
    let mut received = String::new();
    while !received.contains("\r\n\r\n") || received.ends_with("\r\n\r\n") {
        let mut buffer = [0; 1024];
        let count = timeout(TIMEOUT, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "the connection ended after {received:?}");
        received.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    received
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(
        timeout(TIMEOUT, stream.read(&mut [0; 64])).await.expect("the connection must end"),
        Ok(0) | Err(_)
    )
}
