//! Fencing: messages of deposed directors are dropped.

use bus::{Bus, Headers, Subscription};
use protocol::{Subject, subject};
use test_support::NatsServer;

use crate::{
    common::{next, peer, settings, subscribed},
    metric,
};

/// The payloads received, up to and including `last`.
async fn payloads_until_last(subscription: &mut Subscription) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    while payloads.last().is_none_or(|payload| payload != "last") {
        payloads.push(String::from_utf8(next(subscription).await.payload.to_vec()).unwrap());
    }
    payloads
}

/// `director` publishes messages; subscribers of `bus` receive none of an earlier epoch.
async fn check_deposed_leader_is_fenced(director: &Bus, bus: &Bus, names: [&'static str; 2]) {
    metric::install_recorder();
    let patterns = [subject::PEER_ISLAND_CHANGES, subject::ISLAND_PEER_JOINS, subject::SCENE_TOPICS];
    let mut subscriptions = names.map(|name| bus.subscribe(name, &patterns, 100));
    subscribed(bus).await;
    let island_change = Subject::PeerIslandChanged(peer(1));
    let end = Subject::IslandPeerJoin("I1".parse().unwrap());
    let cases: [(&[_], &[_]); 3] = [
        (&[(Some(5), "5"), (Some(5), "5 again"), (None, "no epoch")], &["5", "5 again", "no epoch", "last"]),
        (&[(Some(7), "7")], &["7", "last"]),
        (&[(Some(6), "deposed"), (Some(7), "7"), (None, "no epoch")], &["7", "no epoch", "last"]),
    ];
    for (published, expected) in cases {
        for &(epoch, payload) in published {
            director.publish(&island_change, Headers { epoch, ..Headers::default() }, payload);
        }
        director.publish(&end, Headers::default(), "last");
        for subscription in &mut subscriptions {
            assert_eq!(payloads_until_last(subscription).await, expected);
        }
    }
    assert_eq!(bus.latest_epoch(), 7);
    // An epoch that a participant only reports fences no leader.
    bus.observe_epoch(1_000);
    assert_eq!(bus.latest_epoch(), 7);
    for (epoch, payload) in [(6, "deposed"), (9, "9")] {
        director.publish(&island_change, Headers { epoch: Some(epoch), ..Headers::default() }, payload);
    }
    // Epochs on subjects that directors do not publish fence no leader.
    let other_subject = Subject::SceneTopic("messageBus.scene.bafy.door".parse().unwrap());
    for _ in 0..2 {
        director.publish(
            &other_subject,
            Headers { epoch: Some(u64::MAX), ..Headers::default() },
            "not fenced",
        );
        director.publish(&other_subject, Headers { epoch: Some(1), ..Headers::default() }, "not fenced");
    }
    director.publish(&island_change, Headers { epoch: Some(9), ..Headers::default() }, "9");
    director.publish(&end, Headers::default(), "last");
    for (subscription, name) in subscriptions.iter_mut().zip(names) {
        let other_messages = ["not fenced"; 4];
        assert_eq!(
            payloads_until_last(subscription).await,
            [&["9"], &other_messages[..], &["9", "last"]].concat()
        );
        assert_eq!(metric::count(&format!("atoll_bus_deposed_total{{subscriber=\"{name}\"}}")), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deposed_leader_is_fenced_in_process() {
    let bus = Bus::in_process();
    check_deposed_leader_is_fenced(&bus, &bus, ["deposed-1", "deposed-2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deposed_leader_is_fenced_over_nats() {
    let server = NatsServer::start();
    let director = Bus::nats(settings(&server.url())).await.unwrap();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    check_deposed_leader_is_fenced(&director, &bus, ["deposed-3", "deposed-4"]).await;
    assert_eq!(director.latest_epoch(), 0, "it has received no epoch");
}
