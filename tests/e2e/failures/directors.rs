//! The director that leads dies, or stands still for a while.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Times,
    scene::{
        AT_MOST, DIRECTORS, Scene, TWO_HEARTBEATS, assert_undisturbed, islands, longest_silence, most_moves,
        silence,
    },
    table::Table,
    trials,
    witness::{Seen, Witness},
};
use crate::front::eventually;

/// Somebody comes, and is given an island that is none of these.
async fn gets_a_new_island(scene: &mut Scene, old: &std::collections::BTreeSet<String>) -> Witness {
    let place = scene.place();
    let mark = Instant::now();
    let newcomer = Witness::start(&scene.cluster, &super::scene::GATEWAYS, place).await;
    let told = |seen: &Seen| match seen {
        Seen::Told { island, .. } => Some(island.to_string()),
        _ => None,
    };
    let (_, island) = newcomer.first("an island", mark, told).await;
    assert!(!old.contains(&island), "{island} is an island of before");
    newcomer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_is_killed_is_followed_by_the_standby_and_nobody_notices() {
    let mut scene = Scene::start(12, &[]).await;
    let mut table = Table::of("leader killed");
    for times in trials() {
        let group = scene.gather().await;
        let before = scene.assignments().await;
        let leader = scene.leader().await;
        let standby = DIRECTORS.into_iter().find(|&name| name != leader).unwrap();
        let mark = Instant::now();
        scene.cluster.kill(leader);
        scene.leader_among(&[standby]).await;
        let without = mark.elapsed();
        assert!(without < AT_MOST, "{without:?} without a leader");
        table.add("seconds without a leader", times, without);
        let _newcomer = gets_a_new_island(&mut scene, &islands(&before)).await;
        scene.cluster.restart(leader);
        if times == Times::Twice {
            sleep(Duration::from_secs(1)).await;
            scene.cluster.kill(leader);
            scene.cluster.restart(leader);
            // And the new leader, while the old one has hardly begun to listen.
            sleep(Duration::from_secs(1)).await;
            let again = Instant::now();
            scene.cluster.kill(standby);
            scene.leader_among(&[leader]).await;
            table.add("seconds without a leader, again", times, again.elapsed());
            scene.cluster.restart(standby);
        }
        sleep(TWO_HEARTBEATS).await;
        assert_undisturbed(&group, mark);
        table.count("changes of island told to who stood still", times, most_moves(&group, mark) as f64);
        assert!(longest_silence(&group, mark) < silence());
        scene.is_well(&group).await;
    }
    scene.end().await;
    table.print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_stands_still_is_deposed_and_acts_no_more() {
    let mut scene = Scene::start(12, &[]).await;
    let mut table = Table::of("leader frozen");
    for times in trials() {
        let group = scene.gather().await;
        let before = scene.assignments().await;
        let mut leader = scene.leader().await;
        let mut standby = DIRECTORS.into_iter().find(|&name| name != leader).unwrap();
        let mark = Instant::now();
        for _ in 0..if times == Times::Twice { 2 } else { 1 } {
            let frozen = Instant::now();
            scene.cluster.freeze(leader);
            scene.leader_among(&[standby]).await;
            let without = frozen.elapsed();
            assert!(without < AT_MOST, "{without:?} without a leader");
            table.add("seconds without a leader", times, without);
            let _newcomer = gets_a_new_island(&mut scene, &islands(&before)).await;
            scene.cluster.thaw(leader);
            (leader, standby) = (standby, leader);
        }
        sleep(TWO_HEARTBEATS).await;
        table.count("messages of whom it deposed, dropped so far", times, scene.deposed().await);
        // Whoever was deposed stands by.
        eventually("the new one leads, and it alone", async || {
            scene.leads(leader).await && !scene.leads(standby).await
        })
        .await;
        assert_undisturbed(&group, mark);
        table.count("changes of island told to who stood still", times, most_moves(&group, mark) as f64);
        assert!(longest_silence(&group, mark) < silence());
        scene.is_well(&group).await;
    }
    scene.end().await;
    table.print();
}
