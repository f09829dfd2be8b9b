//! A realm with its roles connected over NATS.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Message, Subscriber};
use futures_util::StreamExt;
use protocol::{
    Close, SessionId, Subject,
    bff::{
        PeerTopicSubscriptionResultElem, PublishToTopicRequest, PublishToTopicResult, SubscriptionRequest,
        SystemTopicSubscriptionResultElem,
    },
    subject,
    v3::server_packet,
};
use test_support::{
    NatsServer, Realm, SECRET, TEST_TIMEOUT, eventually, free_address, rpc_caller, wallet,
    wire::{enter, enter_room, next_update, sign_in},
};
use tokio::time::{sleep, timeout};

fn realm_on(server: &NatsServer, settings: &[(&str, &str)]) -> Realm {
    Realm::launch(&["--bus", &server.url()], settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_meet_and_receive_each_other_over_nats() {
    let server = NatsServer::start();
    let realm = realm_on(&server, &[]);
    let (_one, mut first, _) = enter(&realm, &wallet(), 0.0).await;
    let (mut two, mut second, welcome) = enter(&realm, &wallet(), 10.0).await;
    assert_eq!(welcome.peer_identities.len(), 1);
    first.update(b"hello".to_vec(), false).await;
    assert_eq!(next_update(&mut second).await, b"hello");
    second.update(b"hello, too".to_vec(), false).await;
    assert_eq!(next_update(&mut first).await, b"hello, too");
    eventually("both are shown", async || {
        realm.json("/peers").await["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })
    .await;
    assert!(two.is_quiet_for(Duration::from_millis(600)).await, "no packet without a change");
    assert_eq!(realm.metric("atoll_bus_connected").await, 1.0);
}

async fn next(subscriber: &mut Subscriber) -> Message {
    timeout(TEST_TIMEOUT, subscriber.next()).await.expect("a message in time").expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn scene_server_and_peers_exchange_topic_messages() {
    let server = NatsServer::start();
    let realm = realm_on(&server, &[]);
    // The owner of the scene uses a plain NATS client, which knows only subjects.
    let owner = async_nats::connect(server.url()).await.unwrap();
    let mut door_messages = owner.subscribe("messageBus.scene.bafy1.>").await.unwrap();
    owner.flush().await.unwrap();
    let wallet = wallet();
    let mut client = rpc_caller::sign_in(&realm, &wallet).await;
    let door = SubscriptionRequest { topic: "messageBus.scene.bafy1.door.*".to_owned() };
    let of_peers = client.stream("TopicsService.PeerSubscription", &door).await;
    let of_servers = client.stream("TopicsService.SystemSubscription", &door).await;
    let topic = "messageBus.scene.bafy1.door.open".to_owned();
    let knock = PublishToTopicRequest { topic: topic.clone(), payload: b"knock"[..].into() };
    let published: PublishToTopicResult = client.request("TopicsService.PublishToTopic", &knock).await;
    assert!(published.ok);
    let received = next(&mut door_messages).await;
    assert_eq!((received.subject.as_str(), &received.payload[..]), (topic.as_str(), &b"knock"[..]));
    let sender = received.headers.as_ref().and_then(|headers| headers.get("Atoll-Sender")).expect("a sender");
    assert_eq!(sender.as_str(), wallet.address().to_string());
    // A message without a sender, or with an empty one, is a server's.
    owner.publish(topic.clone(), "open".into()).await.unwrap();
    let mut empty = HeaderMap::new();
    empty.insert("Atoll-Sender", "");
    owner.publish_with_headers(topic.clone(), empty, "wide".into()).await.unwrap();
    // A message with a malformed sender is not delivered.
    let mut malformed = HeaderMap::new();
    malformed.insert("Atoll-Sender", "the owner");
    owner.publish_with_headers(topic.clone(), malformed, "malformed".into()).await.unwrap();
    owner.publish(topic.clone(), "shut".into()).await.unwrap();
    // The first message is its own; then the server's.
    let own: PeerTopicSubscriptionResultElem = client.element(of_peers, 0).await;
    assert_eq!((own.sender, &own.payload[..]), (wallet.address().to_string(), &b"knock"[..]));
    for (sequence, payload) in (1..).zip(["open", "wide", "shut"]) {
        let element: PeerTopicSubscriptionResultElem = client.element(of_peers, sequence).await;
        assert_eq!((element.sender.as_str(), element.topic.as_str()), ("", topic.as_str()));
        assert_eq!(element.payload, payload.as_bytes());
    }
    for (sequence, payload) in (0..).zip(["open", "wide", "shut"]) {
        let element: SystemTopicSubscriptionResultElem = client.element(of_servers, sequence).await;
        assert_eq!((element.topic.as_str(), &element.payload[..]), (topic.as_str(), payload.as_bytes()));
    }
    let malformed = "atoll_bus_malformed_total{subscriber=\"gateway-topics\",header=\"sender\"}";
    assert_eq!(realm.count(malformed).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_id_of_the_far_future_is_ignored() {
    let server = NatsServer::start();
    let realm = realm_on(&server, &[]);
    let bus = async_nats::connect(server.url()).await.unwrap();
    let mut connects = bus.subscribe(subject::PEER_CONNECTS).await.unwrap();
    let (one, other) = (wallet(), wallet());
    let mut forged = HeaderMap::new();
    forged.insert("Atoll-Session", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    let connect = Subject::PeerConnect(one.address()).to_string();
    bus.publish_with_headers(connect, forged, "".into()).await.unwrap();
    next(&mut connects).await;
    let refused = "atoll_bus_future_sessions_total{subscriber=\"gateway\"}";
    eventually("refused", async || realm.count(refused).await >= 1.0).await;
    let mut began = async |wallet| {
        let wire = sign_in(&realm, wallet).await;
        let headers = next(&mut connects).await.headers.expect("headers");
        let session: SessionId = headers.get("Atoll-Session").unwrap().as_str().parse().unwrap();
        (wire, session)
    };
    let (mut older, first) = began(&one).await;
    let (mut newer, second) = began(&one).await;
    let (_elsewhere, third) = began(&other).await;
    assert!(first < second && second < third, "{first} {second} {third}");
    let server_packet::Message::Kicked(_) = older.next_packet().await else { panic!("no kick") };
    newer.heartbeat(0.0).await;
    newer.island_changed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_outage_keeps_rooms_and_drops_no_peer() {
    let mut server = NatsServer::start();
    // The silence timeout is shorter than the outage, and rooms close at once. The gateway repeats the
    // positions of quiet clients all the time.
    let short = [("ISLANDS__SILENCE_S", "6"), ("GATEWAY__VOUCH_INTERVAL_S", "1"), ("ROOMS__GRACE_S", "1")];
    let realm = realm_on(&server, &short);
    let (one, two, three) = (wallet(), wallet(), wallet());
    let (mut first, mut first_room, _) = enter(&realm, &one, 0.0).await;
    // The first peer stays with this one: theirs is the larger part, and keeps the island.
    let _stays = enter(&realm, &wallet(), 5.0).await;
    let (mut second, mut second_room, _) = enter(&realm, &two, 10.0).await;
    let (third, third_room, _) = enter(&realm, &three, 20.0).await;
    // Earlier members are notified of each join.
    for _ in 0..3 {
        assert!(matches!(first.next_packet().await, server_packet::Message::JoinIsland(_)));
    }
    assert!(matches!(second.next_packet().await, server_packet::Message::JoinIsland(_)));
    server.stop();
    eventually("the outage is noticed", async || realm.metric("atoll_bus_connected").await == 0.0).await;
    // One peer disconnects and one signs in meanwhile.
    drop((third, third_room));
    let mut fourth = sign_in(&realm, &wallet()).await;
    let until = Instant::now() + Duration::from_secs(8);
    let mut number = 0_u8;
    while Instant::now() < until {
        first.heartbeat(0.0).await;
        second.heartbeat(10.0).await;
        fourth.heartbeat(9_000.0).await;
        number += 1;
        first_room.update(vec![number], true).await;
        assert_eq!(next_update(&mut second_room).await, [number]);
        sleep(Duration::from_millis(250)).await;
    }
    assert!(realm.count("atoll_bus_unsent_total{reason=\"stale\"}").await > 0.0);
    server.restart();
    eventually("the bus is connected again", async || realm.metric("atoll_bus_connected").await == 1.0).await;
    assert_eq!(realm.count("atoll_bus_reconnects_total").await, 1.0);
    // The only change is the disconnect; it was published during the outage, and queued.
    match first.next_packet().await {
        server_packet::Message::LeftIsland(left) => assert_eq!(left.peer_id, three.address().to_string()),
        other => panic!("instead of a leave: {other:?}"),
    }
    assert!(matches!(second.next_packet().await, server_packet::Message::LeftIsland(_)));
    fourth.heartbeat(9_000.0).await;
    fourth.island_changed().await;
    // Heartbeats are received again.
    second.heartbeat(40.0).await;
    eventually("the new position is shown", async || {
        let peer = realm.json(&format!("/peers/{}", two.address())).await;
        peer["peer"]["position"][0] == 40.0
    })
    .await;
    assert!(
        first.is_quiet_for(Duration::from_secs(2)).await
            && second.is_quiet_for(Duration::from_millis(1)).await
    );
    first_room.update(b"still here".to_vec(), false).await;
    assert_eq!(next_update(&mut second_room).await, b"still here");
    // Islands change as before.
    second.heartbeat(9_010.0).await;
    let change = second.island_changed().await;
    assert_eq!(change.peers.len(), 2);
    enter_room(&two, &change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_at_another_gateway_ends_the_first_session() {
    let server = NatsServer::start();
    let (here, there) = (realm_on(&server, &[]), realm_on(&server, &[("ROOMS__NODE", "rooms-there")]));
    let wallet = wallet();
    let mut older = sign_in(&here, &wallet).await;
    let mut newer = sign_in(&there, &wallet).await;
    assert!(matches!(older.next_packet().await, server_packet::Message::Kicked(_)));
    assert_eq!(older.closed().await.0, Close::NewSession);
    assert!(newer.is_quiet_for(Duration::from_millis(300)).await);
    // A third sign-in at the first gateway replaces that one.
    let _newest = sign_in(&here, &wallet).await;
    assert_eq!(newer.closed().await.0, Close::NewSession);
}

/// The standard error of `atoll serve` when it does not start.
fn refused_start(flags: &[&str], settings: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(flags).env("ATOLL__SERVER__ADMIN", "");
    command.env("ATOLL__ROOMS__TOKEN_SECRETS", SECRET);
    for (key, value) in settings {
        command.env(format!("ATOLL__{key}"), value);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!((output.status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(!stderr.contains("sesame"), "the password is printed: {stderr}");
    stderr
}

/// `atoll serve` with a bus that accepts connections and sends nothing, once it has connected.
fn hanging_start(bus: &TcpListener) -> (Child, TcpStream) {
    let url = format!("nats://{}", bus.local_addr().unwrap());
    let child = Command::new(env!("CARGO_BIN_EXE_atoll"))
        .args(["serve", "--listen", "127.0.0.1:0", "--bus", &url])
        .env("ATOLL__SERVER__ADMIN", "")
        .env("ATOLL__ROOMS__TOKEN_SECRETS", SECRET)
        .env("ATOLL__BUS__CONNECT_TIMEOUT_S", "600")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, bus.accept().unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_ends_a_start_that_waits_for_the_bus() {
    for signal in ["TERM", "INT"] {
        let bus = TcpListener::bind("127.0.0.1:0").unwrap();
        let (child, _connection) = tokio::task::spawn_blocking(move || hanging_start(&bus)).await.unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = timeout(TEST_TIMEOUT, ended).await.expect("an end in time").unwrap().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(log.contains("stopped during the start"), "{log}");
    }
}

#[test]
fn unreachable_bus_prevents_the_start_with_a_reason() {
    let free = free_address();
    let stderr = refused_start(&["--bus", &format!("nats://atoll:sesame@{free}")], &[]);
    assert!(stderr.contains(&format!("atoll: no bus: cannot connect to nats://{free}: ")), "{stderr}");
    let server = NatsServer::start_with(&["--user", "atoll", "--pass", "open sesame"]);
    let wrong = [("BUS__USER", "atoll"), ("BUS__PASSWORD", "sesame")];
    let stderr = refused_start(&["--bus", &server.url()], &wrong);
    let url = server.url();
    assert!(stderr.contains(&format!("no bus: {url} refuses our user and password, token")), "{stderr}");
    let right = Realm::launch(&["--bus", &server.url_as("atoll:open%20sesame")], &[]);
    assert!(right.http.starts_with("http://127.0.0.1:"));
    let stderr =
        refused_start(&["--bus", "127.0.0.1"], &[("BUS__TOKEN", "sesame"), ("BUS__PASSWORD", "sesame")]);
    for part in [
        "bus.url = (hidden): must be nats://host:port or tls://host:port",
        "bus.password = (hidden): must be set with bus.user, and not without it",
        "2 problem(s)",
    ] {
        assert!(stderr.contains(part), "{part} not in {stderr}");
    }
    let stderr = refused_start(&["--bus", &server.url()], &[("BUS__SUBJECTS", "comms-v2")]);
    assert!(stderr.contains("bus.subjects = comms-v2: must be comms-v3 or archipelago-workers"), "{stderr}");
    let stderr = refused_start(&[], &[("BUS__SUBJECTS", "archipelago-workers")]);
    assert!(stderr.contains("bus.subjects = archipelago-workers: needs bus.url"), "{stderr}");
}
