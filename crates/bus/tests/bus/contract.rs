//! The guarantees of the bus, tested on each of its implementations.

use std::time::{Duration, SystemTime};

use bus::{Bus, Headers, Subscription};
use protocol::{IslandId, SessionId, Subject, subject, unix_ms};
use test_support::NatsServer;
use tokio::time::timeout;

use crate::{
    common::{TEST_TIMEOUT, heartbeat, next, peer, settings, until},
    metric,
};

/// A bus and the server that has to outlive it.
struct BusUnderTest {
    bus: Bus,
    server: Option<NatsServer>,
}

impl BusUnderTest {
    fn in_process() -> Self {
        Self { bus: Bus::in_process(), server: None }
    }

    async fn nats() -> Self {
        let server = NatsServer::start();
        Self { bus: Bus::nats(settings(&server.url())).await.unwrap(), server: Some(server) }
    }

    /// The name of a subscriber, for tests that read its metrics: they run on each bus in one process.
    fn name(&self, in_process: &'static str, nats: &'static str) -> &'static str {
        if self.server.is_some() { nats } else { in_process }
    }
}

/// One module for each bus, with all guarantees as tests.
macro_rules! contract {
    ($($guarantee:ident),* $(,)?) => {
        mod in_process {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $guarantee() {
                    super::$guarantee(super::BusUnderTest::in_process()).await;
                }
            )*
        }
        mod over_nats {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $guarantee() {
                    super::$guarantee(super::BusUnderTest::nats().await).await;
                }
            )*
        }
    };
}

contract!(
    subscribers_receive_matching_messages_in_order,
    full_queue_drops_the_newest_and_delays_no_other,
    one_publisher_is_received_in_order_over_all_patterns,
    each_of_several_publishers_is_received_in_order,
    headers_arrive_unchanged,
    message_matching_two_patterns_arrives_once,
    wildcards_match_segments,
    subscription_ends_when_dropped,
    subscriptions_end_with_the_bus,
    publisher_does_not_wait_for_a_slow_subscriber,
    message_of_a_far_future_session_is_dropped,
);

/// A subject that ends a test's messages.
const LAST: &str = "engine.discovery";

fn last() -> Subject {
    Subject::EngineDiscovery
}

fn island() -> IslandId {
    "I1".parse().unwrap()
}

async fn subjects(subscription: &mut Subscription, count: usize) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for _ in 0..count {
        subjects.push(next(subscription).await.subject().unwrap());
    }
    subjects
}

async fn subscribers_receive_matching_messages_in_order(test: BusUnderTest) {
    let bus = &test.bus;
    let mut both = bus.subscribe("both", &[subject::PEER_HEARTBEATS, subject::ENGINE_ISLANDS], 8);
    let mut islands = bus.subscribe("islands", &[subject::ENGINE_ISLANDS], 8);
    bus.publish(&heartbeat(1), Headers::default(), "first");
    bus.publish(&Subject::EngineIslands, Headers::default(), "second");
    bus.publish(&Subject::EngineDiscovery, Headers::default(), "without a subscriber");
    bus.publish(&heartbeat(2), Headers::for_session(SessionId::new(1, 2)), "third");
    for (subject, payload, session) in [
        (heartbeat(1), "first", None),
        (Subject::EngineIslands, "second", None),
        (heartbeat(2), "third", Some(SessionId::new(1, 2))),
    ] {
        let envelope = next(&mut both).await;
        assert_eq!((envelope.subject().unwrap(), envelope.headers.session), (subject, session));
        assert_eq!((&envelope.payload[..], envelope.missed), (payload.as_bytes(), 0));
    }
    assert_eq!(next(&mut islands).await.payload, "second");
    bus.publish(&Subject::EngineIslands, Headers::default(), "end");
    for subscription in [&mut both, &mut islands] {
        assert_eq!(next(subscription).await.payload, "end", "nothing in between");
    }
}

async fn full_queue_drops_the_newest_and_delays_no_other(test: BusUnderTest) {
    metric::install_recorder();
    let bus = &test.bus;
    let name = test.name("full-in-process", "full-over-nats");
    let mut slow = bus.subscribe(name, &[subject::PEER_HEARTBEATS], 2);
    let mut quick = bus.subscribe("quick", &[subject::PEER_HEARTBEATS], 8);
    (0..4).for_each(|number| bus.publish(&heartbeat(number), Headers::default(), ""));
    // Over NATS a task fills the queue: the test reads only after that task has dropped the messages that do
    // not fit.
    let dropped = format!("atoll_bus_dropped_total{{subscriber=\"{name}\"}}");
    until("both are dropped", || metric::count(&dropped) == 2).await;
    assert_eq!(subjects(&mut quick, 4).await, (0..4).map(heartbeat).collect::<Vec<_>>());
    assert_eq!(subjects(&mut slow, 2).await, [heartbeat(0), heartbeat(1)]);
    assert!(slow.try_next().is_none());
    bus.publish(&heartbeat(4), Headers::default(), "");
    let (late, in_time) = (next(&mut slow).await, next(&mut quick).await);
    assert_eq!(
        (late.subject().unwrap(), late.missed),
        (heartbeat(4), 2),
        "the number of dropped messages is reported"
    );
    assert_eq!((in_time.subject().unwrap(), in_time.missed), (heartbeat(4), 0));
}

/// Subjects of all patterns of a gateway, mixed so that no subject's successor is the next one of its own
/// pattern.
fn mixed(number: u32) -> Subject {
    // A multiplicative hash: it mixes the kinds in the same way in every run.
    match number.wrapping_mul(2_654_435_761) >> 29 {
        0 => Subject::PeerConnect(peer(number)),
        1 => Subject::PeerIslandChanged(peer(number)),
        2 => Subject::IslandPeerJoin(island()),
        3 => Subject::IslandPeerLeft(island()),
        4 => Subject::PeerDisconnect(peer(number)),
        5 => Subject::EngineIslands,
        6 => Subject::MembershipEnded(island()),
        _ => heartbeat(number),
    }
}

const MIXED: [&str; 8] = [
    subject::PEER_CONNECTS,
    subject::PEER_ISLAND_CHANGES,
    subject::ISLAND_PEER_JOINS,
    subject::ISLAND_PEER_LEAVES,
    subject::PEER_DISCONNECTS,
    subject::ENGINE_ISLANDS,
    subject::MEMBERSHIP_ENDS,
    subject::PEER_HEARTBEATS,
];

async fn one_publisher_is_received_in_order_over_all_patterns(test: BusUnderTest) {
    const COUNT: u32 = 20_000;
    let bus = test.bus.clone();
    let mut subscription = bus.subscribe("all", &MIXED, COUNT as usize);
    let publisher = tokio::spawn(async move {
        for number in 0..COUNT {
            bus.publish(&mixed(number), Headers::default(), number.to_string());
            // Flushes, because heartbeats that wait for more than two seconds are dropped, as on a busy
            // machine.
            if number % 1_000 == 0 {
                bus.flush().await;
            }
            // Sometimes in bursts, sometimes alone.
            if number % 97 == 0 {
                tokio::time::sleep(Duration::from_micros(u64::from(number % 1_000))).await;
            }
        }
    });
    for number in 0..COUNT {
        let envelope = next(&mut subscription).await;
        assert_eq!(envelope.payload, number.to_string(), "in order");
        assert_eq!((envelope.subject(), envelope.missed), (Some(mixed(number)), 0));
    }
    publisher.await.unwrap();
}

async fn each_of_several_publishers_is_received_in_order(test: BusUnderTest) {
    const COUNT: u32 = 5_000;
    let mut subscription = test.bus.subscribe("all", &MIXED, 4 * COUNT as usize);
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..4_u128 {
        let bus = test.bus.clone();
        let headers = Headers::for_session(SessionId::new(1, publisher));
        publishers.spawn(async move {
            for number in 0..COUNT {
                bus.publish(&mixed(number), headers.clone(), number.to_string());
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
                if number % 250 == 0 {
                    // As above.
                    bus.flush().await;
                }
            }
        });
    }
    let mut expected = std::collections::HashMap::new();
    for _ in 0..4 * COUNT {
        let envelope = next(&mut subscription).await;
        let expected: &mut u32 = expected.entry(envelope.headers.session.unwrap()).or_default();
        assert_eq!(envelope.payload, expected.to_string(), "in order");
        *expected += 1;
    }
}

async fn headers_arrive_unchanged(test: BusUnderTest) {
    let mut subscription = test.bus.subscribe("headers", &[subject::PEER_CONNECTS], 8);
    let given = [
        Headers::default(),
        Headers::for_session(SessionId::new(7, 8)),
        Headers { transports: Some("p2p,ws-room".into()), ..Headers::for_session(SessionId::new(7, 9)) },
        Headers { sender: Some(peer(3)), ..Headers::default() },
    ];
    for headers in &given {
        test.bus.publish(&Subject::PeerConnect(peer(1)), headers.clone(), &b"\0\r\n\xff"[..]);
    }
    for headers in given {
        let envelope = next(&mut subscription).await;
        assert_eq!((envelope.headers, &envelope.payload[..]), (headers, &b"\0\r\n\xff"[..]));
    }
}

async fn message_of_a_far_future_session_is_dropped(test: BusUnderTest) {
    let refused = || metric::count("atoll_bus_future_sessions_total{subscriber=\"future\"}");
    let before = refused();
    let mut subscription = test.bus.subscribe("future", &[subject::PEER_CONNECTS], 8);
    let now_ms = unix_ms(SystemTime::now());
    let hour_ms = 60 * 60 * 1_000;
    let session = |hours: u64| SessionId::new(now_ms + hours * hour_ms, 1);
    let last: SessionId = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse().unwrap();
    for session in [session(0), last, session(25), session(23)] {
        test.bus.publish(&Subject::PeerConnect(peer(1)), Headers::for_session(session), "");
    }
    for expected in [session(0), session(23)] {
        assert_eq!(next(&mut subscription).await.headers.session, Some(expected));
    }
    test.bus.publish(&Subject::PeerConnect(peer(1)), Headers::default(), "end");
    assert_eq!(next(&mut subscription).await.payload, "end", "nothing in between");
    // The same test on the other bus uses the same counter.
    assert!(refused() >= before + 2);
}

async fn message_matching_two_patterns_arrives_once(test: BusUnderTest) {
    let patterns = ["peer.*.connect", "peer.>", "*.*.*", LAST];
    let mut subscription = test.bus.subscribe("wide", &patterns, 16);
    for number in 0..3 {
        test.bus.publish(&Subject::PeerConnect(peer(number)), Headers::default(), "");
    }
    test.bus.publish(&Subject::IslandPeerJoin(island()), Headers::default(), "");
    test.bus.publish(&last(), Headers::default(), "");
    let mut expected: Vec<_> = (0..3).map(|number| Subject::PeerConnect(peer(number))).collect();
    expected.extend([Subject::IslandPeerJoin(island()), last()]);
    assert_eq!(subjects(&mut subscription, 5).await, expected);
}

async fn wildcards_match_segments(test: BusUnderTest) {
    let bus = &test.bus;
    let mut topics = bus.subscribe("topics", &[subject::TOPICS, LAST], 16);
    let mut peers = bus.subscribe("peers", &["client-proto.peer.*.news", LAST], 16);
    let topic = |text: &str| Subject::PeerTopic(peer(1), text.parse().unwrap());
    let published = [topic("news"), topic("news.today"), Subject::SystemTopic("news".parse().unwrap())];
    for subject in &published {
        bus.publish(subject, Headers::default(), "");
    }
    bus.publish(&Subject::SceneTopic("messageBus.scene.s.news".parse().unwrap()), Headers::default(), "");
    bus.publish(&last(), Headers::default(), "");
    assert_eq!(subjects(&mut topics, 4).await, [&published[..], &[last()]].concat());
    assert_eq!(subjects(&mut peers, 2).await, [topic("news"), last()]);
}

async fn subscription_ends_when_dropped(test: BusUnderTest) {
    let mut dropped = test.bus.subscribe("gone", &[subject::ENGINE_ISLANDS], 1);
    test.bus.publish(&Subject::EngineIslands, Headers::default(), "");
    next(&mut dropped).await;
    drop(dropped);
    let wait = async {
        loop {
            test.bus.publish(&Subject::EngineIslands, Headers::default(), "");
            let is_subscribed = match &test.server {
                // The server answers a request at once with an error if there is no subscriber.
                Some(server) => {
                    let client = async_nats::connect(server.url()).await.unwrap();
                    client.request(subject::ENGINE_ISLANDS, "".into()).await.unwrap_err().kind()
                        != async_nats::RequestErrorKind::NoResponders
                }
                None => !format!("{:?}", test.bus).contains("subscribers: RwLock { data: []"),
            };
            if !is_subscribed {
                return;
            }
        }
    };
    timeout(TEST_TIMEOUT, wait).await.expect("the subscription ended");
}

async fn subscriptions_end_with_the_bus(test: BusUnderTest) {
    let BusUnderTest { bus, server: _server } = test;
    let mut subscription = bus.subscribe("left", &[subject::ENGINE_ISLANDS], 4);
    bus.publish(&Subject::EngineIslands, Headers::default(), "");
    assert!(timeout(TEST_TIMEOUT, subscription.next()).await.unwrap().is_some());
    drop(bus);
    assert!(timeout(TEST_TIMEOUT, subscription.next()).await.unwrap().is_none());
}

async fn publisher_does_not_wait_for_a_slow_subscriber(test: BusUnderTest) {
    const COUNT: u32 = 50_000;
    // Connects are sent however long they wait; heartbeats are not.
    let connect = |number| Subject::PeerConnect(peer(number));
    let bus = &test.bus;
    let mut slow = bus.subscribe("slow", &[subject::PEER_CONNECTS], 10);
    let mut quick = bus.subscribe("quick", &[subject::PEER_DISCONNECTS], 1);
    // `publish` is not async: if it waited for anything, it would block this thread and the test.
    let payload = |number: u32| format!("{number:064}");
    (0..COUNT).for_each(|number| bus.publish(&connect(number), Headers::default(), payload(number)));
    bus.publish(&Subject::PeerDisconnect(peer(0)), Headers::default(), "");
    // The slow subscriber reads nothing until another one has the last message.
    next(&mut quick).await;
    // It then reads while the task fills its queue. Which messages are kept depends on both, but each is
    // counted once: as read or as missed.
    let (mut counted, mut published, mut kept) = (0, COUNT, Vec::new());
    while counted <= u64::from(COUNT) {
        let envelope = match timeout(Duration::from_millis(20), slow.next()).await {
            Ok(envelope) => envelope.unwrap(),
            Err(_) => {
                // The queue may have been full for the previous one, too.
                bus.publish(&connect(published), Headers::default(), payload(published));
                published += 1;
                assert!(published < 2 * COUNT, "counted {counted} messages");
                continue;
            }
        };
        let number: u64 = String::from_utf8(envelope.payload.to_vec()).unwrap().parse().unwrap();
        counted += envelope.missed + 1;
        assert_eq!(counted, number + 1, "each message before it was read or counted as missed");
        kept.push(number);
    }
    assert_eq!(kept[..10], *(0..10).collect::<Vec<_>>(), "the newest are dropped");
}
