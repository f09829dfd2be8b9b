//! Messages above the server's payload limit.

use std::time::Duration;

use async_nats::HeaderMap;
use bus::{Bus, Headers};
use protocol::{SessionId, Subject, subject};
use test_support::NatsServer;
use tokio::time::{sleep, timeout};

use crate::{
    common::{TEST_TIMEOUT, heartbeat, next, peer, settings, subscribed},
    metric,
};

const PATTERNS: [&str; 2] = [subject::PEER_CONNECTS, subject::PEER_HEARTBEATS];

/// A server with a payload limit of 4096 bytes, and its configuration file, which has to outlive it.
fn server_with_small_max_payload() -> (NatsServer, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "max_payload: 4096\n").unwrap();
    (NatsServer::start_with(&["--config", file.path().to_str().unwrap()]), file)
}

/// Pseudorandom bytes, so that no two parts are equal.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn message_of_any_size_arrives_whole_and_in_order() {
    let (server, _file) = server_with_small_max_payload();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut subscription = bus.subscribe("sizes", &PATTERNS, 10_000);
    let transports = Some("p2p,ws-room".into());
    let headers = Headers { transports, epoch: Some(3), ..Headers::for_session(SessionId::new(1, 2)) };
    // Around the sizes where one part becomes two and two become three, and much larger ones.
    let sizes = (3_700..4_200).chain(7_500..8_200).step_by(3).chain([0, 1, 100_000, 3_000_000]);
    let sizes: Vec<usize> = sizes.collect();
    for &size in &sizes {
        bus.publish(&heartbeat(1), headers.clone(), bytes(size));
        bus.publish(&Subject::PeerConnect(peer(2)), Headers::default(), "small");
    }
    for size in sizes {
        let large = next(&mut subscription).await;
        assert_eq!(large.payload.len(), size);
        assert!(large.payload == bytes(size), "{size}");
        assert_eq!((large.subject(), &large.headers, large.missed), (Some(heartbeat(1)), &headers, 0));
        assert_eq!(next(&mut subscription).await.payload, "small");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_publishers_are_reassembled_separately() {
    const PUBLISHERS: u32 = 4;
    const COUNT: u32 = 50;
    let (server, _file) = server_with_small_max_payload();
    let listener = Bus::nats(settings(&server.url())).await.unwrap();
    let mut subscription = listener.subscribe("several", &PATTERNS, 10_000);
    subscribed(&listener).await;
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        let bus = Bus::nats(settings(&server.url())).await.unwrap();
        publishers.push(bus.clone());
        tokio::spawn(async move {
            for message in 0..COUNT {
                let payload = vec![message as u8; 20_000 + (number * 1_000 + message) as usize];
                bus.publish(&heartbeat(number), Headers::default(), payload);
                tokio::task::yield_now().await;
            }
        });
    }
    let mut expected = [0; PUBLISHERS as usize];
    for _ in 0..PUBLISHERS * COUNT {
        let envelope = next(&mut subscription).await;
        let number = (0..PUBLISHERS).find(|&number| envelope.subject() == Some(heartbeat(number))).unwrap();
        let message = expected[number as usize];
        assert_eq!(envelope.payload, vec![message as u8; 20_000 + (number * 1_000 + message) as usize]);
        assert_eq!(envelope.missed, 0);
        expected[number as usize] += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_message_arrives_and_too_large_one_is_counted() {
    metric::install_recorder();
    let server = NatsServer::start();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut subscription = bus.subscribe("large", &PATTERNS, 100);
    let large = bytes(30 * 1024 * 1024);
    bus.publish(&heartbeat(1), Headers::default(), large.clone());
    bus.publish(&heartbeat(2), Headers::default(), vec![0; 64 * 1024 * 1024 + 1]);
    bus.publish(&heartbeat(3), Headers::default(), "after");
    assert!(next(&mut subscription).await.payload == large);
    assert_eq!(next(&mut subscription).await.subject(), Some(heartbeat(3)));
    assert_eq!(metric::count("atoll_bus_unsent_total{reason=\"too_large\"}"), 1);
    assert!(!bus.is_disconnected());
}

#[tokio::test(flavor = "multi_thread")]
async fn message_lacking_a_part_is_dropped_and_missed() {
    metric::install_recorder();
    let server = NatsServer::start();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut subscription = bus.subscribe("gap", &PATTERNS, 100);
    subscribed(&bus).await;
    let other = async_nats::connect(server.url()).await.unwrap();
    let publish_part = async |number: u32, part: Option<&str>, payload: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("Atoll-Sequence", format!("00000000000000aa.{number}"));
        part.inspect(|&part| headers.insert("Atoll-Part", part));
        other.publish_with_headers(heartbeat(1).to_string(), headers, payload.into()).await.unwrap();
    };
    publish_part(1, Some("1/3"), "a").await;
    publish_part(2, Some("2/3"), "b").await;
    publish_part(3, Some("3/3"), "c").await;
    assert_eq!(next(&mut subscription).await.payload, "abc");
    // Part 2 is lost.
    publish_part(4, Some("1/3"), "a").await;
    publish_part(6, Some("3/3"), "c").await;
    publish_part(7, None, "whole").await;
    let whole = next(&mut subscription).await;
    assert_eq!((&whole.payload[..], whole.missed), (&b"whole"[..], 1));
    assert_eq!(metric::count("atoll_bus_incomplete_total{subscriber=\"gap\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_message_survives_a_disconnect_whole() {
    let (mut server, _file) = server_with_small_max_payload();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut subscription = bus.subscribe("disconnected", &PATTERNS, 100);
    subscribed(&bus).await;
    server.stop();
    let wait = async {
        while !bus.is_disconnected() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TEST_TIMEOUT, wait).await.unwrap();
    bus.publish(&Subject::PeerConnect(peer(1)), Headers::default(), bytes(100_000));
    bus.publish(&Subject::PeerConnect(peer(2)), Headers::default(), "small");
    server.restart();
    assert!(next(&mut subscription).await.payload == bytes(100_000));
    assert_eq!(next(&mut subscription).await.payload, "small");
}
