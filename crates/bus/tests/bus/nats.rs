//! Behaviour that only the bus over NATS has: a network, servers that stop, foreign publishers.

use std::time::Duration;

use async_nats::HeaderMap;
use bus::{Bus, ConnectError, Credentials, Headers, NatsSettings, Subscription};
use protocol::{
    Address, SessionId, Subject,
    subject::{self, SubjectScheme},
};
use test_support::{NatsServer, free_address};
use tokio::time::{sleep, timeout};

use crate::common::{TEST_TIMEOUT, client_subscribed, heartbeat, next, peer, settings, subscribed, until};

/// A bus with a subscription to the subjects of peers and scenes.
async fn connect_and_subscribe_all(url: &str) -> (Bus, Subscription) {
    let bus = Bus::nats(settings(url)).await.unwrap();
    let subscription = bus.subscribe("test", &["peer.>", "messageBus.scene.>"], 1_000);
    subscribed(&bus).await;
    (bus, subscription)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_receive_each_others_and_own_messages() {
    let server = NatsServer::start();
    let (one, mut received_by_one) = connect_and_subscribe_all(&server.url()).await;
    let (two, mut received_by_two) = connect_and_subscribe_all(&server.url()).await;
    one.publish(&Subject::PeerConnect(peer(1)), Headers::for_session(SessionId::new(1, 1)), "");
    for subscription in [&mut received_by_one, &mut received_by_two] {
        let envelope = next(subscription).await;
        assert_eq!(envelope.subject(), Some(Subject::PeerConnect(peer(1))));
        assert_eq!(envelope.headers.session, Some(SessionId::new(1, 1)));
    }
    two.publish(&Subject::PeerDisconnect(peer(2)), Headers::default(), "");
    for subscription in [&mut received_by_one, &mut received_by_two] {
        assert_eq!(next(subscription).await.subject(), Some(Subject::PeerDisconnect(peer(2))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_sends_buffered_and_drops_stale_messages() {
    let mut server = NatsServer::start();
    let (bus, mut subscription) = connect_and_subscribe_all(&server.url()).await;
    let (other, mut other_subscription) = connect_and_subscribe_all(&server.url()).await;
    server.stop();
    until("away", || bus.is_disconnected() && other.is_disconnected()).await;
    // Far more repeated messages than the buffer has room for; `publish` waits for none of them.
    for number in 0..100_000 {
        bus.publish(&heartbeat(number), Headers::default(), "stale");
    }
    let lasting = [
        Subject::PeerConnect(peer(1)),
        Subject::PeerIslandChanged(peer(1)),
        Subject::PeerDisconnect(peer(1)),
    ];
    for (number, subject) in lasting.iter().cycle().take(300).enumerate() {
        bus.publish(subject, Headers::default(), number.to_string());
        bus.publish(&heartbeat(1), Headers::default(), "stale");
    }
    bus.flush().await;
    server.restart();
    until("back", || !bus.is_disconnected() && !other.is_disconnected()).await;
    bus.publish(&heartbeat(7), Headers::default(), "fresh");
    for subscription in [&mut subscription, &mut other_subscription] {
        for (number, subject) in lasting.iter().cycle().take(300).enumerate() {
            let envelope = next(subscription).await;
            assert_eq!(
                (envelope.subject().as_ref(), &envelope.payload),
                (Some(subject), &number.to_string().into())
            );
        }
        assert_eq!(next(subscription).await.payload, "fresh");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_recovers_after_repeated_restarts() {
    let mut server = NatsServer::start();
    let (bus, mut subscription) = connect_and_subscribe_all(&server.url()).await;
    for number in 0..3 {
        server.restart();
        // The outage may not have been detected yet; after the reconnect the messages arrive.
        let recovery = async {
            loop {
                bus.publish(&heartbeat(number), Headers::default(), "");
                // Messages of the previous round may still arrive.
                while let Ok(envelope) = timeout(Duration::from_millis(50), subscription.next()).await {
                    if envelope.unwrap().subject() == Some(heartbeat(number)) {
                        return;
                    }
                }
            }
        };
        timeout(TEST_TIMEOUT, recovery).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_message_with_malformed_header_is_dropped_whole() {
    let server = NatsServer::start();
    let (bus, mut subscription) = connect_and_subscribe_all(&server.url()).await;
    let foreign = async_nats::connect(server.url()).await.unwrap();
    let peer_subject = format!("peer.{}.connect", peer(1));
    let scene_subject = "messageBus.scene.s1.door";
    let session = SessionId::new(5, 6);
    // Without any headers.
    foreign.publish(peer_subject.clone(), "bare".into()).await.unwrap();
    let envelope = next(&mut subscription).await;
    assert_eq!((envelope.headers, &envelope.payload[..]), (Headers::default(), &b"bare"[..]));
    // A server is a publisher without the sender header, or with an empty one.
    let sender = peer(9).to_string();
    for (value, understood) in [(None, None), (Some(""), None), (Some(&*sender), Some(peer(9)))] {
        let mut headers = HeaderMap::new();
        headers.insert("X-Foreign", "anything");
        value.inspect(|&value| headers.insert("Atoll-Sender", value));
        foreign.publish_with_headers(scene_subject, headers, "x".into()).await.unwrap();
        assert_eq!(next(&mut subscription).await.headers.sender, understood);
    }
    // Malformed headers.
    let ulid = session.to_string();
    for (name, value) in [
        ("Atoll-Session", "now"),
        ("Atoll-Sender", "0x1"),
        ("Atoll-Sender", "not-an-address"),
        ("Atoll-Transports", "ws room"),
        ("Atoll-Sequence", "7"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        if name != "Atoll-Session" {
            headers.insert("Atoll-Session", &*ulid);
        }
        foreign.publish_with_headers(peer_subject.clone(), headers, "malformed".into()).await.unwrap();
    }
    // A subject that this project does not define is delivered; the subscriber ignores it.
    foreign.publish("peer.x.y", "unknown".into()).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Atoll-Session", &*ulid);
    foreign.publish_with_headers(peer_subject, headers, "whole".into()).await.unwrap();
    let unknown = next(&mut subscription).await;
    assert_eq!((unknown.subject(), &unknown.payload[..]), (None, &b"unknown"[..]));
    let whole = next(&mut subscription).await;
    assert_eq!((whole.headers.session, &whole.payload[..], whole.missed), (Some(session), &b"whole"[..], 0));
    drop(bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_subscribers_read_our_headers() {
    let server = NatsServer::start();
    let foreign = async_nats::connect(server.url()).await.unwrap();
    let mut subscriber = foreign.subscribe("messageBus.scene.s1.>").await.unwrap();
    client_subscribed(&foreign).await;
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let headers = Headers { sender: Some(peer(3)), ..Headers::for_session(SessionId::new(1, 2)) };
    let subject = Subject::SceneTopic("messageBus.scene.s1.door".parse().unwrap());
    bus.publish(&subject, headers, "open");
    let message =
        timeout(TEST_TIMEOUT, futures_util::StreamExt::next(&mut subscriber)).await.unwrap().unwrap();
    assert_eq!((message.subject.as_str(), &message.payload[..]), ("messageBus.scene.s1.door", &b"open"[..]));
    let headers = message.headers.unwrap();
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("Atoll-Sender"), Some(peer(3).to_string()));
    assert_eq!(header("Atoll-Session"), Some(SessionId::new(1, 2).to_string()));
    assert_eq!(header("Atoll-Transports"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pattern_queue_overflow_is_counted_as_missed() {
    let server = NatsServer::start();
    let settings = NatsSettings { pattern_queue: Some(1), ..settings(&server.url()) };
    let bus = Bus::nats(settings).await.unwrap();
    let (mut other, mut slow) = (
        bus.subscribe("other", &["peer.*.connect"], 10),
        bus.subscribe("slow", &["peer.*.heartbeat"], 100_000),
    );
    bus.flush().await;
    let (mut received, mut missed) = (0, 0);
    // So many that some arrive while one waits, however fast the tasks are.
    let overrun = async {
        while missed == 0 {
            (0..1_000).for_each(|number| bus.publish(&heartbeat(number), Headers::default(), ""));
            bus.flush().await;
            sleep(Duration::from_millis(50)).await;
            while let Some(envelope) = slow.try_next() {
                received += 1;
                missed += envelope.missed;
            }
        }
    };
    timeout(TEST_TIMEOUT, overrun).await.unwrap();
    assert!(received > 0);
    bus.publish(&Subject::PeerConnect(peer(1)), Headers::default(), "");
    assert_eq!(next(&mut other).await.missed, 0, "no other subscriber missed any");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_error_names_the_reason_without_the_password() {
    // A port without a listener, and a listener that is no NATS server.
    let silent = free_address();
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging_port = hanging.local_addr().unwrap().port();
    let quick = |url: &str| NatsSettings { connect_timeout: Duration::from_secs(1), ..settings(url) };
    let error_text = |result: Result<Bus, ConnectError>| {
        let error = result.expect_err("no connection");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
        error.to_string()
    };
    let url = format!("nats://someone:sesame@{silent}");
    let unreachable = error_text(Bus::nats(quick(&url)).await);
    assert!(unreachable.starts_with(&format!("cannot connect to nats://{silent}: ")), "{unreachable}");
    let url = format!("nats://127.0.0.1:{hanging_port}");
    assert_eq!(
        error_text(Bus::nats(quick(&url)).await),
        format!("no reply from nats://127.0.0.1:{hanging_port} within 1s")
    );
    assert!(
        error_text(Bus::nats(quick("http://sesame:4222")).await)
            .starts_with("the URL of a NATS server must be")
    );
    let missing = Credentials::File("/nowhere/atoll.creds".into());
    let error =
        error_text(Bus::nats(NatsSettings { credentials: missing, ..quick("nats://127.0.0.1:9") }).await);
    assert_eq!(error, "cannot read the credentials in /nowhere/atoll.creds");
    let ca_file = Some("/nowhere/ca.pem".into());
    let error = error_text(Bus::nats(NatsSettings { ca_file, ..quick("tls://127.0.0.1:9") }).await);
    assert_eq!(error, "cannot read the certificates in /nowhere/ca.pem");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_url_or_settings() {
    let server = NatsServer::start_with(&["--user", "atoll", "--pass", "sesame"]);
    let with = |url: &str, credentials| NatsSettings { credentials, ..settings(url) };
    let user = |password: &str| Credentials::User("atoll".to_owned(), password.to_owned());
    for right in
        [with(&server.url_as("atoll:sesame"), Credentials::None), with(&server.url(), user("sesame"))]
    {
        let bus = Bus::nats(right).await.unwrap();
        let mut subscription = bus.subscribe("test", &[subject::PEER_CONNECTS], 1);
        bus.publish(&Subject::PeerConnect(Address::new([1; 20])), Headers::default(), "");
        next(&mut subscription).await;
    }
    for wrong in [
        with(&server.url(), Credentials::None),
        with(&server.url(), user("open")),
        with(&server.url_as("atoll:open"), Credentials::None),
    ] {
        let error = Bus::nats(wrong).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
    }
    let server = NatsServer::start_with(&["--auth", "sesame-token"]);
    let token = |token: &str| with(&server.url(), Credentials::Token(token.to_owned()));
    Bus::nats(token("sesame-token")).await.unwrap();
    Bus::nats(with(&server.url_as("sesame-token"), Credentials::None)).await.unwrap();
    assert!(matches!(Bus::nats(token("other")).await, Err(ConnectError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn archipelago_workers_scheme_uses_its_subjects_no_headers() {
    let server = NatsServer::start();
    let foreign = async_nats::connect(server.url()).await.unwrap();
    let mut foreign_subscription = foreign.subscribe(">").await.unwrap();
    // Once it receives its own message, the server knows of its subscription.
    foreign.publish("probe", "".into()).await.unwrap();
    timeout(TEST_TIMEOUT, futures_util::StreamExt::next(&mut foreign_subscription)).await.unwrap().unwrap();
    let settings =
        NatsSettings { subject_scheme: SubjectScheme::ArchipelagoWorkers, ..settings(&server.url()) };
    let bus = Bus::nats(settings).await.unwrap();
    assert_eq!(
        (bus.subject_scheme(), Bus::in_process().subject_scheme()),
        (SubjectScheme::ArchipelagoWorkers, SubjectScheme::CommsV3)
    );
    let patterns = [
        subject::PEER_CONNECTS,
        subject::PEER_HEARTBEATS,
        subject::PEER_ISLAND_CHANGES,
        subject::ISLAND_PEER_JOINS,
        subject::MEMBERSHIP_ENDS,
    ];
    let mut subscription = bus.subscribe("scheme", &patterns, 100);
    let island: protocol::IslandId = "I1".parse().unwrap();
    let headers = Headers { epoch: Some(4), ..Headers::for_session(SessionId::new(1, 2)) };
    let published = [
        Subject::PeerConnect(peer(1)),
        heartbeat(1),
        Subject::PeerIslandChanged(peer(1)),
        Subject::IslandPeerJoin(island.clone()),
        Subject::MembershipEnded(island),
    ];
    // One at a time: without sequence numbers only the order within each pattern is kept.
    for subject in &published {
        bus.publish(subject, headers.clone(), "payload");
        let foreign_subject = match subject {
            Subject::PeerConnect(_) | Subject::IslandPeerJoin(_) => continue,
            Subject::PeerIslandChanged(peer) => format!("engine.peer.{peer}.island_changed"),
            other => other.to_string(),
        };
        let foreign_message = timeout(TEST_TIMEOUT, futures_util::StreamExt::next(&mut foreign_subscription))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (foreign_message.subject.as_str(), &foreign_message.payload[..]),
            (&*foreign_subject, &b"payload"[..])
        );
        let envelope = next(&mut subscription).await;
        assert_eq!(envelope.subject().as_ref(), Some(subject));
        let is_atoll_subject = matches!(subject, Subject::MembershipEnded(_));
        assert_eq!(foreign_message.headers.is_some(), is_atoll_subject);
        assert_eq!(envelope.headers, if is_atoll_subject { headers.clone() } else { Headers::default() });
    }
    // A subject that only the CommsV3 scheme spells like this is not delivered.
    foreign.publish(format!("peer.{}.island_changed", peer(1)), "".into()).await.unwrap();
    foreign.publish(format!("engine.peer.{}.island_changed", peer(2)), "theirs".into()).await.unwrap();
    assert_eq!(next(&mut subscription).await.subject(), Some(Subject::PeerIslandChanged(peer(2))));
}
