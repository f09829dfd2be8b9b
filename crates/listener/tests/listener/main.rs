//! The listener on real sockets: slow clients, floods, wrong proxy headers, limits and shutdown.

// Test helpers outside of test functions fail by panicking, too.
#![allow(clippy::unwrap_used)]

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

mod protocol {
    use super::*;

    #[tokio::test]
    async fn http_2_by_prior_knowledge_is_refused() {
        let server = Server::start(settings()).await;
        let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings_frame].concat();
        let answer = server.answer(&preface).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    }

    #[tokio::test]
    async fn request_is_answered_with_the_network_of_its_peer() {
        let server = Server::start(settings()).await;
        let mut stream = server.connect_from(9).await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(response(&mut stream).await.ends_with("127.0.7.9"));
    }

    #[tokio::test]
    async fn head_above_the_limit_is_answered_431() {
        let server = Server::start(settings()).await;
        let head = format!("GET /network HTTP/1.1\r\nhost: a\r\nlong: {}\r\n\r\n", "x".repeat(100 * 1024));
        assert!(server.answer(head.as_bytes()).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn upgraded_stream_is_the_tcp_stream_itself() {
        let upgrade = async |mut request: Request| {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let parts = upgraded.await.unwrap().downcast::<TokioIo<Stream>>().unwrap();
                let mut stream = parts.io.into_inner();
                assert!(stream.get_ref().nodelay().unwrap());
                // Longer than the head and idle timeouts of this test.
                time::sleep(Duration::from_millis(300)).await;
                let mut received = parts.read_buf.to_vec();
                while received.len() < 4 {
                    stream.read_buf(&mut received).await.unwrap();
                }
                stream.write_all(&received).await.unwrap();
            });
            let mut response = axum::response::Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response
        };
        let short = Duration::from_millis(50);
        let settings =
            Settings { head_timeout: short, idle_timeout: short, write_timeout: short, ..settings() };
        let server = Server::start_with(settings, Router::new().route("/upgrade", get(upgrade))).await;
        let mut stream = server.connect().await;
        let request = b"GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nab";
        stream.write_all(request).await.unwrap();
        let head = {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(timeout(TIMEOUT, stream.read_u8()).await.unwrap().unwrap());
            }
            String::from_utf8(head).unwrap()
        };
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"cd").await.unwrap();
        let mut echoed = [0; 4];
        timeout(TIMEOUT, stream.read_exact(&mut echoed)).await.unwrap().unwrap();
        assert_eq!(&echoed, b"abcd");
    }
}

mod deadlines {
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn connection_without_a_whole_head_is_closed() {
        let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
        for beginning in [&b""[..], b"P", b"PRI *", b"GET / HTTP/1.1\r\nhost: a\r\n"] {
            let began = Instant::now();
            assert_eq!(server.answer(beginning).await, "", "{beginning:?}");
            assert!(began.elapsed() >= SHORT - Duration::from_millis(50));
        }
    }

    #[tokio::test]
    async fn dripped_head_does_not_extend_its_deadline() {
        let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
        let mut stream = server.connect().await;
        let drip = async {
            while stream.write_all(b"G").await.is_ok() {
                time::sleep(SHORT / 10).await;
            }
        };
        timeout(TIMEOUT, drip).await.expect("the connection must end");
    }

    #[tokio::test]
    async fn second_head_has_a_deadline_of_its_own() {
        let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        response(&mut stream).await;
        stream.write_all(b"GET").await.unwrap();
        assert!(is_closed(&mut stream).await);
    }

    #[tokio::test]
    async fn idle_connection_outlives_the_head_timeout() {
        let server = Server::start(Settings { head_timeout: SHORT, ..settings() }).await;
        let mut stream = server.connect().await;
        for _ in 0..2 {
            stream.write_all(REQUEST).await.unwrap();
            assert!(response(&mut stream).await.starts_with("HTTP/1.1 200"));
            time::sleep(SHORT * 2).await;
        }
        stream.write_all(REQUEST).await.unwrap();
        assert!(response(&mut stream).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn idle_connection_is_closed_after_the_idle_timeout() {
        let server = Server::start(Settings { idle_timeout: SHORT, ..settings() }).await;
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        response(&mut stream).await;
        assert!(is_closed(&mut stream).await);
    }

    #[tokio::test]
    async fn running_request_has_no_deadline() {
        let slow = get(async || {
            time::sleep(SHORT * 3).await;
            "late"
        });
        let settings = Settings { head_timeout: SHORT, idle_timeout: SHORT, ..settings() };
        let server = Server::start_with(settings, Router::new().route("/slow", slow)).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(response(&mut stream).await.ends_with("late"));
    }

    #[tokio::test]
    async fn unread_response_ends_the_connection() {
        let write_timeout = Duration::from_secs(1);
        let server = Server::start(Settings { write_timeout, ..settings() }).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // Bytes in the kernel's buffers are still readable after the server closed the connection; the rest
        // was never sent.
        time::sleep(write_timeout * 4).await;
        let mut received = 0;
        let mut buffer = vec![0; 1024 * 1024];
        while let Ok(count @ 1..) = timeout(TIMEOUT, stream.read(&mut buffer)).await.expect("it must end") {
            received += count;
        }
        assert!(received < 64 * 1024 * 1024, "{received}");
    }

    #[tokio::test]
    async fn response_read_steadily_arrives_whole() {
        let write_timeout = Duration::from_secs(1);
        let server = Server::start(Settings { write_timeout, ..settings() }).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 4 * 1024 * 1024];
        while let Ok(count @ 1..) = timeout(TIMEOUT, stream.read(&mut buffer)).await.expect("it must end") {
            received += count;
            time::sleep(Duration::from_millis(50)).await;
        }
        assert!(received > 64 * 1024 * 1024, "{received}");
    }
}

mod limits {
    use super::*;

    fn limits(total: usize, per_network: Option<usize>) -> Settings {
        Settings { connections: ConnectionLimits { total, per_network, rate: None }, ..settings() }
    }

    #[tokio::test]
    async fn silent_connections_of_one_network_are_evicted() {
        let server = Server::start(limits(3, None)).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(server.connect_from(1).await);
        }
        let mut stream = server.connect_from(2).await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(response(&mut stream).await.ends_with("127.0.7.2"));
        assert!(is_closed(&mut silent[0]).await, "the oldest");
        silent[2].write_all(REQUEST).await.unwrap();
        assert!(response(&mut silent[2]).await.ends_with("127.0.7.1"), "a newer one");
    }

    #[tokio::test]
    async fn busy_connection_is_never_evicted() {
        let gate = Gate::default();
        let server = Server::start_with(limits(1, None), gate.router()).await;
        let mut stream = server.connect_from(1).await;
        stream.write_all(GATED).await.unwrap();
        gate.arrived.notified().await;
        assert!(is_closed(&mut server.connect_from(2).await).await);
        gate.open.notify_one();
        assert!(response(&mut stream).await.ends_with("done"));
    }

    #[tokio::test]
    async fn connection_with_unread_response_is_evicted() {
        let server = Server::start(limits(1, None)).await;
        let mut unread = server.connect_from(1).await;
        unread.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let began = Instant::now();
        loop {
            let mut stream = server.connect_from(2).await;
            stream.write_all(REQUEST).await.unwrap();
            if read_to_network(&mut stream).await {
                break;
            }
            assert!(began.elapsed() < TIMEOUT);
        }
    }

    async fn read_to_network(stream: &mut TcpStream) -> bool {
        let mut received = vec![0; 1024];
        match timeout(TIMEOUT, stream.read(&mut received)).await.unwrap() {
            Ok(count @ 1..) => received[..count].starts_with(b"HTTP/1.1 200"),
            _ => false,
        }
    }

    #[tokio::test]
    async fn network_limit_does_not_affect_other_networks() {
        let server = Server::start(limits(9, Some(2))).await;
        let _held = [server.connect_from(1).await, server.connect_from(1).await];
        // The two are counted before a third is accepted.
        assert!(is_closed(&mut server.connect_from(1).await).await);
        let mut stream = server.connect_from(2).await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(response(&mut stream).await.ends_with("127.0.7.2"));
    }
}

mod proxies {
    use super::*;

    fn behind_loopback(proxy_protocol: bool) -> Settings {
        let trusted_proxies = vec!["127.0.0.0/24".parse().unwrap()];
        let addresses = ClientAddresses { trusted_proxies, proxy_protocol, ipv6_prefix: 64 };
        Settings { addresses, ..settings() }
    }

    async fn network_of(stream: &mut TcpStream, before: &[u8], header: &str) -> String {
        let request = format!("GET /network HTTP/1.1\r\nhost: a\r\n{header}\r\n");
        stream.write_all(&[before, request.as_bytes()].concat()).await.unwrap();
        response(stream).await.rsplit("\r\n").next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn proxied_request_has_the_network_of_its_client() {
        let server = Server::start(behind_loopback(false)).await;
        let mut stream = server.connect().await;
        for (header, network) in [
            ("x-forwarded-for: 192.0.2.1\r\n", "192.0.2.1"),
            ("x-forwarded-for: 2001:db8:1:2:3::4\r\n", "2001:db8:1:2::"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(network_of(&mut stream, b"", header).await, network);
        }
        let mut direct = server.connect_from(1).await;
        assert_eq!(network_of(&mut direct, b"", "x-forwarded-for: 192.0.2.1\r\n").await, "127.0.7.1");
    }

    #[tokio::test]
    async fn proxy_protocol_names_the_client_of_a_connection() {
        let server = Server::start(behind_loopback(true)).await;
        let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n";
        assert_eq!(network_of(&mut server.connect().await, header, "").await, "192.0.2.1");
        let addresses = [192, 0, 2, 7, 127, 0, 0, 1, 0x13, 0x88, 0, 80];
        let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat();
        assert_eq!(network_of(&mut server.connect().await, &header, "").await, "192.0.2.7");
    }

    #[tokio::test]
    async fn trusted_proxy_without_a_header_is_rejected() {
        let server = Server::start(behind_loopback(true)).await;
        assert_eq!(server.answer(REQUEST).await, "");
    }

    #[tokio::test]
    async fn proxy_header_of_an_untrusted_peer_is_rejected() {
        let server = Server::start(behind_loopback(true)).await;
        let mut stream = server.connect_from(1).await;
        let request = [b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n".as_slice(), REQUEST].concat();
        stream.write_all(&request).await.unwrap();
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400"));
        let mut direct = server.connect_from(2).await;
        assert_eq!(network_of(&mut direct, b"", "").await, "127.0.7.2", "without one it is served");
    }

    #[tokio::test]
    async fn connections_of_a_proxy_do_not_count_per_network() {
        let limits = ConnectionLimits { total: 9, per_network: Some(1), rate: None };
        let server = Server::start(Settings { connections: limits, ..behind_loopback(false) }).await;
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut stream = server.connect().await;
            assert_eq!(network_of(&mut stream, b"", "x-forwarded-for: 1.2.3.4\r\n").await, "1.2.3.4");
            streams.push(stream);
        }
    }

    #[tokio::test]
    async fn proxied_connections_count_for_their_clients() {
        let limits = ConnectionLimits { total: 9, per_network: Some(1), rate: None };
        let server = Server::start(Settings { connections: limits, ..behind_loopback(true) }).await;
        let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n";
        let mut first = server.connect().await;
        assert_eq!(network_of(&mut first, header, "").await, "192.0.2.1");
        assert_eq!(server.answer(&[&header[..], REQUEST].concat()).await, "");
        let other = b"PROXY TCP4 192.0.2.2 127.0.0.1 5000 80\r\n";
        assert_eq!(network_of(&mut server.connect().await, other, "").await, "192.0.2.2");
    }

    #[test]
    fn default_ipv6_network_is_64_bits() {
        let network = Network::from_ip("2001:db8::1".parse::<IpAddr>().unwrap(), 64);
        assert_eq!(network.to_string(), "2001:db8::");
    }
}

mod shutdown {
    use super::*;

    #[tokio::test]
    async fn shutdown_answers_running_requests_and_closes_idle() {
        let gate = Gate::default();
        let mut server = Server::start_with(settings(), gate.router()).await;
        let mut idle = server.connect().await;
        idle.write_all(REQUEST).await.unwrap();
        response(&mut idle).await;
        let mut busy = server.connect().await;
        busy.write_all(GATED).await.unwrap();
        gate.arrived.notified().await;
        server.stop.take().unwrap().send(()).unwrap();
        assert!(is_closed(&mut idle).await);
        assert!(!server.ended.is_finished());
        gate.open.notify_one();
        assert!(response(&mut busy).await.ends_with("done"));
        timeout(TIMEOUT, &mut server.ended).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "the port is free");
    }
}
