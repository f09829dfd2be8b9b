//! `/metrics`: names, types, labels and buckets. Values and descriptions are left out.
//!
//! `metrics.txt` has the series of a running process after much use, with the values of labels and the bounds of
//! buckets. It lacks series that appear only in failures that the test does not cause; [`super::metrics_source`] has
//! the names of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    time::{Duration, SystemTime},
};

use protocol::{
    Message as _, Subject,
    atoll_bus::{MembershipEnded, TransportAnnouncement},
    bff::{PublishToTopicRequest, PublishToTopicResult, SubscriptionRequest},
    rfc5::{WsSignedChallenge, ws_packet},
    v3::{ChallengeRequestMessage, Heartbeat, client_packet, server_packet},
};
use test_support::{
    NatsServer, Realm, eventually, rpc_caller,
    signed_login::{METADATA, login_request, signed},
    wallet,
    wire::{Wire, enter, sign_in},
};
use tokio::time::sleep;

use super::check_eventually;
use crate::ethereum::{ContractWallet, Ethereum};

/// Metrics with series that depend on the load of the machine.
const DEPENDS_ON_LOAD: [&str; 4] = [
    "atoll_bus_dropped_total",
    "atoll_bus_slow_consumer_total",
    "atoll_listener_closed_total",
    "atoll_bus_unsent_total",
];

/// The series of a metric: its type, its label sets, its bucket bounds.
#[derive(Default)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    bounds: Vec<String>,
}

/// Adds the series of a page of metrics.
fn read(metrics: &mut BTreeMap<String, Metric>, page: &str) {
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        }
    }
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|base| metrics.contains_key(*base));
        let metric = metrics.get_mut(base.unwrap_or(name)).unwrap_or_else(|| panic!("{name} has no type"));
        let (bounds, labels): (Vec<&str>, Vec<&str>) = labels
            .trim_end_matches('}')
            .split("\",")
            .map(|label| label.trim_end_matches('"'))
            .filter(|label| !label.is_empty())
            .partition(|label| label.starts_with("le="));
        for bound in bounds.iter().map(|bound| bound["le=\"".len()..].to_owned()) {
            if !metric.bounds.contains(&bound) {
                metric.bounds.push(bound);
            }
        }
        metric.labels.insert(labels.iter().map(|label| format!("{label}\"")).collect::<Vec<_>>().join(","));
    }
}

fn describe(metrics: &BTreeMap<String, Metric>) -> String {
    let mut text = String::new();
    for (name, Metric { kind, labels, bounds }) in metrics {
        if DEPENDS_ON_LOAD.contains(&&**name) {
            continue;
        }
        let _ = writeln!(text, "{name} {kind}");
        for labels in labels.iter().filter(|labels| !labels.is_empty()) {
            let _ = writeln!(text, "  {{{labels}}}");
        }
        if !bounds.is_empty() {
            let _ = writeln!(text, "  le: {}", bounds.join(" "));
        }
    }
    text
}

/// Peers sign in, or try to, enter rooms, publish, and read presence.
async fn use_everything(realm: &Realm) {
    let one = wallet();
    let (mut wire, mut room, _) = enter(realm, &one, 0.0).await;
    let (_other, mut other_room, _) = enter(realm, &wallet(), 5.0).await;
    room.update(b"hello".to_vec(), false).await;
    test_support::wire::next_update(&mut other_room).await;
    // Heartbeats without a position, and with invalid ones.
    for position in [None, Some((f32::NAN, 0.0)), Some((1.0e9, 0.0))] {
        let position = position.map(|(x, z)| protocol::Position::new(x, 0.0, z).into());
        wire.send_packet(client_packet::Message::Heartbeat(Heartbeat { position, desired_room: None })).await;
    }
    // Refused sign-ins: a malformed chain, another step of the handshake, an undecodable packet.
    let mut refused = Wire::open(&realm.socket()).await;
    refused.request_challenge(&wallet()).await;
    refused.send_auth_chain("nonsense".to_owned()).await;
    refused.closed().await;
    let mut refused = Wire::open(&realm.socket()).await;
    refused.heartbeat(0.0).await;
    refused.closed().await;
    let mut refused = Wire::open(&realm.socket()).await;
    refused.send(vec![0xff; 3]).await;
    refused.closed().await;
    // A newer session of the same wallet.
    let mut newer = sign_in(realm, &one).await;
    wire.closed().await;
    newer.heartbeat(0.0).await;
    let mut stranger = Wire::open(&format!("{}/rooms/nowhere", realm.ws)).await;
    stranger.closed().await;
    let mut open_room = Wire::open(&format!("{}/rooms/lobby", realm.ws)).await;
    open_room.identify(&wallet()).await;
    let ws_packet::Message::ChallengeMessage(_) = open_room.next_in_room().await else {
        panic!("no challenge")
    };
    let auth_chain_json = "nonsense".to_owned();
    open_room
        .send_room_packet(ws_packet::Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json }))
        .await;
    open_room.closed().await;
    let mut caller = rpc_caller::sign_in(realm, &wallet()).await;
    caller.heartbeat(900.0).await;
    let all = SubscriptionRequest { topic: "chat".to_owned() };
    caller.stream("TopicsService.PeerSubscription", &all).await;
    let request = PublishToTopicRequest { topic: "chat".to_owned(), payload: vec![7].into() };
    let _: PublishToTopicResult = caller.request("TopicsService.PublishToTopic", &request).await;
    log_in(realm).await;
    for path in ["/peers", "/islands", "/parcels", "/hot-scenes"] {
        assert_eq!(realm.get(path).await.status(), 200, "{path}");
    }
    let _feed = realm.get("/events?last_event_id=unknown").await;
}

/// A signed login that is granted, and one that is denied as it names another realm.
async fn log_in(realm: &Realm) {
    let post = async |metadata: &str| {
        let headers = signed(&wallet(), metadata, SystemTime::now());
        login_request(realm, &headers).send().await.unwrap().status()
    };
    eventually("the fixed room is there", async || post(METADATA).await == 200).await;
    let other_realm = r#"{"intent":"dcl:explorer:comms-handshake","signer":"dcl:explorer","realm":{"serverName":"desert"}}"#;
    assert_eq!(post(other_realm).await, 403);
}

/// Messages that a director refuses.
async fn publish_refused(bus: &async_nats::Client) {
    let announced = |kind: &str, started_ms| {
        let kind = kind.to_owned();
        TransportAnnouncement { kind, started_ms, ..Default::default() }.encode_to_vec()
    };
    let nowhere = protocol::Position::new(1.0e9, 0.0, 0.0).into();
    let ended = MembershipEnded { minted_before: "?".to_owned(), ..Default::default() };
    let ended_where = Subject::MembershipEnded("I1".parse().unwrap()).to_string();
    for (subject, payload) in [
        ("atoll.transport.rooms-9.announce".to_owned(), vec![0xff]),
        ("atoll.transport.rooms-9.announce".to_owned(), announced("other", 0)),
        ("atoll.transport.rooms-9.announce".to_owned(), announced("ws-room", u64::MAX)),
        ("atoll.transport.node.announce".to_owned(), announced("ws-room", 0)),
        (
            Subject::PeerHeartbeat(wallet().address()).to_string(),
            Heartbeat { position: Some(nowhere), desired_room: None }.encode_to_vec(),
        ),
        (ended_where, ended.encode_to_vec()),
    ] {
        bus.publish(subject, payload.into()).await.unwrap();
    }
}

/// Contract wallets sign in: a deployed contract accepts the signature, twice, and an absent one does not.
async fn ask_contracts(realm: &Realm, ethereum: &Ethereum) {
    let deployed = ethereum.deploy();
    for contract in [deployed, deployed, ContractWallet::not_deployed(&wallet())] {
        let mut wire = Wire::open(&realm.socket()).await;
        let request = ChallengeRequestMessage { address: contract.address.to_string(), ..Default::default() };
        wire.send_packet(client_packet::Message::ChallengeRequest(request)).await;
        let server_packet::Message::ChallengeResponse(challenge) = wire.next_packet().await else {
            panic!("no challenge")
        };
        wire.send_auth_chain(contract.sign(&challenge.challenge_to_sign)).await;
        // A welcome, or a close frame.
        let _ = tokio::time::timeout(test_support::TEST_TIMEOUT, futures_util::StreamExt::next(&mut wire.0))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_these_labels_and_buckets() {
    let (server, ethereum) = (NatsServer::start_with_jetstream(), Ethereum::start().await);
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.toml");
    fs::write(&rules, "[[rule]]\nname = \"all\"\n").unwrap();
    let realm = Realm::launch(
        &["--bus", &server.url()],
        &[
            ("REALM__NAME", "lagoon"),
            ("REALM__FIXED_ROOM", "plaza"),
            ("REALM__CONTENT_URL", "http://127.0.0.1:9"),
            ("REALM__LAMBDAS_URL", "http://127.0.0.1:9"),
            ("RULES__FILE", rules.to_str().unwrap()),
            ("IDENTITY__ETHEREUM_RPC_URL", &ethereum.url),
            ("ROOMS__OPEN", "lobby"),
            ("ROOMS__GRACE_S", "1"),
            ("LIVEKIT__NODE__URL", "ws://127.0.0.1:9"),
            ("LIVEKIT__NODE__API_KEY", "key"),
            ("LIVEKIT__NODE__API_SECRET", "a secret of thirty-two characters"),
        ],
    );
    use_everything(&realm).await;
    ask_contracts(&realm, &ethereum).await;
    // Messages that the processes do not understand.
    let bus = async_nats::connect(server.url()).await.unwrap();
    for header in
        ["Session", "Transports", "Sender", "Node", "Epoch", "Resume-Hash", "Resumes", "Sequence", "Part"]
    {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(format!("Atoll-{header}").as_str(), "?");
        let subject = format!("peer.{}.heartbeat", wallet().address());
        bus.publish_with_headers(subject, headers, "".into()).await.unwrap();
    }
    let mut future = async_nats::HeaderMap::new();
    future.insert("Atoll-Session", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    bus.publish_with_headers(format!("peer.{}.connect", wallet().address()), future, "".into())
        .await
        .unwrap();
    let mut deposed = async_nats::HeaderMap::new();
    deposed.insert("Atoll-Epoch", "0");
    bus.publish_with_headers(format!("peer.{}.island_changed", wallet().address()), deposed, "".into())
        .await
        .unwrap();
    publish_refused(&bus).await;
    bus.flush().await.unwrap();
    // Other rules, then a malformed file.
    for text in ["[[rule]]\nname = \"other\"\n", "nonsense"] {
        // The process sees a change once the file has been as it is for a while.
        sleep(Duration::from_millis(1_200)).await;
        fs::write(&rules, text).unwrap();
    }
    check_eventually("metrics.txt", async || {
        let mut metrics = BTreeMap::new();
        read(&mut metrics, &realm.get("/metrics").await.text().await.unwrap());
        describe(&metrics)
    })
    .await;
}
