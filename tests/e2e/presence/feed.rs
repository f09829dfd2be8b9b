//! The live feed.

use std::{fs, time::Duration};

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use test_support::{Realm, TEST_TIMEOUT, eventually, wallet, wire::sign_in};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{self, timeout},
};

use super::sign_in_at;

/// A reader of the live feed.
pub(super) struct Feed {
    response: Response,
    read: String,
}

/// A server-sent event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: String,
    id: String,
    pub(super) data: Value,
    pub(super) text: String,
}

impl Feed {
    /// Opens the feed after the event with this id, or from now on.
    pub(super) async fn open(realm: &Realm, last_id: Option<&str>) -> Self {
        let response = request_feed(realm, last_id).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        Self { response, read: String::new() }
    }

    /// The next block of the stream: an event or a comment; `None` at its end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let block = block.to_owned();
                self.read = rest.to_owned();
                return Some(block);
            }
            let chunk = timeout(TEST_TIMEOUT, self.response.chunk()).await.expect("a chunk in time");
            self.read += std::str::from_utf8(&chunk.unwrap()?).unwrap();
        }
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Event {
        // Comments arrive even without events.
        let deadline = time::Instant::now() + TEST_TIMEOUT;
        loop {
            let text = time::timeout_at(deadline, self.block()).await.expect("an event in time");
            let text = text.expect("an event");
            if text.starts_with(':') {
                continue;
            }
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let data = serde_json::from_str(field("data: ")).unwrap();
            let (name, id) = (field("event: ").to_owned(), field("id: ").to_owned());
            return Event { name, id, data, text };
        }
    }

    /// The next event, which has this name.
    async fn expect(&mut self, name: &str) -> Event {
        let event = self.next().await;
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// The next event with this name, before which there are only a few.
    async fn find(&mut self, name: &str) -> Event {
        for _ in 0..20 {
            let event = self.next().await;
            if event.name == name {
                return event;
            }
        }
        panic!("there is no {name}");
    }
}

impl Event {
    /// The number of the event in its run.
    fn number(&self) -> u64 {
        self.id.split_once('-').unwrap().1.parse().unwrap()
    }
}

async fn request_feed(realm: &Realm, last_id: Option<&str>) -> Response {
    let mut request = reqwest::Client::new().get(format!("{}/comms/events", realm.http));
    if let Some(id) = last_id {
        request = request.header("Last-Event-ID", id);
    }
    timeout(TEST_TIMEOUT, request.send()).await.expect("an answer in time").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_reports_joins_island_changes_and_leaves() {
    let realm = Realm::start(&[("ISLANDS__RETURN_WINDOW_S", "0")]);
    let mut feed = Feed::open(&realm, None).await;
    let ready = feed.expect("ready").await;
    assert_eq!((&ready.data["id"], ready.number()), (&json!(ready.id), 0));
    let (alice_wire, alice) = sign_in_at(&realm, 20.5, 0.0).await;
    let join = feed.expect("join").await;
    assert_eq!(join.data["address"], alice);
    assert_eq!((&join.data["parcel"], &join.data["position"]), (&json!([1, 0]), &json!([20.5, 1.0, 0.0])));
    assert!(join.data["time"].as_u64().unwrap() > 1_700_000_000_000);
    let session = join.data["session"].as_str().unwrap();
    assert_eq!(session.len(), 26, "a ULID");
    let opened = feed.expect("island_opened").await;
    assert_eq!(opened.data["transport"], json!({"protocol": "ws-room", "url": realm.ws}));
    let first = opened.data["island"].clone();
    let moved = feed.expect("peer_moved_island").await;
    assert_eq!((&moved.data["from"], &moved.data["to"]), (&Value::Null, &first));
    assert_eq!((&moved.data["address"], &moved.data["session"]), (&json!(alice), &json!(session)));

    let (mut bob_wire, bob) = sign_in_at(&realm, 1_000.0, 0.0).await;
    feed.expect("join").await;
    let second = feed.expect("island_opened").await.data["island"].clone();
    feed.expect("peer_moved_island").await;
    // Bob walks up to Alice.
    bob_wire.heartbeat(30.0).await;
    let moved = feed.expect("peer_moved_island").await;
    assert_eq!(moved.data["address"], bob);
    assert_eq!((&moved.data["from"], &moved.data["to"]), (&second, &first));
    assert_eq!(feed.expect("island_closed").await.data["island"], second);

    drop(alice_wire);
    let leave = feed.expect("leave").await;
    assert_eq!((&leave.data["address"], &leave.data["session"]), (&json!(alice), &json!(session)));
    let moved = feed.expect("peer_moved_island").await;
    assert_eq!((&moved.data["from"], &moved.data["to"]), (&first, &Value::Null));
    drop(bob_wire);
    feed.expect("leave").await;
    feed.expect("peer_moved_island").await;
    assert_eq!(feed.expect("island_closed").await.data["island"], first);
    assert_eq!(realm.json("/peers").await["peers"], json!([]));
    assert_eq!(realm.json("/islands").await["islands"], json!([]));

    // A reader that resumes receives all events again. None has a token in it.
    let mut again = Feed::open(&realm, Some(&ready.id)).await;
    for number in 1..=13 {
        let event = again.next().await;
        assert_eq!(event.number(), number);
        assert!(!event.text.contains("token") && !event.text.contains("eyJ"), "{}", event.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_session_is_reported_as_leave_and_join() {
    let realm = Realm::start(&[]);
    let mut feed = Feed::open(&realm, None).await;
    let wallet = wallet();
    let mut older = sign_in(&realm, &wallet).await;
    older.heartbeat(0.0).await;
    let first = feed.find("join").await.data["session"].clone();
    let mut newer = sign_in(&realm, &wallet).await;
    newer.heartbeat(5.0).await;
    let leave = feed.find("leave").await;
    assert_eq!((&leave.data["session"], &leave.data["position"]), (&first, &json!([0.0, 1.0, 0.0])));
    let join = feed.expect("join").await;
    assert!(join.data["session"].as_str() > first.as_str());
    older.closed().await;
    drop(older);
    // The next events belong to another peer.
    let (_wire, other) = sign_in_at(&realm, 1_000.0, 0.0).await;
    loop {
        let event = feed.next().await;
        assert_ne!(event.name, "leave");
        if event.name == "join" {
            assert_eq!(event.data["address"], other);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_resumes_by_id_or_is_sent_a_reset() {
    let realm = Realm::start(&[("STATS__FEED_EVENTS", "12")]);
    let mut feed = Feed::open(&realm, None).await;
    let ready = feed.expect("ready").await;
    let _one = sign_in_at(&realm, 0.0, 0.0).await;
    let last = feed.expect("join").await;
    // Three times the connection breaks, a peer signs in, and the reader resumes.
    let mut seen = last.number();
    let mut id = last.id;
    let mut peers = Vec::new();
    for place in 1..=3_u8 {
        drop(feed);
        peers.push(sign_in_at(&realm, f32::from(place) * 1_000.0, 0.0).await);
        let (_, address) = &peers[peers.len() - 1];
        feed = Feed::open(&realm, Some(&id)).await;
        loop {
            let event = feed.next().await;
            seen += 1;
            assert_eq!(event.number(), seen, "in order, and nothing is lost");
            id = event.id;
            if event.name == "join" {
                assert_eq!(event.data["address"], *address);
                break;
            }
        }
    }
    // More events than the feed keeps.
    eventually("twelve events", async || {
        let text = realm.get("/metrics").await.text().await.unwrap();
        let counts = text.lines().filter_map(|line| {
            line.strip_prefix("atoll_stats_feed_events_total{")?.rsplit(' ').next()?.parse::<u64>().ok()
        });
        counts.sum::<u64>() == 12
    })
    .await;
    let _more = sign_in_at(&realm, 5_000.0, 0.0).await;
    let mut late = Feed::open(&realm, Some(&ready.id)).await;
    let reset = late.expect("reset").await;
    assert_eq!((&reset.data["reason"], &reset.data["id"]), (&json!("too-old"), &json!(reset.id)));
    assert!(reset.number() > 12, "it continues from the present");
    // An id of another run, or not an id.
    for id in ["01ARZ3NDEKTSV4RRFFQ69G5FAV-3", "17", ""] {
        let reset = Feed::open(&realm, Some(id)).await.expect("reset").await;
        assert_eq!(reset.data["reason"], "unknown-id");
    }
    // The query parameter is for clients that cannot set headers.
    let response = realm.get(&format!("/events?last_event_id={id}")).await;
    let mut feed = Feed { response, read: String::new() };
    assert_eq!(feed.next().await.number(), seen + 1);
    let count = realm.count("atoll_stats_feed_resets_total{reason=\"unknown-id\"}").await;
    assert_eq!(count, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_island_is_reported_with_both_transports() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let meet_at = |transport: &str| {
        fs::write(&file, format!("[[rule]]\nname = \"all\"\ntransports = [\"{transport}\"]\n")).unwrap();
    };
    meet_at("ws-room");
    let template = "pulse:wss://pulse.example:7/{island}?as={address}&access_token=eyJ";
    let realm = Realm::start(&[
        ("RULES__FILE", file.to_str().unwrap()),
        ("EXTERNAL__PULSE__TEMPLATE", template),
        ("CLIENT__ASSUMED_TRANSPORTS", "ws-room,pulse"),
        ("ISLANDS__SETTLING_S", "0"),
        ("ISLANDS__MOVE_INTERVAL_S", "0"),
    ]);
    let mut feed = Feed::open(&realm, None).await;
    let _wire = sign_in_at(&realm, 0.0, 0.0).await;
    let opened = feed.find("island_opened").await;
    meet_at("external");
    let moved = feed.find("island_moved").await;
    let island = &opened.data["island"];
    assert_eq!((&moved.data["island"], &moved.data["from"]), (island, &opened.data["transport"]));
    let pulse = json!({"protocol": "pulse", "url": "wss://pulse.example:7"});
    assert_eq!(moved.data["to"], pulse);
    assert!(!moved.text.contains("eyJ"), "{}", moved.text);
    let island = realm.json(&format!("/islands/{}", island.as_str().unwrap())).await;
    assert_eq!(island["transport"], pulse);
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_readers_are_limited_and_kept_alive() {
    let settings = [("STATS__MAX_FEED_READERS", "1"), ("STATS__FEED_KEEP_ALIVE_S", "1")];
    let realm = Realm::start(&settings);
    let mut feed = Feed::open(&realm, None).await;
    feed.expect("ready").await;
    let refused = request_feed(&realm, None).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "there are too many readers");
    assert_eq!(realm.count("atoll_stats_feed_refused_total").await, 1.0);
    // For longer than a reader that accepts nothing keeps its seat.
    for _ in 0..5 {
        assert_eq!(feed.block().await.unwrap(), ": keep-alive");
    }
    assert_eq!(realm.metric("atoll_stats_feed_readers").await, 1.0);
    drop(feed);
    eventually("the seat is free", async || request_feed(&realm, None).await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_readers_do_not_delay_a_drain() {
    let mut realm = Realm::start(&[("SERVER__DRAIN_TIMEOUT_S", "300")]);
    let mut feed = Feed::open(&realm, None).await;
    feed.expect("ready").await;
    // This reader never reads more than the status line.
    let mut silent = TcpStream::connect(realm.http.strip_prefix("http://").unwrap()).await.unwrap();
    silent.write_all(b"GET /events HTTP/1.1\r\nhost: atoll\r\n\r\n").await.unwrap();
    silent.read_exact(&mut [0; 12]).await.unwrap();
    let (mut wire, _) = sign_in_at(&realm, 0.0, 0.0).await;
    realm.interrupt();
    wire.closed().await;
    drop(wire);
    while feed.block().await.is_some() {}
    let (status, log) = realm.wait(Duration::from_secs(20));
    assert!(status.success(), "{log}");
    assert!(log.contains("drained"), "{log}");
}
