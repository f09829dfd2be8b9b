//! Messages over relays.

use std::time::Duration;

use test_support::network_namespace;
use tokio::time::sleep;

use crate::{
    hub::{Hub, address, plan},
    member::{TestMember, link, mesh},
};

const ALL: [u32; 3] = [1, 2, 3];
/// Member 2 is the relay.
const CHAIN: [(u32, u32); 2] = [(1, 2), (2, 3)];

#[tokio::test]
async fn relay_forwards_in_both_directions() {
    if !network_namespace::enter("forwarding::relay_forwards_in_both_directions") {
        return;
    }
    let hub = Hub::default();
    let [mut one, mut two, mut three] = mesh(&hub, ALL, &CHAIN).await;
    one.sender.send_reliable("from 1".into()).unwrap();
    three.sender.send_lossy("from 3".into()).unwrap();
    let data = three.data().await;
    assert_eq!((data.sender, data.payload, data.reliable), (address(1), "from 1".into(), true));
    let data = one.data().await;
    assert_eq!((data.sender, data.payload, data.reliable), (address(3), "from 3".into(), false));
    let at_relay = [two.data().await, two.data().await].map(|data| data.sender);
    assert!(at_relay.contains(&address(1)) && at_relay.contains(&address(3)));
    for member in [&mut one, &mut two, &mut three] {
        member.no_data().await;
        assert_eq!(member.counters().await.duplicates, 0);
    }
}

#[tokio::test]
async fn lost_relay_is_replaced_by_a_new_plan() {
    if !network_namespace::enter("forwarding::lost_relay_is_replaced_by_a_new_plan") {
        return;
    }
    let hub = Hub::default();
    let [one, two, three] = mesh(&hub, ALL, &CHAIN).await;
    one.sender.send_reliable("before".into()).unwrap();
    let mut rest = [one, three];
    assert_eq!(rest[1].data().await.payload, "before");
    drop(two);
    rest[0].linked_to(&[]).await;
    link(&mut rest, 2, &[1, 3], &[(3, 1)]).await;
    rest[0].sender.send_reliable("after".into()).unwrap();
    let data = rest[1].data().await;
    assert_eq!((data.sender, data.payload), (address(1), "after".into()));
}

#[tokio::test]
async fn every_message_arrives_once_while_plans_change() {
    if !network_namespace::enter("forwarding::every_message_arrives_once_while_plans_change") {
        return;
    }
    let hub = Hub::default();
    // A ring, so that each plan may use another two of its links.
    let ring = [(1, 2), (2, 3), (3, 1)];
    let mut members = mesh(&hub, ALL, &ring).await;
    let mut version = 1;
    for number in 0..60_u32 {
        if number % 5 == 0 {
            version += 1;
            let without = usize::try_from(version).unwrap() % 3;
            let links: Vec<_> = (0..3).filter(|index| *index != without).map(|index| ring[index]).collect();
            for member in &members {
                // The links stay listed; only the trees change. Plans arrive at different times.
                let trees = plan(version, member.alias, &ALL, &links);
                let listed = plan(version, member.alias, &ALL, &ring);
                member.send_plan(protocol::mesh::Plan { links: listed.links, ..trees });
                sleep(Duration::from_millis(10)).await;
            }
        }
        members[0].sender.send_reliable(number.to_be_bytes().to_vec().into()).unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    for member in &mut members[1..] {
        let mut numbers = Vec::new();
        for _ in 0..60 {
            numbers.push(member.data().await.payload);
        }
        numbers.sort();
        let expected: Vec<_> = (0..60_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        assert_eq!(numbers, expected);
        member.no_data().await;
    }
}

#[tokio::test]
async fn packet_waits_for_a_late_plan() {
    if !network_namespace::enter("forwarding::packet_waits_for_a_late_plan") {
        return;
    }
    let hub = Hub::default();
    let [one, mut two, mut three] = mesh(&hub, ALL, &CHAIN).await;
    one.plan(2, &ALL, &CHAIN);
    sleep(Duration::from_millis(50)).await;
    one.sender.send_reliable("early".into()).unwrap();
    two.no_data().await;
    two.plan(2, &ALL, &CHAIN);
    assert_eq!(two.data().await.payload, "early");
    // The third member routes by its newest plan after a second.
    assert_eq!(three.data().await.payload, "early");
    for member in [&mut two, &mut three] {
        assert_eq!(member.counters().await.refused_packets, 0);
    }
}

#[tokio::test]
async fn packet_of_another_neighbour_is_refused() {
    if !network_namespace::enter("forwarding::packet_of_another_neighbour_is_refused") {
        return;
    }
    let hub = Hub::default();
    // The third member expects packets of the first over the second; the first sends them directly.
    let [one, _two, mut three] = mesh(&hub, ALL, &[(1, 2), (2, 3), (1, 3)]).await;
    let mut skewed = plan(2, 3, &ALL, &[(1, 2), (2, 3), (1, 3)]);
    skewed.routes.iter_mut().find(|route| route.source == 1).unwrap().from = 2;
    three.send_plan(skewed);
    one.plan(2, &ALL, &[(1, 2), (2, 3), (1, 3)]);
    three.reported(|report| report.version == 2).await;
    one.sender.send_reliable("a".into()).unwrap();
    three.counted(|counters| counters.refused_packets == 1).await;
    three.no_data().await;
}

#[tokio::test]
async fn member_without_a_path_is_served_through_the_gateway() {
    if !network_namespace::enter("forwarding::member_without_a_path_is_served_through_the_gateway") {
        return;
    }
    let hub = Hub::default();
    let [mut one, mut two, mut three] = ALL.map(|alias| TestMember::start(&hub, alias));
    for member in [&one, &two, &three] {
        member.plan(1, &ALL, &[(1, 2)]);
    }
    one.linked_to(&[2]).await;
    one.sender.send_lossy("a".into()).unwrap();
    let data = three.data().await;
    assert_eq!((data.sender, data.payload, data.reliable), (address(1), "a".into(), false));
    assert_eq!(two.data().await.payload, "a");
    let report = one.reported(|report| report.sent > 0).await;
    assert_eq!((report.sent, report.sent_by_fallback), (2, 1));
    three.no_data().await;
}
