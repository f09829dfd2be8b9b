//! Tests of the signalling proxy against a stub of a LiveKit server.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use admission::ConnectionLimits;
use axum::body::Body;
use protocol::{Address, ConnectionString, MediaGrants};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use transports::livekit::Minter;

use super::*;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: lk\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                         Sec-WebSocket-Protocol: lk\r\n\r\n";

/// A proxy in front of a stub server, below the prefix `/realm`.
struct Fixture {
    limiter: ConnectionLimiter,
    address: std::net::SocketAddr,
    server: TcpListener,
    is_member: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Admission>>>,
}

fn network() -> Network {
    Network::from_ip([127, 0, 0, 1].into(), 64)
}

fn limiter(total: usize) -> ConnectionLimiter {
    ConnectionLimiter::new("livekit-proxy", ConnectionLimits { total, per_network: None, rate: None })
}

fn keys() -> Keys {
    Keys::new("key", "secret")
}

fn token(keys: Keys) -> String {
    let minter = Minter::new(keys, Duration::from_secs(300));
    let room = "I1".parse().unwrap();
    let connection =
        minter.connection("wss://host", &room, Address::new([1; 20]), MediaGrants::default(), None).unwrap();
    let ConnectionString::LiveKit { access_token, .. } = connection else { panic!("{connection}") };
    access_token
}

impl Fixture {
    async fn start(max_connections: usize) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/sub/", server.local_addr().unwrap());
        let (is_member, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let check: MembershipCheck = {
            let (is_member, asked) = (is_member.clone(), asked.clone());
            Arc::new(move |admission| {
                asked.lock().unwrap().push(admission);
                let answer = is_member.load(Ordering::Relaxed);
                Box::pin(async move { answer })
            })
        };
        let node = ProxiedServer { node: "lk".parse().unwrap(), url, keys: keys() };
        let limiter = limiter(max_connections);
        let proxy = SignallingProxy::new(&[node], check, limiter.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().nest("/realm", proxy.router()).layer(Extension(network()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { limiter, address, server, is_member, asked }
    }

    /// Sends a request to the proxy.
    async fn request(&self, method: &str, target: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{method} /realm{target} HTTP/1.1\r\nHost: realm\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// The status and the text of the answer to a request that the proxy answers itself.
    async fn refusal(&self, method: &str, target: &str, headers: &str) -> String {
        let headers = format!("Connection: close\r\n{headers}");
        let mut stream = self.request(method, target, &headers).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        format!("{status} {body}")
    }

    /// The next connection to the server, and the head of its request.
    async fn accept(&self) -> (TcpStream, String) {
        let (mut stream, _) =
            time::timeout(Duration::from_secs(5), self.server.accept()).await.unwrap().unwrap();
        let head = read_head(&mut stream).await;
        (stream, head)
    }

    async fn assert_idle(&self) {
        for _ in 0..100 {
            if self.limiter.permits_count() == 0 {
                return;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} connections", self.limiter.permits_count());
    }
}

/// The head of a request or response, up to the empty line.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn websocket_is_relayed_until_the_server_closes() {
    let fixture = Fixture::start(4).await;
    let token = token(keys());
    let target = format!("/livekit/lk/rtc?auto_subscribe=1&access_token={token}");
    let mut client = fixture.request("GET", &target, UPGRADE).await;
    let (mut server, head) = fixture.accept().await;
    let request_line = format!("GET /sub/rtc?auto_subscribe=1&access_token={token} HTTP/1.1\r\n");
    assert!(head.starts_with(&request_line), "{head}");
    let lower_case = head.to_lowercase();
    for header in [
        format!("authorization: Bearer {token}\r\n").to_lowercase(),
        "upgrade: websocket\r\n".to_owned(),
        "connection: upgrade\r\n".to_owned(),
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n".to_owned(),
    ] {
        assert!(lower_case.contains(&header), "{header:?} in {head}");
    }
    server.write_all(SWITCHING.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: lk\r\n"), "{head}");
    assert_eq!(fixture.limiter.permits_count(), 1);
    client.write_all(b"from the client").await.unwrap();
    let mut received = [0; 15];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"from the client");
    // A Leave message with a list of other servers.
    server.write_all(&[0x82, 7, 0x42, 0x05, 0x10, 0x04, 0x22, 0x01, 0x78]).await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x82, 4, 0x42, 0x02, 0x10, 0x04]);
    drop(client);
    fixture.assert_idle().await;
    let admission = Admission { room: "I1".into(), identity: Address::new([1; 20]).to_string() };
    assert_eq!(*fixture.asked.lock().unwrap(), [admission]);
}

#[tokio::test]
async fn refused_requests_do_not_reach_the_server() {
    let fixture = Fixture::start(4).await;
    let (valid, other) = (token(keys()), token(Keys::new("key", "another")));
    let with = |path: &str, token: &str| format!("{path}?access_token={token}");
    let bearer = format!("Authorization: Bearer {other}\r\n");
    for (method, target, headers, answer) in [
        ("GET", with("/livekit/other/rtc", &valid), UPGRADE, "404 there is no such LiveKit server"),
        ("GET", with("/livekit/a.b/rtc", &valid), UPGRADE, "404 there is no such LiveKit server"),
        ("GET", with("/livekit/lk/twirp", &valid), "", "404 "),
        ("GET", with("/livekit/lk/rtc/v2", &valid), UPGRADE, "404 "),
        ("GET", with("/livekit/lk/rtc", &other), UPGRADE, "401 no valid access token"),
        ("GET", with("/livekit/lk/rtc/v1", "noise"), UPGRADE, "401 no valid access token"),
        ("GET", "/livekit/lk/rtc".to_owned(), UPGRADE, "401 no valid access token"),
        (
            "GET",
            format!("{}&access_token={valid}", with("/livekit/lk/rtc", &valid)),
            UPGRADE,
            "401 no valid access token",
        ),
        // The header counts before the query, as it does for the server.
        ("GET", with("/livekit/lk/rtc", &valid), &*bearer, "401 no valid access token"),
        ("GET", with("/livekit/lk/rtc", &valid), "", "426 this is a WebSocket endpoint"),
        ("HEAD", with("/livekit/lk/rtc/validate", &valid), "", "405 "),
    ] {
        assert_eq!(fixture.refusal(method, &target, headers).await, answer, "{method} {target}");
    }
    fixture.is_member.store(false, Ordering::Relaxed);
    for path in ["/livekit/lk/rtc", "/livekit/lk/rtc/v1", "/livekit/lk/rtc/validate"] {
        let answer = fixture.refusal("GET", &with(path, &valid), UPGRADE).await;
        assert_eq!(answer, "403 not a member of this room", "{path}");
    }
    let none = time::timeout(Duration::from_millis(200), fixture.server.accept()).await;
    assert!(none.is_err(), "the server was reached");
    fixture.assert_idle().await;
}

#[tokio::test]
async fn answer_of_the_server_is_relayed() {
    let fixture = Fixture::start(4).await;
    let bearer = format!("Authorization: Bearer {}\r\n", token(keys()));
    for (path, headers) in [("/rtc/v1/validate", ""), ("/rtc/v1", UPGRADE)] {
        let answer = async {
            let (mut server, head) = fixture.accept().await;
            assert!(head.starts_with(&format!("GET /sub{path}?x=1 HTTP/1.1\r\n")), "{head}");
            let body = "x".repeat(20_000);
            let response = format!(
                "HTTP/1.1 500 Error\r\nContent-Length: {}\r\nContent-Type: text/x\r\n\r\n{body}",
                body.len()
            );
            server.write_all(response.as_bytes()).await.unwrap();
            server
        };
        let (target, headers) = (format!("/livekit/lk{path}?x=1"), format!("{bearer}{headers}"));
        let (refusal, _server) = tokio::join!(fixture.refusal("GET", &target, &headers), answer);
        assert_eq!(refusal, format!("500 {}", "x".repeat(16 * 1024)), "a long body is cut");
    }
    fixture.assert_idle().await;
}

#[tokio::test]
async fn unreachable_server_is_reported() {
    let Fixture { server, limiter, address, is_member, asked } = Fixture::start(4).await;
    drop(server);
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fixture = Fixture { server: unused, limiter, address, is_member, asked };
    let target = format!("/livekit/lk/rtc?access_token={}", token(keys()));
    let answer = fixture.refusal("GET", &target, UPGRADE).await;
    assert_eq!(answer, "502 the LiveKit server cannot be reached");
}

#[tokio::test]
async fn connections_above_the_limit_are_refused() {
    let fixture = Fixture::start(1).await;
    let target = format!("/livekit/lk/rtc?access_token={}", token(keys()));
    let client = fixture.request("GET", &target, UPGRADE).await;
    let (mut server, _) = fixture.accept().await;
    server.write_all(SWITCHING.as_bytes()).await.unwrap();
    let full = fixture.refusal("GET", &target, UPGRADE).await;
    assert_eq!(full, "503 too many connections, come back later");
    drop((client, server));
    fixture.assert_idle().await;
}

#[tokio::test(start_paused = true)]
async fn slow_membership_check_is_a_failure() {
    let check: MembershipCheck = Arc::new(|_| Box::pin(std::future::pending()));
    let node = ProxiedServer { node: "lk".parse().unwrap(), url: "ws://127.0.0.1:9".into(), keys: keys() };
    let limiter = limiter(1);
    let proxy = SignallingProxy::new(&[node], check, limiter.clone());
    let uri = format!("/livekit/lk/rtc?access_token={}", token(keys()));
    let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
    let refusal = proxy.handle("lk", "/rtc", network(), request).await.unwrap_err();
    assert_eq!(refusal, Refusal::MembershipUnknown);
    assert_eq!(limiter.permits_count(), 0);
}
