//! What deposed directors say.

use bus::{Bus, Headers, Subscription};
use protocol::{Subject, subject};

use crate::{
    contract::{next, peer, subscribed},
    metric,
    nats::settings,
    server::Server,
};

/// What is heard, up to what is said last.
async fn payloads(subscription: &mut Subscription) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != "last") {
        payloads.push(String::from_utf8(next(subscription).await.payload.to_vec()).unwrap());
    }
    payloads
}

/// `director` says things, of which nobody on `bus` hears those of an earlier epoch.
async fn check_deposed_leader_is_fenced(director: &Bus, bus: &Bus, names: [&'static str; 2]) {
    metric::install_recorder();
    let patterns = [subject::PEER_ISLAND_CHANGES, subject::ISLAND_PEER_JOINS, subject::SCENE_TOPICS];
    let mut subscriptions = names.map(|name| bus.subscribe(name, &patterns, 100));
    subscribed(bus).await;
    let island_changed = Subject::PeerIslandChanged(peer(1));
    let end = Subject::IslandPeerJoin("I1".parse().unwrap());
    let cases: [(&[_], &[_]); 3] = [
        (&[(Some(5), "5"), (Some(5), "5 again"), (None, "nobody's")], &["5", "5 again", "nobody's", "last"]),
        (&[(Some(7), "7")], &["7", "last"]),
        (&[(Some(6), "deposed"), (Some(7), "7"), (None, "nobody's")], &["7", "nobody's", "last"]),
    ];
    for (said, expected) in cases {
        for &(epoch, payload) in said {
            director.publish(&island_changed, Headers { epoch, ..Headers::default() }, payload);
        }
        director.publish(&end, Headers::default(), "last");
        for subscription in &mut subscriptions {
            assert_eq!(payloads(subscription).await, expected);
        }
    }
    assert_eq!(bus.latest_epoch(), 7);
    // What somebody has heard of deposes nobody.
    bus.observe_epoch(1_000);
    assert_eq!(bus.latest_epoch(), 7);
    for (epoch, payload) in [(6, "deposed"), (9, "9")] {
        director.publish(&island_changed, Headers { epoch: Some(epoch), ..Headers::default() }, payload);
    }
    // Whoever is no director deposes nobody.
    let stranger = Subject::SceneTopic("messageBus.scene.bafy.door".parse().unwrap());
    for _ in 0..2 {
        director.publish(&stranger, Headers { epoch: Some(u64::MAX), ..Headers::default() }, "stranger");
        director.publish(&stranger, Headers { epoch: Some(1), ..Headers::default() }, "stranger");
    }
    director.publish(&island_changed, Headers { epoch: Some(9), ..Headers::default() }, "9");
    director.publish(&end, Headers::default(), "last");
    for (subscription, name) in subscriptions.iter_mut().zip(names) {
        let strangers = ["stranger"; 4];
        assert_eq!(payloads(subscription).await, [&["9"], &strangers[..], &["9", "last"]].concat());
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
    let server = Server::start();
    let director = Bus::nats(settings(&server.url())).await.unwrap();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    check_deposed_leader_is_fenced(&director, &bus, ["deposed-3", "deposed-4"]).await;
    assert_eq!(director.latest_epoch(), 0, "it hears of none");
}
