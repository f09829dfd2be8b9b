//! Times and errors on a real server. `ATOLL_LIVEKIT_FIGURES` is the number of samples (`make livekit-figures`); CI
//! takes a few, with limits that hold on a busy machine.

use std::collections::BTreeMap;

use test_support::measurement::print;

use super::*;

fn samples(default: usize) -> usize {
    std::env::var("ATOLL_LIVEKIT_FIGURES").map_or(default, |count| count.parse().unwrap())
}

/// Waits until a peer is no longer in the server's list of a room, and returns for how long.
async fn removed(realm: &LiveKitRealm, room: &str, identity: &str) -> Duration {
    let began = Instant::now();
    let listed = async || {
        let inside = realm.participants(room).await.unwrap_or_default();
        inside.iter().any(|inside| inside == identity)
    };
    while listed().await {
        assert!(began.elapsed() < Duration::from_secs(60), "{identity} is not removed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn former_members_are_removed_at_once_and_each_time() {
    if !network_namespace::enter("livekit_rooms::figures::former_members_are_removed_at_once_and_each_time") {
        return;
    }
    let realm = LiveKitRealm::start(&[("LIVEKIT__LK__GRACE_S", "0")]).await;
    // The larger part of a split island keeps it.
    let mut stays = [realm.join(0.0).await, realm.join(1.0).await, realm.join(2.0).await];
    let mut observer = Participant::join(stays[0].options.clone()).await.unwrap();
    let mut leavers = Vec::new();
    for _ in 0..samples(3) {
        let peer = realm.join(5.0).await;
        assert_eq!(peer.island, stays[0].island);
        let participant = Participant::join(peer.options.clone()).await.unwrap();
        leavers.push((peer, participant));
    }
    tokio::time::sleep(TAKEOVER).await;
    let (mut after_leaving, mut stays_inside, mut leaked) = (Vec::new(), Vec::new(), 0);
    while let Some((mut peer, mut participant)) = leavers.pop() {
        // A client that sends nothing is disconnected.
        for waiting in stays.iter_mut().chain(leavers.iter_mut().map(|(peer, _)| peer)) {
            waiting.wire.send_position(0.0, 0.0).await;
        }
        let identity = peer.identity.clone();
        peer.wire.send_position(FAR, 0.0).await;
        // The change is published with the end of the membership.
        let change = peer.wire.island_changed().await;
        assert_ne!(change.island_id, stays[0].island);
        after_leaving.push(removed(&realm, &peer.island, &identity).await);
        assert_eq!(left(&mut participant).await, LeaveReason::Removed);
        // It enters again with the same token, and floods the room.
        let mut again = match Participant::join(peer.options.clone()).await {
            Ok(again) => again,
            Err(JoinError::Ended(LeaveReason::Removed)) => continue,
            Err(error) => panic!("re-entry {} of {}: {error}", after_leaving.len(), peer.island),
        };
        let began = Instant::now();
        let sender = again.sender();
        let flood = async {
            loop {
                let _ = sender.send_lossy("re-entered".into(), None);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let reason = tokio::select! {
            reason = left(&mut again) => reason,
            () = flood => unreachable!("it does not end"),
        };
        assert_eq!(reason, LeaveReason::Removed);
        stays_inside.push(began.elapsed());
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(50), observer.next()).await {
            leaked += usize::from(matches!(event, Event::Data(_)));
        }
    }
    print("removal after leaving", after_leaving);
    if !stays_inside.is_empty() {
        print("re-entry until removal", stays_inside);
    }
    println!("messages of former members, at 10 a second: {leaked}");
    observer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn occupancy_follows_joins_within_a_second() {
    if !network_namespace::enter("livekit_rooms::figures::occupancy_follows_joins_within_a_second") {
        return;
    }
    let realm = LiveKitRealm::start(&[]).await;
    let count = samples(5);
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(realm.join(0.0).await);
    }
    let room = peers[0].island.clone();
    let joins = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let mut joining = Vec::new();
        for peer in &peers {
            ticks.tick().await;
            joining.push(tokio::spawn(Participant::join(peer.options.clone())));
        }
        let mut inside = Vec::new();
        for joined in joining {
            inside.push(joined.await.unwrap().unwrap());
        }
        inside
    };
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let watch = async {
        // How often the reported number differed by so much, and since when it has differed.
        let (mut errors, mut since, mut longest) = (BTreeMap::<u64, usize>::new(), None, Duration::ZERO);
        loop {
            let listed = realm.participants(&room).await.unwrap_or_default().len() as u64;
            let error = realm.reported(&room).await.abs_diff(listed);
            *errors.entry(error).or_default() += 1;
            if let Some(since) = since {
                longest = longest.max(Instant::now() - since);
            }
            since = (error > 0).then(|| since.unwrap_or_else(Instant::now));
            if error == 0 && is_done.try_recv().is_ok() {
                return (errors, longest);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let joins = async {
        let inside = joins.await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.send(()).unwrap();
        inside
    };
    let (inside, (errors, longest)) = tokio::join!(joins, watch);
    println!("occupancy at 20 joins a second: samples by error {errors:?}, longest error {longest:?}");
    soon("the exact occupancy", async || realm.reported(&room).await == count as u64).await;
    assert_eq!(inside.len(), count);
    let began = Instant::now();
    futures_util::future::join_all(inside.into_iter().map(Participant::close)).await;
    soon("no occupancy", async || realm.reported(&room).await == 0).await;
    println!("all left: no occupancy after {:?}", began.elapsed());
}
