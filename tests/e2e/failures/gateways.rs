//! A gateway dies.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Times,
    scene::{AT_MOST, GATEWAYS, Scene, TWO_HEARTBEATS, assert_undisturbed, longest_silence, silence},
    table::Table,
    trials,
    witness::Seen,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_of_a_gateway_that_is_killed_go_to_the_other_and_keep_their_island() {
    let mut scene = Scene::start(12, &[]).await;
    let mut table = Table::of("gateway killed");
    for times in trials() {
        // Every other stands at the first gateway, and the rest at the second.
        let group = scene.gather().await;
        let (lost, others): (Vec<_>, Vec<_>) =
            group.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        let [lost, others] =
            [lost, others].map(|group| group.into_iter().map(|(_, one)| one).collect::<Vec<_>>());
        let island = lost[0].told();
        let mark = Instant::now();
        scene.cluster.kill(GATEWAYS[0]);
        if times == Times::Twice {
            scene.cluster.restart(GATEWAYS[0]);
            sleep(Duration::from_secs(2)).await;
            scene.cluster.kill(GATEWAYS[0]);
        }
        for witness in &lost {
            let told = |seen: &Seen| matches!(seen, Seen::Told { .. }).then_some(());
            let (back, ()) = witness.first("its island", mark, told).await;
            assert!(back < AT_MOST, "back after {back:?}");
            table.add("seconds until back in the island", times, back);
        }
        sleep(TWO_HEARTBEATS).await;
        for witness in &lost {
            assert_eq!(witness.told(), island, "it keeps its island");
            let rooms = |seen: &Seen| matches!(seen, Seen::Entered { .. } | Seen::Left(_));
            assert!(!witness.since(mark).iter().any(|(_, seen)| rooms(seen)), "and its seat in the room");
        }
        assert_undisturbed(&others, mark);
        scene.cluster.restart(GATEWAYS[0]);
        scene.cluster.ready().await;
        let group: Vec<_> = lost.into_iter().chain(others).collect();
        let longest = longest_silence(&group, mark);
        assert!(longest < silence(), "a room was silent for {longest:?}");
        table.add("longest silence in a room, seconds", times, longest);
        scene.is_well(&group).await;
        assert_eq!(group[0].told(), island);
    }
    let summary = scene.end().await;
    assert!(summary["reconnects"].as_u64().unwrap() > 0, "{summary}");
    table.print();
}
