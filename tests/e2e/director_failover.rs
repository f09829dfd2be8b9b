//! One director leads, another is the standby, and peers do not notice a failover.

use std::time::{Duration, Instant};

use test_support::{
    Cluster, eventually, wallet,
    wire::{Wire, sign_in},
};

const DIRECTORS: [&str; 2] = ["one", "two"];

/// A gateway, a room node and these directors, with an admin listener each.
async fn realm(directors: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(&[]);
    cluster.run("gateway", "gateway", &[]);
    cluster.run("rooms", "rooms", &[]);
    for name in directors {
        cluster.run(name, "director", &[]);
    }
    cluster.ready().await;
    cluster
}

/// Whether this director leads.
async fn leads(cluster: &Cluster, name: &str) -> bool {
    cluster[name].count("atoll_director_leads").await == 1.0
}

/// Waits for one leader, and returns the leader and the standby.
async fn leader_and_standby(cluster: &Cluster) -> (&'static str, &'static str) {
    let [one, two] = DIRECTORS;
    let mut found = (one, two);
    eventually("one of them leads", async || {
        found = match (leads(cluster, one).await, leads(cluster, two).await) {
            (true, false) => (one, two),
            (false, true) => (two, one),
            (true, true) => panic!("both lead"),
            (false, false) => return false,
        };
        true
    })
    .await;
    found
}

/// Waits until this director leads all peers, and prints how long that took.
async fn wait_for_takeover(cluster: &Cluster, name: &str, peers: f64) {
    let began = Instant::now();
    eventually("the director takes over", async || {
        leads(cluster, name).await && cluster[name].count("dcl_archipelago_peers_count").await == peers
    })
    .await;
    println!("{name} leads {peers} peers after {:?}", began.elapsed());
}

/// Signs in a peer at `x`, and returns it with its island.
async fn enter(cluster: &Cluster, x: f32) -> (Wire, String) {
    let mut wire = sign_in(&cluster["gateway"], &wallet()).await;
    wire.heartbeat(x).await;
    let island = wire.island_changed().await.island_id;
    (wire, island)
}

/// Asserts that no peer receives a packet for a while.
async fn assert_all_quiet(peers: &mut [Wire]) {
    for (number, peer) in peers.iter_mut().enumerate() {
        let time = if number == 0 { Duration::from_secs(4) } else { Duration::from_millis(1) };
        assert!(peer.is_quiet_for(time).await, "peer {number} received {:?}", peer.next_packet().await);
    }
}

/// Two peers near each other and one far away, with their islands.
async fn sign_in_three(cluster: &Cluster) -> (Vec<Wire>, Vec<String>) {
    let (mut peers, mut islands) = (Vec::new(), Vec::new());
    for x in [0.0, 10.0, 3_000.0] {
        let (wire, island) = enter(cluster, x).await;
        peers.push(wire);
        islands.push(island);
    }
    assert_eq!(islands[0], islands[1]);
    // The first one is notified of the second one's join.
    peers[0].next_packet().await;
    (peers, islands)
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_notice_nothing_when_the_leader_is_killed() {
    let mut cluster = realm(&DIRECTORS).await;
    let (first, second) = leader_and_standby(&cluster).await;
    let (mut peers, islands) = sign_in_three(&cluster).await;
    let url = format!("{}/explain?at=0,0", cluster[second].admin);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("this director is a standby"));
    assert_eq!(cluster[second].count("dcl_archipelago_peers_count").await, 0.0);
    cluster.kill(first);
    // A peer signs in while there is no leader.
    let mut newcomer = sign_in(&cluster["gateway"], &wallet()).await;
    newcomer.heartbeat(6_000.0).await;
    wait_for_takeover(&cluster, second, 4.0).await;
    let island = newcomer.island_changed().await.island_id;
    assert!(!islands.contains(&island), "{island} is a new one: {islands:?}");
    assert_all_quiet(&mut peers).await;
    assert_eq!(cluster[second].count("atoll_director_retold_total").await, 0.0);
    // The new leader continues: a peer that walks up to others joins their island.
    peers[2].heartbeat(20.0).await;
    let change = peers[2].island_changed().await;
    assert_eq!((change.island_id, change.from_island_id.as_ref()), (islands[0].clone(), Some(&islands[2])));
    assert_eq!(change.peers.len(), 3);
    // The other director restarts as the standby.
    cluster.restart(first);
    assert_eq!(leader_and_standby(&cluster).await.0, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_director_becomes_standby_and_can_lead_again() {
    let mut cluster = realm(&DIRECTORS).await;
    let (first, second) = leader_and_standby(&cluster).await;
    let (mut peers, islands) = sign_in_three(&cluster).await;
    cluster.freeze(first);
    wait_for_takeover(&cluster, second, 3.0).await;
    // The second director makes the assignments that the first did not.
    peers[2].heartbeat(20.0).await;
    assert_eq!(peers[2].island_changed().await.island_id, islands[0]);
    // The others are notified of the join.
    peers[0].next_packet().await;
    peers[1].next_packet().await;
    cluster.thaw(first);
    assert_all_quiet(&mut peers).await;
    assert_eq!(leader_and_standby(&cluster).await.0, second);
    cluster.kill(second);
    wait_for_takeover(&cluster, first, 3.0).await;
    assert_all_quiet(&mut peers).await;
    let (_, island) = enter(&cluster, 9_000.0).await;
    assert!(!islands.contains(&island));
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_director_hands_over_at_once() {
    let mut cluster = realm(&DIRECTORS).await;
    let (first, second) = leader_and_standby(&cluster).await;
    let (mut peers, _) = sign_in_three(&cluster).await;
    cluster.terminate(first);
    wait_for_takeover(&cluster, second, 3.0).await;
    let (status, log) = cluster.ended(first).await;
    assert!(status.success() && log.contains("stopped leading for good"), "{log}");
    assert_all_quiet(&mut peers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_director_keeps_existing_assignments() {
    let mut cluster = realm(&["one"]).await;
    let (mut peers, islands) = sign_in_three(&cluster).await;
    cluster.kill("one");
    // The new process also waits until the old lease expires.
    cluster.restart("one");
    wait_for_takeover(&cluster, "one", 3.0).await;
    assert_all_quiet(&mut peers).await;
    let (_, island) = enter(&cluster, 9_000.0).await;
    assert!(!islands.contains(&island));
    // Its state comes from the assignments that the gateways reported for their sessions.
    let (mut near, island) = enter(&cluster, 30.0).await;
    assert_eq!(island, islands[0]);
    assert!(near.is_quiet_for(Duration::from_millis(500)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_director_leads_unnoticed_after_a_bus_outage() {
    let mut cluster = realm(&DIRECTORS).await;
    leader_and_standby(&cluster).await;
    let (mut peers, islands) = sign_in_three(&cluster).await;
    cluster.nats.stop();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in DIRECTORS {
        assert!(!leads(&cluster, name).await, "a director leads without the bus");
    }
    cluster.nats.restart();
    let (first, _) = leader_and_standby(&cluster).await;
    wait_for_takeover(&cluster, first, 3.0).await;
    assert_all_quiet(&mut peers).await;
    peers[2].heartbeat(20.0).await;
    assert_eq!(peers[2].island_changed().await.island_id, islands[0]);
}
