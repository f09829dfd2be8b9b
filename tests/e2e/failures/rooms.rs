//! A room node is killed.

use std::time::Duration;

use test_support::{
    Cluster,
    observer::Observed,
    test_realm::{RECOVERY_LIMIT, ROOMS, TWO_HEARTBEATS, TestRealm, most_moves},
    wallet,
    wire::{Wire, enter_room, next_update, room_url, sign_in},
};
use tokio::time::{Instant, sleep};

use super::{Repetition, table::Table, trials};
use protocol::Close;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn islands_of_a_killed_room_node_move_to_the_other() {
    let mut scene = TestRealm::start(12, &[]).await;
    let mut table = Table::new("room node killed");
    for times in trials() {
        let group = scene.add_group().await;
        let (island, url) = group[0].last_assignment().unwrap();
        let node = ROOMS.into_iter().find(|name| url.starts_with(&scene.cluster[name].ws)).expect("its node");
        let mark = Instant::now();
        scene.cluster.kill(node);
        if times == Repetition::Twice {
            scene.cluster.restart(node);
            sleep(Duration::from_secs(2)).await;
            scene.cluster.kill(node);
        }
        for observer in &group {
            let moved = |event: &Observed| match event {
                Observed::Assigned { island, url: other } if *other != url => Some(island.clone()),
                _ => None,
            };
            let (assigned, there) = observer.first_event("another node", mark, moved).await;
            assert_eq!(there, island, "the island keeps its id");
            assert!(assigned < RECOVERY_LIMIT, "assigned after {assigned:?}");
            table.add("seconds until assigned another node", times, assigned);
            let entered = |event: &Observed| {
                matches!(event, Observed::Entered { url: other } if *other != url).then_some(())
            };
            let (back, ()) = observer.first_event("the other room", mark, entered).await;
            assert!(back < RECOVERY_LIMIT, "back after {back:?}");
            table.add("seconds until back in a room", times, back);
        }
        scene.cluster.restart(node);
        scene.cluster.ready().await;
        sleep(TWO_HEARTBEATS).await;
        let moves = most_moves(&group, mark);
        table.count("moves of one peer", times, moves as f64);
        assert_eq!(moves, 1, "a peer moved more than once");
        scene.assert_recovered(&group).await;
    }
    scene.finish().await;
    table.print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_get_new_connection_strings_when_a_node_restarts() {
    // The old connection strings have expired by then, and the new process knows no member.
    let mut cluster = Cluster::start(&[("ROOMS__TOKEN_TTL_S", "3")]);
    for role in ["director", "gateway", "rooms"] {
        cluster.run(role, role, &[]);
    }
    cluster.ready().await;
    let wallets = [wallet(), wallet()];
    let mut members = Vec::new();
    for wallet in &wallets {
        let mut wire = sign_in(&cluster["gateway"], wallet).await;
        wire.heartbeat(0.0).await;
        let change = wire.island_changed().await;
        let (room, _) = enter_room(wallet, &change).await;
        members.push((wire, room, change));
    }
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        for (wire, _, _) in &mut members {
            wire.heartbeat(0.0).await;
        }
    }
    cluster.kill("rooms");
    cluster.restart("rooms");
    let mut rooms = Vec::new();
    for ((wire, _, before), wallet) in members.iter_mut().zip(&wallets) {
        let change = wire.island_changed().await;
        assert_eq!(change.island_id, before.island_id, "the island keeps its id");
        assert_ne!(change.conn_str, before.conn_str);
        let mut stale = Wire::open(&room_url(before)).await;
        stale.identify(wallet).await;
        assert_eq!(stale.closed().await.0, Close::TokenRefused);
        rooms.push(enter_room(wallet, &change).await.0);
    }
    rooms[0].update(b"hello".to_vec(), false).await;
    assert_eq!(next_update(&mut rooms[1]).await, b"hello");
    rooms[1].update(b"hello yourself".to_vec(), false).await;
    assert_eq!(next_update(&mut rooms[0]).await, b"hello yourself");
    for (wire, _, _) in &mut members {
        wire.heartbeat(0.0).await;
        assert!(wire.is_quiet_for(Duration::from_secs(1)).await, "one string each");
    }
}
