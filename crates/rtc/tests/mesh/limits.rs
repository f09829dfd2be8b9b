//! Limits of size and rate.

use std::time::Duration;

use rtc::mesh::{Limits, MAX_PACKET_BYTES, MeshPeer, Options, SendError};
use test_support::network_namespace;
use tokio::time::{sleep, timeout};

use crate::{
    hub::{Hub, address},
    member::{TestMember, link, mesh, options},
};

#[tokio::test]
async fn largest_message_arrives_and_a_larger_one_is_refused() {
    if !network_namespace::enter("limits::largest_message_arrives_and_a_larger_one_is_refused") {
        return;
    }
    let hub = Hub::default();
    let [one, mut two] = mesh(&hub, [1, 2], &[(1, 2)]).await;
    let refused = one.sender.send_reliable(vec![7; MAX_PACKET_BYTES].into());
    let Err(SendError::TooLarge(bytes)) = refused else { panic!("{refused:?}") };
    let envelope = bytes - MAX_PACKET_BYTES;
    let largest = vec![7; MAX_PACKET_BYTES - envelope];
    one.sender.send_reliable(largest.clone().into()).unwrap();
    assert_eq!(two.data().await.payload, largest);
    one.sender.send_lossy(largest.clone().into()).unwrap();
    assert_eq!(two.data().await.payload, largest);
}

#[tokio::test]
async fn flooding_neighbour_is_cut_off_and_reported() {
    if !network_namespace::enter("limits::flooding_neighbour_is_cut_off_and_reported") {
        return;
    }
    let hub = Hub::default();
    let limits = Limits { packets_per_second: 50, cut_off: Duration::from_secs(8), ..Limits::default() };
    let flooded = TestMember::start_with(&hub, 1, Options { limits, ..options(1) });
    let mut members = [flooded, TestMember::start(&hub, 2), TestMember::start(&hub, 3)];
    link(&mut members, 1, &[1, 2, 3], &[(1, 2), (1, 3)]).await;
    for number in 0..150_u32 {
        while members[1].sender.send_reliable(number.to_be_bytes().to_vec().into()).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let report = members[0].reported(|report| !report.flooding.is_empty()).await;
    assert_eq!((&report.flooding[..], &report.connected_to[..]), (&[2][..], &[3][..]));
    members[1].linked_to(&[]).await;
    // The third member is served as before, also with the messages before the limit.
    members[2].sender.send_reliable("a".into()).unwrap();
    loop {
        let data = members[0].data().await;
        if data.sender == address(3) {
            break;
        }
    }
    assert_eq!(members[0].counters().await.cut_off, 1);
    // After its time the link is begun anew.
    let report = members[0].reported(|report| report.connected_to == [2, 3]).await;
    assert!(report.flooding.is_empty());
}

#[tokio::test]
async fn unread_events_do_not_delay_forwarding() {
    if !network_namespace::enter("limits::unread_events_do_not_delay_forwarding") {
        return;
    }
    let hub = Hub::default();
    let limits = Limits { packets_per_second: 100_000, ..Limits::default() };
    let [one, relay, three] =
        [1, 2, 3].map(|alias| TestMember::start_with(&hub, alias, Options { limits, ..options(alias) }));
    let mut members = [one, relay, three];
    let links = [(1, 2), (2, 3)];
    link(&mut members, 1, &[1, 2, 3], &links).await;
    let [one, mut relay, mut three] = members;
    relay.pause();
    for number in 0..2_000_u32 {
        while one.sender.send_reliable(number.to_be_bytes().to_vec().into()).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        // Paced, so that the queue of the relay to the third member does not overflow.
        if number % 50 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    for number in 0..2_000_u32 {
        assert_eq!(three.data().await.payload, number.to_be_bytes().to_vec());
    }
    relay.resume();
    relay.counted(|counters| counters.undelivered > 0).await;
}

#[tokio::test]
async fn fallback_rate_is_limited() {
    if !network_namespace::enter("limits::fallback_rate_is_limited") {
        return;
    }
    let hub = Hub::default();
    let limits = Limits { fallbacks_per_second: 5, ..Limits::default() };
    let mut one = TestMember::start_with(&hub, 1, Options { limits, ..options(1) });
    one.plan(1, &[1, 2], &[]);
    for _ in 0..40 {
        one.sender.send_lossy("a".into()).unwrap();
    }
    one.counted(|counters| counters.output_dropped >= 25).await;
    assert!(hub.log().len() >= 10 && hub.log().len() < 20, "{}", hub.log().len());
}

#[tokio::test]
async fn reliable_messages_wait_for_the_paths_to_many() {
    if !network_namespace::enter("limits::reliable_messages_wait_for_the_paths_to_many") {
        return;
    }
    let hub = Hub::default();
    let one = TestMember::start_with(&hub, 1, options(1));
    let members: Vec<u32> = (1..=17).collect();
    one.plan(1, &members, &[]);
    one.sender.send_lossy("lossy".into()).unwrap();
    one.sender.send_reliable("reliable".into()).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hub.log().len(), 16, "only the lossy one is sent");
    // All but one have left.
    one.plan(2, &[1, 2], &[]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hub.log().len(), 17);
}

#[tokio::test]
async fn members_without_a_path_delay_messages_once() {
    if !network_namespace::enter("limits::members_without_a_path_delay_messages_once") {
        return;
    }
    let hub = Hub::default();
    let limits = Limits { fallbacks_per_second: 5, ..Limits::default() };
    let one = TestMember::start_with(&hub, 1, Options { limits, ..options(1) });
    let mut members = [one, TestMember::start(&hub, 2)];
    let aliases: Vec<u32> = (1..=12).collect();
    link(&mut members, 1, &aliases, &[(1, 2)]).await;
    let [one, mut two] = members;
    for number in 0..40_u32 {
        one.sender.send_reliable(number.to_string().into()).unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    // The fallback to ten others is used up by the first message; the link is not.
    let received = async {
        for number in 0..40_u32 {
            assert_eq!(two.data().await.payload, number.to_string());
        }
    };
    timeout(Duration::from_secs(4), received).await.expect("all messages within one wait");
}

#[tokio::test]
async fn closed_peer_refuses_messages_and_inputs() {
    let peer = MeshPeer::start(options(1));
    let (sender, inputs) = (peer.sender(), peer.inputs());
    peer.close().await;
    assert_eq!(sender.send_reliable("a".into()), Err(SendError::Closed));
    assert_eq!(inputs.signal(Default::default()), Err(rtc::mesh::InputError::Closed));
}
