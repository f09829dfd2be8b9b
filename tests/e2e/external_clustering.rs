//! External clustering: another service publishes which peers are together.

use std::time::Duration;

use protocol::{
    Address, Message as _, Subject,
    v3::{ClusterChangeMessage, server_packet},
};
use test_support::{
    NatsServer, Realm, eventually, wallet,
    wire::{enter_room, sign_in},
};

/// The service that publishes clusters.
struct ClusteringService(async_nats::Client);

impl ClusteringService {
    async fn publish(&self, peer: Address, cluster: &str, realm: &str) {
        let change = ClusterChangeMessage { cluster_id: cluster.to_owned(), realm: realm.to_owned() };
        let subject = Subject::PeerClusterChange(peer).to_string();
        self.0.publish(subject, change.encode_to_vec().into()).await.unwrap();
        self.0.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_one_external_cluster_share_an_island() {
    let server = NatsServer::start();
    let settings = [("ISLANDS__CLUSTERING", "given"), ("REALM__NAME", "lagoon"), ("ROOMS__GRACE_S", "1")];
    let realm = Realm::launch(&["--bus", &server.url()], &settings);
    let decider = ClusteringService(async_nats::connect(server.url()).await.unwrap());
    let (alice, bob) = (wallet(), wallet());
    let (mut a, mut b) = (sign_in(&realm, &alice).await, sign_in(&realm, &bob).await);
    // They are at one position, and no cluster has been published.
    a.heartbeat(0.0).await;
    b.heartbeat(0.0).await;
    assert!(a.is_quiet_for(Duration::from_secs(1)).await, "in no cluster, in no island");
    // A cluster of another realm is ignored.
    decider.publish(alice.address(), "one", "desert").await;
    decider.publish(bob.address(), "one", "lagoon").await;
    let alone = b.island_changed().await;
    assert_eq!(alone.peers.len(), 1);
    // Bob stays with Carol: theirs is the larger part, and keeps the island.
    let carol = wallet();
    let mut c = sign_in(&realm, &carol).await;
    c.heartbeat(-5_000.0).await;
    decider.publish(carol.address(), "one", "lagoon").await;
    c.island_changed().await;
    a.heartbeat(5_000.0).await;
    decider.publish(alice.address(), "one", "lagoon").await;
    let met = a.island_changed().await;
    assert_eq!((&met.island_id, met.peers.len()), (&alone.island_id, 3));
    // All of them are sent to one room.
    let mut rooms = Vec::new();
    for (wallet, change) in [(&bob, &alone), (&alice, &met)] {
        rooms.push(enter_room(wallet, change).await);
    }
    let there: Vec<&String> = rooms[1].1.peer_identities.values().collect();
    assert_eq!(there, [&bob.address().to_string()]);
    // Walking changes no assignment.
    a.heartbeat(0.0).await;
    b.heartbeat(9_000.0).await;
    assert!(a.is_silent_for(Duration::from_secs(1)).await);
    // Alice is put into another cluster, although they are near each other.
    b.heartbeat(0.0).await;
    decider.publish(alice.address(), "two", "").await;
    let parted = a.island_changed().await;
    assert_eq!((parted.from_island_id.as_ref(), parted.peers.len()), (Some(&met.island_id), 1));
    let (_room, welcome) = enter_room(&alice, &parted).await;
    assert!(welcome.peer_identities.is_empty());
    let (close, _) = rooms[1].0.closed().await;
    assert_eq!(close, protocol::Close::Moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_without_position_is_enough_for_an_island() {
    let server = NatsServer::start();
    let settings = [
        ("ISLANDS__CLUSTERING", "given"),
        ("ISLANDS__SILENCE_S", "5"),
        ("GATEWAY__VOUCH_INTERVAL_S", "1"),
        ("GATEWAY__VOUCH_FOR_S", "1"),
        ("GATEWAY__PING_INTERVAL_S", "3"),
        ("GATEWAY__IDLE_TIMEOUT_S", "1"),
    ];
    let realm = Realm::launch(&["--bus", &server.url()], &settings);
    // The director has subscribed then: it would miss earlier messages of another service.
    eventually("ready", async || realm.get("/health/ready").await.status() == 200).await;
    let decider = ClusteringService(async_nats::connect(server.url()).await.unwrap());
    let (alice, bob) = (wallet(), wallet());
    let (mut a, mut b) = (sign_in(&realm, &alice).await, sign_in(&realm, &bob).await);
    decider.publish(alice.address(), "one", "").await;
    let alone = a.island_changed().await;
    assert_eq!(alone.peers.into_keys().collect::<Vec<_>>(), [alice.address().to_string()]);
    decider.publish(bob.address(), "one", "").await;
    let met = b.island_changed().await;
    assert_eq!((&met.island_id, met.peers.len()), (&alone.island_id, 2));
    let server_packet::Message::JoinIsland(joined) = a.next_packet().await else { panic!("no join") };
    assert_eq!(joined.peer_id, bob.address().to_string());
    // Both sockets only answer pings, for longer than the idle timeout and the engine's silence.
    let (quiet_a, quiet_b) =
        tokio::join!(a.is_silent_for(Duration::from_secs(8)), b.is_silent_for(Duration::from_secs(8)));
    assert!(quiet_a && quiet_b);
    assert_eq!(realm.json("/peers").await["peers"], serde_json::json!([]), "no position is known");
    assert_eq!(realm.json("/about").await["comms"]["usersCount"], 2);
    decider.publish(bob.address(), "two", "").await;
    // The halves are of equal size, so either may keep the island.
    let parted = tokio::select! {
        parted = a.island_changed() => parted,
        parted = b.island_changed() => parted,
    };
    assert_eq!((parted.island_id != met.island_id, parted.peers.len()), (true, 1));
}
