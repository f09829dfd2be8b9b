//! Responses that all readers share: entity tags, compression, how often they are encoded, and their
//! memory.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use futures_util::future::join_all;
use reqwest::{Response, header};
use serde_json::{Value, json};
use test_support::{NatsServer, Realm, TEST_TIMEOUT, eventually, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{feed::Feed, sign_in_at, synthetic_peers::SyntheticPeers};

async fn ask(realm: &Realm, path: &str, headers: &[(header::HeaderName, &str)]) -> Response {
    let mut request = reqwest::Client::new().get(format!("{}{path}", realm.http));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    timeout(TEST_TIMEOUT, request.send()).await.expect("an answer in time").unwrap()
}

fn tag(response: &Response) -> String {
    response.headers()[header::ETAG].to_str().unwrap().to_owned()
}

async fn unzipped(response: Response) -> Value {
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    let bytes = response.bytes().await.unwrap();
    let mut text = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

const GZIP: (header::HeaderName, &str) = (header::ACCEPT_ENCODING, "gzip, br");

#[tokio::test(flavor = "multi_thread")]
async fn both_encodings_of_a_body_are_the_same_json() {
    let realm = Realm::start(&[]);
    let mut peers = Vec::new();
    for place in 0..10_u8 {
        peers.push(sign_in_at(&realm, f32::from(place) * 16.5, 0.0).await);
    }
    super::islands(&realm, peers.len()).await;
    for path in ["/peers", "/islands", "/parcels", "/hot-scenes", "/openapi.json"] {
        for path in [path.to_owned(), format!("/comms{path}")] {
            // The response may be encoded anew between the two requests.
            eventually("both are of one encoding", async || {
                let (plain, gzip) = (ask(&realm, &path, &[]).await, ask(&realm, &path, &[GZIP]).await);
                for answer in [&plain, &gzip] {
                    assert_eq!(answer.status(), 200);
                    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
                    assert_eq!(answer.headers()[header::VARY], "accept-encoding", "{path}");
                    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
                }
                assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
                let (plain_tag, gzip_tag) = (tag(&plain), tag(&gzip));
                assert!(!plain_tag.starts_with("W/") && plain_tag != gzip_tag, "{plain_tag} {gzip_tag}");
                let plain = plain.text().await.unwrap();
                assert!(gzip.content_length().unwrap() < plain.len() as u64);
                let same = gzip_tag == format!("{}-gzip\"", plain_tag.trim_end_matches('"'));
                if same {
                    assert_eq!(
                        unzipped(gzip).await,
                        serde_json::from_str::<Value>(&plain).unwrap(),
                        "{path}"
                    );
                }
                same
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_tag_is_answered_with_304() {
    let realm = Realm::start(&[]);
    let _peers = [sign_in_at(&realm, 0.0, 0.0).await, sign_in_at(&realm, 20.0, 0.0).await];
    for path in [
        "/peers",
        "/islands",
        "/parcels",
        "/hot-scenes",
        "/openapi.json",
        "/peers?id=0x0000000000000000000000000000000000000000",
    ] {
        eventually("an unchanged response is not sent again", async || {
            let first = ask(&realm, path, &[]).await;
            assert_eq!(first.status(), 200, "{path}");
            let again = ask(&realm, path, &[(header::IF_NONE_MATCH, &tag(&first))]).await;
            if again.status() != 304 {
                return false;
            }
            assert_eq!(tag(&again), tag(&first));
            assert_eq!(again.headers()["access-control-allow-origin"], "*");
            assert_eq!(again.headers().contains_key("atoll-age-ms"), path != "/openapi.json", "{path}");
            assert_eq!(again.bytes().await.unwrap().len(), 0);
            true
        })
        .await;
        assert_eq!(ask(&realm, path, &[(header::IF_NONE_MATCH, "\"other\"")]).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_responses_are_never_compressed() {
    let realm = Realm::start(&[("REALM__FIXED_ROOM", "lobby"), ("REALM__FIXED_ADAPTER", "signed-login")]);
    let (_wire, address) = sign_in_at(&realm, 0.0, 0.0).await;
    super::islands(&realm, 1).await;
    let of_peer = format!("/peers/{address}");
    for path in ["/about", "/metrics", "/rooms/status", "/status", "/core-status", "/health/ready", &of_peer]
    {
        let answer = ask(&realm, path, &[GZIP]).await;
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING), "{path}");
    }
    let client = reqwest::Client::new();
    let login = client.post(format!("{}/signed-login", realm.http)).header(GZIP.0, GZIP.1).body("{}");
    let admin = client.get(format!("{}/assignments", realm.admin)).header(GZIP.0, GZIP.1);
    for request in [login, admin] {
        let answer = request.send().await.unwrap();
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING), "{}", answer.url());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_ids_are_refused() {
    let realm = Realm::start(&[]);
    let ids = |count: usize| format!("id=0x{:040}&", 7).repeat(count);
    assert_eq!(realm.get(&format!("/peers?{}", ids(1_000))).await.status(), 200);
    assert_eq!(realm.get(&format!("/peers?{}", ids(1_001))).await.status(), 400);
    assert_eq!(realm.get(&format!("/islands?{}", "id=I1&".repeat(1_001))).await.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_response_is_encoded_once_a_second() {
    let realm = Realm::start(&[]);
    let encodings = async || realm.count("atoll_stats_encodings_total{path=\"/islands\"}").await;
    let (mut wire, _) = sign_in_at(&realm, 0.0, 0.0).await;
    let before = encodings().await;
    let began = Instant::now();
    let read = async || {
        let client = reqwest::Client::new();
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(3) {
            let answer = client.get(format!("{}/islands", realm.http)).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            count += 1;
        }
        count
    };
    let walk = async {
        let mut x = 0.0;
        while began.elapsed() < Duration::from_secs(3) {
            x += 0.1;
            wire.heartbeat(x).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (counts, ()) = tokio::join!(join_all((0..8).map(|_| read())), walk);
    let made = encodings().await - before;
    let seconds = began.elapsed().as_secs_f64();
    assert!(counts.iter().all(|&count| count > 0));
    assert!(made >= 1.0 && made <= seconds + 1.0, "{made} in {seconds} s for {counts:?} readers");
}

#[tokio::test(flavor = "multi_thread")]
async fn received_event_is_in_the_next_response() {
    let realm = Realm::start(&[]);
    let mut feed = Feed::open(&realm, None).await;
    assert_eq!(feed.next().await.name, "ready");
    let mut peers = Vec::new();
    for place in 0..4_u8 {
        // So that a fresh response without the peer is cached.
        realm.json("/peers").await;
        peers.push(sign_in_at(&realm, f32::from(place) * 1_000.0, 0.0).await);
        let address = json!(peers[peers.len() - 1].1);
        while feed.next().await.data["address"] != address {}
        let peers = realm.json("/peers").await;
        let mut found = peers["peers"].as_array().unwrap().iter();
        assert!(found.any(|peer| peer["address"] == address), "{address} is not in {peers}");
    }
}

/// The number of responses that nothing reads, the peers in them, and the growth in MiB that they may
/// cause.
const UNREAD: usize = 300;
const PEERS: usize = 2_000;
const MAX_GROWTH_MIB: f64 = 32.0;

/// A response of which only the status line is read. The kernel holds little of it: the client's
/// receive buffer is small, and the server's send buffer grows with the segment size, which on the
/// loopback would be that of whole responses.
async fn unread(realm: &Realm, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket2::SockRef::from(&socket).set_tcp_mss(1_400).unwrap();
    let address = realm.http.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = timeout(TEST_TIMEOUT, socket.connect(address)).await.unwrap().unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: atoll\r\n\r\n").as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(TEST_TIMEOUT, stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_share_their_body() {
    let server = NatsServer::start();
    let settings = [
        ("STATS__PEER_TIMEOUT_S", "600"),
        ("STATS__REPORT_TIMEOUT_S", "600"),
        ("SERVER__WRITE_TIMEOUT_S", "600"),
        ("STATS__REQUESTS_PER_SECOND_PER_NETWORK", "0"),
    ];
    let realm = Realm::launch(&["--bus", &server.url(), "--roles", "stats"], &settings);
    let world = SyntheticPeers::new(&server, PEERS).await;
    world.publish_heartbeats(0..PEERS);
    world.publish_report();
    world.flush().await;
    within(Duration::from_secs(60), "all are there", async || {
        let islands = realm.json("/islands").await;
        let islands = islands["islands"].as_array().unwrap();
        islands.iter().map(|island| island["peers"].as_array().unwrap().len()).sum::<usize>() == PEERS
    })
    .await;
    let resident = async || realm.metric("process_resident_memory_bytes").await / 1024.0 / 1024.0;
    let some = (0..100_usize).map(|index| format!("id=I{index}&")).collect::<String>();
    let paths = ["/islands".to_owned(), "/peers".to_owned(), format!("/islands?{some}")];
    // A first round, so that one-time allocations are not counted. It is shorter than the measured one:
    // the allocator keeps freed memory.
    for path in &paths {
        for _ in 0..10 {
            let body = realm.get(path).await.bytes().await.unwrap().len() as f64 / 1024.0 / 1024.0;
            assert!(body * UNREAD as f64 > 3.0 * MAX_GROWTH_MIB, "{path} has only {body} MiB");
        }
    }
    let before = resident().await;
    for path in paths {
        let mut held = Vec::new();
        for _ in 0..UNREAD / 100 {
            held.extend(join_all((0..100).map(|_| unread(&realm, &path))).await);
            // Positions change meanwhile.
            world.publish_heartbeats(0..10);
            world.flush().await;
        }
        let after = resident().await;
        println!("{path:.12}: {before:.1} MiB resident, {after:.1} with {} unread", held.len());
        assert!(after - before < MAX_GROWTH_MIB, "{path}: {before} MiB before, {after} after");
        drop(held);
    }
}
