//! Nothing stays behind.

use crate::{
    front::{Realm, eventually, wallet},
    wire::enter,
};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_thousand_sign_ins_and_departures_nothing_of_theirs_is_held() {
    let realm = Realm::start(&[("ISLANDS__FLUSH_INTERVAL_MS", "20")]);
    // Once through, so that what is made once has been made.
    drop(enter(&realm, &wallet(), 0.0).await);
    let idle = async || {
        realm.metric("atoll_gateway_sockets").await == 0.0
            && realm.metric("atoll_rooms_sockets").await == 0.0
            && realm.metric("explorer_bff_connected_users").await == 0.0
            && realm.metric("dcl_ws_rooms_count").await == 0.0
            && realm.metric("dcl_ws_rooms_connections").await == 0.0
            && realm.metric("dcl_archipelago_peers_count").await == 0.0
            && realm.metric("dcl_archipelago_islands_count").await == 0.0
    };
    eventually("idle", idle).await;
    let (files, tasks) = (realm.metric("process_open_fds").await, realm.metric("atoll_process_tasks").await);
    for _ in 0..25 {
        let crowd = (0..40).map(|place| {
            let realm = &realm;
            async move {
                let wallet = wallet();
                let entered = enter(realm, &wallet, place as f32 * 10.0).await;
                // Half of them say goodbye.
                if place % 2 == 0 {
                    let (mut wire, mut room, _) = entered;
                    wire.0.close(None).await.unwrap();
                    room.0.close(None).await.unwrap();
                }
            }
        });
        // As many at a time as the door lets through.
        futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(crowd), 16, |one| one).await;
    }
    assert!(realm.metric("dcl_ws_rooms_connections_total").await >= 1_001.0);
    eventually("idle again", idle).await;
    eventually("as many files and tasks as before", async || {
        // A scrape is a connection of its own, before as after.
        realm.metric("process_open_fds").await <= files && realm.metric("atoll_process_tasks").await <= tasks
    })
    .await;
}
