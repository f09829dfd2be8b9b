//! Sessions and subscriptions leave no files, tasks or memory behind.

use protocol::bff::{Subscription, SubscriptionRequest};
use test_support::{Realm, eventually, rpc_caller::sign_in, wallet, wire::enter};

#[tokio::test(flavor = "multi_thread")]
async fn thousand_sign_ins_leave_no_files_or_tasks() {
    let realm = Realm::start(&[("ISLANDS__FLUSH_INTERVAL_MS", "20")]);
    // A first round, so that one-time allocations are not counted.
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
        let clients = (0..40).map(|index| {
            let realm = &realm;
            async move {
                let wallet = wallet();
                // All within the join distance: when two islands merged, the tokens of one of them would be void.
                let entered = enter(realm, &wallet, index as f32).await;
                // Half of them close with a close frame.
                if index % 2 == 0 {
                    let (mut wire, mut room, _) = entered;
                    wire.0.close(None).await.unwrap();
                    room.0.close(None).await.unwrap();
                }
            }
        });
        // At most 16 at a time, below the limit of handshakes of one network.
        futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(clients), 16, |one| one)
            .await;
    }
    assert!(realm.metric("dcl_ws_rooms_connections_total").await >= 1_001.0);
    eventually("idle again", idle).await;
    eventually("as many files and tasks as before", async || {
        // Both measurements include the connection of the scrape itself.
        realm.metric("process_open_fds").await <= files && realm.metric("atoll_process_tasks").await <= tasks
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_leave_no_memory() {
    const SESSIONS: u32 = 20;
    const ROUNDS: u32 = 10;
    const EACH: u32 = 50;
    let realm = Realm::start(&[("GATEWAY__MESSAGES_PER_SECOND", "100000")]);
    let subscribe_all = async |session: u32| {
        let mut caller = sign_in(&realm, &wallet()).await;
        for round in 0..ROUNDS {
            let mut streams = Vec::new();
            for number in 0..EACH {
                let topic = format!("round-{round}.of-{session}.number-{number}");
                let request = SubscriptionRequest { topic };
                // One half ends with the stream, the other by its id or with its session.
                if number % 2 == 0 {
                    streams.push(caller.stream("TopicsService.PeerSubscription", &request).await);
                } else {
                    let id: Subscription =
                        caller.request("CommsService.SubscribeToPeerMessages", &request).await;
                    streams.push(caller.stream("CommsService.GetPeerMessages", &id).await);
                    if round + 1 < ROUNDS {
                        caller.request::<()>("CommsService.UnsubscribeToPeerMessages", &id).await;
                        let stream = streams.pop().unwrap();
                        assert!(caller.stream_message(stream).await.closed);
                    }
                }
            }
            if round + 1 < ROUNDS {
                for stream in streams {
                    caller.acknowledge(stream, 0, true).await;
                }
            }
        }
        caller
    };
    let resident = async || realm.metric("process_resident_memory_bytes").await / 1024.0 / 1024.0;
    drop(subscribe_all(SESSIONS).await);
    eventually("idle", async || realm.metric("atoll_gateway_sockets").await == 0.0).await;
    let before = resident().await;
    let callers = futures_util::future::join_all((0..SESSIONS).map(subscribe_all)).await;
    let open = realm.metric("atoll_gateway_topic_subscriptions").await;
    assert_eq!(open, f64::from(SESSIONS * EACH), "those of the last round");
    let full = resident().await;
    drop(callers);
    eventually("idle again", async || {
        realm.metric("atoll_gateway_sockets").await == 0.0
            && realm.metric("atoll_gateway_topic_subscriptions").await == 0.0
    })
    .await;
    let after = resident().await;
    println!("resident: {before:.1} MiB before, {full:.1} with {open} open, {after:.1} after ten thousand");
    assert!(after - before < 16.0, "{before} MiB before, {after} after");
}
