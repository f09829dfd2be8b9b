//! A gateway is killed.

use std::time::Duration;

use test_support::{
    observer::Observed,
    test_realm::{
        GATEWAYS, RECOVERY_LIMIT, TWO_HEARTBEATS, TestRealm, assert_undisturbed, longest_silence, max_silence,
    },
};
use tokio::time::{Instant, sleep};

use super::{Repetition, table::Table, trials};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_of_a_killed_gateway_move_and_keep_their_island() {
    let mut scene = TestRealm::start(12, &[]).await;
    let mut table = Table::new("gateway killed");
    for times in trials() {
        // Every other observer is connected to the first gateway, and the rest to the second.
        let group = scene.add_group().await;
        let (lost, others): (Vec<_>, Vec<_>) =
            group.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        let [lost, others] =
            [lost, others].map(|group| group.into_iter().map(|(_, one)| one).collect::<Vec<_>>());
        let island = lost[0].last_assignment();
        let mark = Instant::now();
        scene.cluster.kill(GATEWAYS[0]);
        if times == Repetition::Twice {
            scene.cluster.restart(GATEWAYS[0]);
            sleep(Duration::from_secs(2)).await;
            scene.cluster.kill(GATEWAYS[0]);
        }
        for observer in &lost {
            let assigned = |event: &Observed| matches!(event, Observed::Assigned { .. }).then_some(());
            let (back, ()) = observer.first_event("its island", mark, assigned).await;
            assert!(back < RECOVERY_LIMIT, "back after {back:?}");
            table.add("seconds until back in the island", times, back);
        }
        sleep(TWO_HEARTBEATS).await;
        for observer in &lost {
            assert_eq!(observer.last_assignment(), island, "it keeps its island");
            let rooms = |event: &Observed| matches!(event, Observed::Entered { .. } | Observed::Left(_));
            assert!(
                !observer.since(mark).iter().any(|(_, event)| rooms(event)),
                "and its membership in the room"
            );
        }
        assert_undisturbed(&others, mark);
        scene.cluster.restart(GATEWAYS[0]);
        scene.cluster.ready().await;
        let group: Vec<_> = lost.into_iter().chain(others).collect();
        let longest = longest_silence(&group, mark);
        assert!(longest < max_silence(), "a room was silent for {longest:?}");
        table.add("longest silence in a room, seconds", times, longest);
        scene.assert_recovered(&group).await;
        assert_eq!(group[0].last_assignment(), island);
    }
    let summary = scene.finish().await;
    assert!(summary["reconnects"].as_u64().unwrap() > 0, "{summary}");
    table.print();
}
