//! The NATS server goes away.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Times,
    scene::{AT_MOST, Scene, TWO_HEARTBEATS, assert_undisturbed, longest_silence, most_moves, silence},
    table::Table,
    trials,
};
use crate::front::eventually;

/// Longer than it takes to be silent.
const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_bus_is_away_rooms_talk_on_and_afterwards_all_is_as_before() {
    let mut scene = Scene::start(12, &[]).await;
    let mut table = Table::of("nats-server stopped");
    for times in trials() {
        let group = scene.gather().await;
        let mark = Instant::now();
        let outages: &[Duration] = match times {
            Times::Once => &[OUTAGE],
            Times::Twice => &[Duration::from_secs(2); 2],
        };
        let mut back = mark;
        for (index, &outage) in outages.iter().enumerate() {
            if index > 0 {
                sleep(Duration::from_secs(1)).await;
            }
            scene.cluster.nats.stop();
            sleep(outage).await;
            scene.cluster.nats.restart();
            back = Instant::now();
        }
        scene.leader().await;
        let without = back.elapsed();
        assert!(without < AT_MOST, "{without:?} without a leader");
        table.add("seconds until one leads again", times, without);
        eventually("the bus is back", async || {
            let mut connected = true;
            for name in scene.cluster.running() {
                connected &= scene.cluster[name].metric("atoll_bus_connected").await == 1.0;
            }
            connected
        })
        .await;
        // What nobody could say meanwhile is said; then nothing is left to tell.
        sleep(Duration::from_secs(2) + TWO_HEARTBEATS).await;
        assert_undisturbed(&group, mark);
        table.count("changes of island told to who stood still", times, most_moves(&group, mark) as f64);
        let longest = longest_silence(&group, mark);
        assert!(longest < silence(), "a room was silent for {longest:?}");
        table.add("longest silence in a room, seconds", times, longest);
        scene.is_well(&group).await;
    }
    let summary = scene.end().await;
    assert_eq!(summary["reconnects"], 0, "{summary}");
    table.print();
}
