//! The leading director is killed, or frozen for a while.

use std::time::Duration;

use test_support::{
    eventually,
    observer::{Observed, Observer},
    test_realm::{
        DIRECTORS, RECOVERY_LIMIT, TWO_HEARTBEATS, TestRealm, assert_undisturbed, islands, longest_silence,
        max_silence, most_moves,
    },
};
use tokio::time::{Instant, sleep};

use super::{Repetition, table::Table, trials};

/// A new peer signs in, and is assigned an island that is none of these.
async fn assert_newcomer_gets_a_new_island(
    scene: &mut TestRealm,
    old: &std::collections::BTreeSet<String>,
) -> Observer {
    let place = scene.next_position();
    let mark = Instant::now();
    let newcomer = Observer::start(&scene.cluster, &test_support::test_realm::GATEWAYS, place).await;
    let assigned = |event: &Observed| match event {
        Observed::Assigned { island, .. } => Some(island.to_string()),
        _ => None,
    };
    let (_, island) = newcomer.first_event("an island", mark, assigned).await;
    assert!(!old.contains(&island), "{island} existed before");
    newcomer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_takes_over_unnoticed_from_a_killed_leader() {
    let mut scene = TestRealm::start(12, &[]).await;
    let mut table = Table::new("leader killed");
    for times in trials() {
        let group = scene.add_group().await;
        let before = scene.assignments().await;
        let leader = scene.leader().await;
        let standby = DIRECTORS.into_iter().find(|&name| name != leader).unwrap();
        let mark = Instant::now();
        scene.cluster.kill(leader);
        scene.leader_among(&[standby]).await;
        let without = mark.elapsed();
        assert!(without < RECOVERY_LIMIT, "{without:?} without a leader");
        table.add("seconds without a leader", times, without);
        let _newcomer = assert_newcomer_gets_a_new_island(&mut scene, &islands(&before)).await;
        scene.cluster.restart(leader);
        if times == Repetition::Twice {
            sleep(Duration::from_secs(1)).await;
            scene.cluster.kill(leader);
            scene.cluster.restart(leader);
            // Kills the new leader too, while the old one has only just subscribed.
            sleep(Duration::from_secs(1)).await;
            let again = Instant::now();
            scene.cluster.kill(standby);
            scene.leader_among(&[leader]).await;
            table.add("seconds without a leader, again", times, again.elapsed());
            scene.cluster.restart(standby);
        }
        sleep(TWO_HEARTBEATS).await;
        assert_undisturbed(&group, mark);
        table.count("assignment changes of observers", times, most_moves(&group, mark) as f64);
        assert!(longest_silence(&group, mark) < max_silence());
        scene.assert_recovered(&group).await;
    }
    scene.finish().await;
    table.print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frozen_leader_is_deposed_and_stays_passive() {
    let mut scene = TestRealm::start(12, &[]).await;
    let mut table = Table::new("leader frozen");
    for times in trials() {
        let group = scene.add_group().await;
        let before = scene.assignments().await;
        let mut leader = scene.leader().await;
        let mut standby = DIRECTORS.into_iter().find(|&name| name != leader).unwrap();
        let mark = Instant::now();
        for _ in 0..if times == Repetition::Twice { 2 } else { 1 } {
            let frozen = Instant::now();
            scene.cluster.freeze(leader);
            scene.leader_among(&[standby]).await;
            let without = frozen.elapsed();
            assert!(without < RECOVERY_LIMIT, "{without:?} without a leader");
            table.add("seconds without a leader", times, without);
            let _newcomer = assert_newcomer_gets_a_new_island(&mut scene, &islands(&before)).await;
            scene.cluster.thaw(leader);
            (leader, standby) = (standby, leader);
        }
        sleep(TWO_HEARTBEATS).await;
        table.count(
            "messages of deposed leaders dropped so far",
            times,
            scene.deposed_messages_dropped().await,
        );
        // The deposed director becomes the standby.
        eventually("only the new director leads", async || {
            scene.leads(leader).await && !scene.leads(standby).await
        })
        .await;
        assert_undisturbed(&group, mark);
        table.count("assignment changes of observers", times, most_moves(&group, mark) as f64);
        assert!(longest_silence(&group, mark) < max_silence());
        scene.assert_recovered(&group).await;
    }
    scene.finish().await;
    table.print();
}
