//! A room node dies.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Times,
    scene::{AT_MOST, ROOMS, Scene, TWO_HEARTBEATS, most_moves},
    table::Table,
    trials,
    witness::Seen,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_islands_of_a_room_node_that_is_killed_go_to_the_other() {
    let mut scene = Scene::start(12, &[]).await;
    let mut table = Table::of("room node killed");
    for times in trials() {
        let group = scene.gather().await;
        let (island, url) = group[0].told().unwrap();
        let node = ROOMS.into_iter().find(|name| url.starts_with(&scene.cluster[name].ws)).expect("its node");
        let mark = Instant::now();
        scene.cluster.kill(node);
        if times == Times::Twice {
            scene.cluster.restart(node);
            sleep(Duration::from_secs(2)).await;
            scene.cluster.kill(node);
        }
        for witness in &group {
            let elsewhere = |seen: &Seen| match seen {
                Seen::Told { island, url: other } if *other != url => Some(island.clone()),
                _ => None,
            };
            let (told, there) = witness.first("another node", mark, elsewhere).await;
            assert_eq!(there, island, "the island keeps its id");
            assert!(told < AT_MOST, "told after {told:?}");
            table.add("seconds until told elsewhere", times, told);
            let entered =
                |seen: &Seen| matches!(seen, Seen::Entered { url: other } if *other != url).then_some(());
            let (back, ()) = witness.first("the other room", mark, entered).await;
            assert!(back < AT_MOST, "back after {back:?}");
            table.add("seconds until back in a room", times, back);
        }
        scene.cluster.restart(node);
        scene.cluster.ready().await;
        sleep(TWO_HEARTBEATS).await;
        let moves = most_moves(&group, mark);
        table.count("moves of one person", times, moves as f64);
        assert_eq!(moves, 1, "nobody moves more than once");
        scene.is_well(&group).await;
    }
    scene.end().await;
    table.print();
}
