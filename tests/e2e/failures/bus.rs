//! The NATS server stops for a while.

use std::time::Duration;

use test_support::{
    eventually,
    test_realm::{
        RECOVERY_LIMIT, TWO_HEARTBEATS, TestRealm, assert_undisturbed, longest_silence, max_silence,
        most_moves,
    },
};
use tokio::time::{Instant, sleep};

use super::{Repetition, table::Table, trials};

/// An outage longer than `islands.silence_s`.
const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rooms_survive_a_bus_outage_and_islands_are_unchanged() {
    let mut scene = TestRealm::start(12, &[]).await;
    let mut table = Table::new("nats-server stopped");
    for times in trials() {
        let group = scene.add_group().await;
        let mark = Instant::now();
        let outages: &[Duration] = match times {
            Repetition::Once => &[OUTAGE],
            Repetition::Twice => &[Duration::from_secs(2); 2],
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
        assert!(without < RECOVERY_LIMIT, "{without:?} without a leader");
        table.add("seconds until one leads again", times, without);
        eventually("all processes are connected", async || {
            let mut connected = true;
            for name in scene.cluster.running() {
                connected &= scene.cluster[name].metric("atoll_bus_connected").await == 1.0;
            }
            connected
        })
        .await;
        // Queued messages are published first; afterwards no assignment changes.
        sleep(Duration::from_secs(2) + TWO_HEARTBEATS).await;
        assert_undisturbed(&group, mark);
        table.count("assignment changes of observers", times, most_moves(&group, mark) as f64);
        let longest = longest_silence(&group, mark);
        assert!(longest < max_silence(), "a room was silent for {longest:?}");
        table.add("longest silence in a room, seconds", times, longest);
        scene.assert_recovered(&group).await;
    }
    let summary = scene.finish().await;
    assert_eq!(summary["reconnects"], 0, "{summary}");
    table.print();
}
