//! One director leads, another stands by, and people do not notice which.

use std::time::{Duration, Instant};

use crate::{
    cluster::Cluster,
    realm_process::{eventually, wallet},
    wire::{Wire, sign_in},
};

const DIRECTORS: [&str; 2] = ["one", "two"];

/// A gateway, a room node and these directors, with an admin socket each.
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

/// The director that leads, and the one that stands by, once it is so.
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

/// Waits until this director leads everybody; how long that took is printed.
async fn wait_for_takeover(cluster: &Cluster, name: &str, people: f64) {
    let began = Instant::now();
    eventually("the other takes over", async || {
        leads(cluster, name).await && cluster[name].count("dcl_archipelago_peers_count").await == people
    })
    .await;
    println!("{name} leads {people} people after {:?}", began.elapsed());
}

/// Somebody who stands at `x`, and its island.
async fn enter(cluster: &Cluster, x: f32) -> (Wire, String) {
    let mut wire = sign_in(&cluster["gateway"], &wallet()).await;
    wire.heartbeat(x).await;
    let island = wire.island_changed().await.island_id;
    (wire, island)
}

/// Everybody hears nothing for a while.
async fn assert_all_quiet(people: &mut [Wire]) {
    for (number, person) in people.iter_mut().enumerate() {
        let time = if number == 0 { Duration::from_secs(4) } else { Duration::from_millis(1) };
        assert!(person.is_quiet_for(time).await, "person {number} was told {:?}", person.next_packet().await);
    }
}

/// Two who are together, and one who is elsewhere; with their islands.
async fn sign_in_three(cluster: &Cluster) -> (Vec<Wire>, Vec<String>) {
    let (mut people, mut islands) = (Vec::new(), Vec::new());
    for x in [0.0, 10.0, 3_000.0] {
        let (wire, island) = enter(cluster, x).await;
        people.push(wire);
        islands.push(island);
    }
    assert_eq!(islands[0], islands[1]);
    // The first hears who joined it.
    people[0].next_packet().await;
    (people, islands)
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_notice_nothing_when_the_leader_is_killed() {
    let mut cluster = realm(&DIRECTORS).await;
    let (first, second) = leader_and_standby(&cluster).await;
    let (mut people, islands) = sign_in_three(&cluster).await;
    let asked = format!("{}/explain?at=0,0", cluster[second].admin);
    let answer = reqwest::get(asked).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("this director stands by"));
    assert_eq!(cluster[second].count("dcl_archipelago_peers_count").await, 0.0);
    cluster.kill(first);
    // Somebody comes while nobody leads.
    let mut newcomer = sign_in(&cluster["gateway"], &wallet()).await;
    newcomer.heartbeat(6_000.0).await;
    wait_for_takeover(&cluster, second, 4.0).await;
    let island = newcomer.island_changed().await.island_id;
    assert!(!islands.contains(&island), "{island} is a new one: {islands:?}");
    assert_all_quiet(&mut people).await;
    assert_eq!(cluster[second].count("atoll_director_retold_total").await, 0.0);
    // And it goes on: who walks up to others is in their island.
    people[2].heartbeat(20.0).await;
    let change = people[2].island_changed().await;
    assert_eq!((change.island_id, change.from_island_id.as_ref()), (islands[0].clone(), Some(&islands[2])));
    assert_eq!(change.peers.len(), 3);
    // The other comes back, and stands by.
    cluster.restart(first);
    assert_eq!(leader_and_standby(&cluster).await.0, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_director_becomes_standby_and_can_lead_again() {
    let mut cluster = realm(&DIRECTORS).await;
    let (first, second) = leader_and_standby(&cluster).await;
    let (mut people, islands) = sign_in_three(&cluster).await;
    cluster.freeze(first);
    wait_for_takeover(&cluster, second, 3.0).await;
    // What the first has not decided yet, the second does.
    people[2].heartbeat(20.0).await;
    assert_eq!(people[2].island_changed().await.island_id, islands[0]);
    // Which the others hear.
    people[0].next_packet().await;
    people[1].next_packet().await;
    cluster.thaw(first);
    assert_all_quiet(&mut people).await;
    assert_eq!(leader_and_standby(&cluster).await.0, second);
    cluster.kill(second);
    wait_for_takeover(&cluster, first, 3.0).await;
    assert_all_quiet(&mut people).await;
    let (_, island) = enter(&cluster, 9_000.0).await;
    assert!(!islands.contains(&island));
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_director_hands_over_at_once() {
    let mut cluster = realm(&DIRECTORS).await;
    let (first, second) = leader_and_standby(&cluster).await;
    let (mut people, _) = sign_in_three(&cluster).await;
    cluster.terminate(first);
    wait_for_takeover(&cluster, second, 3.0).await;
    let (status, log) = cluster.ended(first).await;
    assert!(status.success() && log.contains("leads no more"), "{log}");
    assert_all_quiet(&mut people).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_director_keeps_existing_assignments() {
    let mut cluster = realm(&["one"]).await;
    let (mut people, islands) = sign_in_three(&cluster).await;
    cluster.kill("one");
    // Until its term is over, too.
    cluster.restart("one");
    wait_for_takeover(&cluster, "one", 3.0).await;
    assert_all_quiet(&mut people).await;
    let (_, island) = enter(&cluster, 9_000.0).await;
    assert!(!islands.contains(&island));
    // What it knows, it knows from what clients were told.
    let (mut near, island) = enter(&cluster, 30.0).await;
    assert_eq!(island, islands[0]);
    assert!(near.is_quiet_for(Duration::from_millis(500)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_director_leads_unnoticed_after_a_bus_outage() {
    let mut cluster = realm(&DIRECTORS).await;
    leader_and_standby(&cluster).await;
    let (mut people, islands) = sign_in_three(&cluster).await;
    cluster.nats.stop();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in DIRECTORS {
        assert!(!leads(&cluster, name).await, "nobody can say who does");
    }
    cluster.nats.restart();
    let (first, _) = leader_and_standby(&cluster).await;
    wait_for_takeover(&cluster, first, 3.0).await;
    assert_all_quiet(&mut people).await;
    people[2].heartbeat(20.0).await;
    assert_eq!(people[2].island_changed().await.island_id, islands[0]);
}
