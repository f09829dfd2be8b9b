use protocol::{Address, Subject, subject};

use super::*;

fn heartbeat(peer: u8) -> Subject {
    Subject::PeerHeartbeat(Address::new([peer; 20]))
}

#[tokio::test]
async fn subscribers_hear_what_they_asked_for_in_order() {
    let bus = Bus::in_process();
    let mut both = bus.subscribe("both", &[subject::PEER_HEARTBEATS, subject::ENGINE_ISLANDS], 8);
    let mut islands = bus.subscribe("islands", &[subject::ENGINE_ISLANDS], 8);
    bus.publish(&heartbeat(1), Headers::default(), "first");
    bus.publish(&Subject::EngineIslands, Headers::default(), "second");
    bus.publish(&Subject::EngineDiscovery, Headers::default(), "for nobody");
    bus.publish(&heartbeat(2), Headers::of_session(SessionId::new(1, 2)), "third");
    let mut heard = Vec::new();
    while let Some(envelope) = both.try_next() {
        heard.push((envelope.subject().unwrap(), envelope.payload, envelope.headers.session));
    }
    assert_eq!(
        heard,
        [
            (heartbeat(1), Bytes::from("first"), None),
            (Subject::EngineIslands, Bytes::from("second"), None),
            (heartbeat(2), Bytes::from("third"), Some(SessionId::new(1, 2))),
        ]
    );
    assert_eq!(islands.next().await.unwrap().payload, "second");
    assert!(islands.try_next().is_none());
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_delays_nobody() {
    let bus = Bus::in_process();
    let mut slow = bus.subscribe("slow", &[subject::PEER_HEARTBEATS], 2);
    let mut quick = bus.subscribe("quick", &[subject::PEER_HEARTBEATS], 8);
    for peer in 0..4 {
        bus.publish(&heartbeat(peer), Headers::default(), "");
    }
    let peers = |subscription: &mut Subscription| {
        std::iter::from_fn(|| subscription.try_next()?.subject()).collect::<Vec<_>>()
    };
    assert_eq!(peers(&mut slow), [heartbeat(0), heartbeat(1)]);
    assert_eq!(peers(&mut quick), [heartbeat(0), heartbeat(1), heartbeat(2), heartbeat(3)]);
    bus.publish(&heartbeat(4), Headers::default(), "");
    let next = |subscription: &mut Subscription| {
        let envelope = subscription.try_next().unwrap();
        (envelope.subject().unwrap(), envelope.missed)
    };
    assert_eq!(next(&mut slow), (heartbeat(4), 2), "what was dropped is told");
    assert_eq!(next(&mut quick), (heartbeat(4), 0));
}

#[tokio::test]
async fn a_subscription_ends_when_it_is_dropped() {
    let bus = Bus::in_process();
    drop(bus.subscribe("gone", &[subject::ENGINE_ISLANDS], 1));
    bus.publish(&Subject::EngineIslands, Headers::default(), "");
    assert!(format!("{bus:?}").contains("subscribers: RwLock { data: []"), "{bus:?}");
}
