//! Interrupted paths.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use test_support::network_namespace;
use tokio::time::sleep;

use crate::{
    hub::{Hub, address},
    member::mesh,
};

/// Switches the only interface of the namespace.
fn set_loopback(state: &str) {
    assert!(Command::new("ip").args(["link", "set", "lo", state]).status().unwrap().success());
}

#[tokio::test]
async fn interrupted_link_is_restored_by_an_ice_restart() {
    if !network_namespace::enter("interruptions::interrupted_link_is_restored_by_an_ice_restart") {
        return;
    }
    let hub = Hub::default();
    let [mut one, mut two] = mesh(&hub, [1, 2], &[(1, 2)]).await;
    let began = Instant::now();
    set_loopback("down");
    one.linked_to(&[]).await;
    println!("reported as down after {:?}", began.elapsed());
    one.sender.send_reliable("during".into()).unwrap();
    sleep(Duration::from_secs(1)).await;
    set_loopback("up");
    one.linked_to(&[2]).await;
    two.linked_to(&[1]).await;
    println!("up again after {:?}", began.elapsed());
    let offers = hub.offers();
    let [first, restart] = &offers[..] else { panic!("{offers:?}") };
    assert_eq!((first, first.0), (restart, address(1)), "the same negotiation");
    assert_eq!(two.data().await.payload, "during", "the channel has survived");
    let counters = one.counters().await;
    assert_eq!((counters.restarts, counters.failed_attempts), (1, 0));
}

#[tokio::test]
async fn link_is_begun_anew_after_a_long_interruption() {
    if !network_namespace::enter("interruptions::link_is_begun_anew_after_a_long_interruption") {
        return;
    }
    let hub = Hub::default();
    let [mut one, mut two] = mesh(&hub, [1, 2], &[(1, 2)]).await;
    set_loopback("down");
    one.counted(|counters| counters.restarts == 1 && counters.failed_attempts >= 1).await;
    set_loopback("up");
    one.linked_to(&[2]).await;
    two.linked_to(&[1]).await;
    one.sender.send_reliable("after".into()).unwrap();
    assert_eq!(two.data().await.payload, "after");
}
