//! Links between two members.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use protocol::mesh::{Signal, signal::Content};
use rtc::mesh::Options;
use test_support::network_namespace;
use tokio::time::sleep;

use crate::{
    hub::{Hub, address, is_answer, is_offer},
    member::{TestMember, link, mesh, options},
};

#[tokio::test]
async fn two_members_exchange_both_kinds_of_messages() {
    if !network_namespace::enter("links::two_members_exchange_both_kinds_of_messages") {
        return;
    }
    let hub = Hub::default();
    let [one, mut two] = mesh(&hub, [1, 2], &[(1, 2)]).await;
    for number in 0..300_u32 {
        let payload = number.to_be_bytes().to_vec();
        while one.sender.send_reliable(payload.clone().into()).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    for number in 0..300_u32 {
        let data = two.data().await;
        assert_eq!((data.sender, data.alias, data.reliable), (address(1), 1, true));
        assert_eq!(data.payload, number.to_be_bytes().to_vec());
    }
    two.sender.send_lossy("lossy".into()).unwrap();
    let mut one = one;
    let data = one.data().await;
    assert_eq!((data.sender, data.payload, data.reliable), (address(2), "lossy".into(), false));
    let report = one.reported(|report| report.sent == 300).await;
    assert_eq!((report.sent_by_fallback, report.version), (0, 1));
    one.no_data().await;
    two.no_data().await;
    assert_eq!(hub.offers().len(), 1);
}

#[tokio::test]
async fn glare_leaves_one_link() {
    if !network_namespace::enter("links::glare_leaves_one_link") {
        return;
    }
    let hub = Hub::default();
    // Both initiate.
    let mut members = [1, 2].map(|alias| TestMember::start(&hub, alias));
    link(&mut members, 1, &[1, 2], &[(1, 2), (2, 1)]).await;
    let mut offers = hub.offers();
    offers.sort_unstable();
    assert_eq!(offers.len(), 2, "both have offered");
    let answers: Vec<_> = hub.log().into_iter().filter(|(_, signal)| is_answer(signal)).collect();
    let [(from, answer)] = &answers[..] else { panic!("{} answers", answers.len()) };
    assert_eq!((*from, answer.negotiation), (address(1), offers[1].1), "the lower address answers");
    members[0].sender.send_reliable("a".into()).unwrap();
    assert_eq!(members[1].data().await.payload, "a");
    for member in &members {
        assert_eq!(member.counters().await.failed_attempts, 0);
    }
}

#[tokio::test]
async fn lost_offer_is_replaced_by_one_of_the_other_side() {
    if !network_namespace::enter("links::lost_offer_is_replaced_by_one_of_the_other_side") {
        return;
    }
    let hub = Hub::default();
    let began = Instant::now();
    // Every offer of the initiating member is lost.
    hub.set_filter(|from, signal| from != address(1) || !is_offer(signal));
    let _members = mesh(&hub, [1, 2], &[(1, 2)]).await;
    assert!(began.elapsed() >= Duration::from_millis(3_500));
    assert!(hub.offers().iter().any(|(from, _)| *from == address(2)));
}

#[tokio::test]
async fn stale_answer_and_candidates_are_refused() {
    if !network_namespace::enter("links::stale_answer_and_candidates_are_refused") {
        return;
    }
    let hub = Hub::default();
    // The signals of the second member for the first negotiation arrive late.
    let late: Arc<Mutex<Vec<Signal>>> = Arc::default();
    let (kept, mut first) = (late.clone(), None);
    hub.set_filter(move |from, signal| {
        if from != address(2) {
            return true;
        }
        let is_first = *first.get_or_insert(signal.negotiation) == signal.negotiation;
        if is_first {
            kept.lock().unwrap().push(signal.clone());
        }
        !is_first
    });
    let mut members = [1, 2].map(|alias| TestMember::start(&hub, alias));
    for member in &members {
        member.plan(1, &[1, 2], &[(1, 2)]);
    }
    while hub.offers().len() < 2 {
        sleep(Duration::from_millis(20)).await;
    }
    for signal in late.lock().unwrap().drain(..) {
        let _ = members[0].inputs.signal(Signal { peer: address(2).to_string(), ..signal });
    }
    for (member, other) in members.iter_mut().zip([2, 1]) {
        member.linked_to(&[other]).await;
    }
    assert!(members[0].counters().await.refused_signals > 0);
    members[0].sender.send_reliable("a".into()).unwrap();
    assert_eq!(members[1].data().await.payload, "a");
}

#[tokio::test]
async fn offer_waits_for_the_plan_that_lists_its_sender() {
    if !network_namespace::enter("links::offer_waits_for_the_plan_that_lists_its_sender") {
        return;
    }
    let hub = Hub::default();
    let mut members = [1, 2].map(|alias| TestMember::start(&hub, alias));
    members[0].plan(1, &[1, 2], &[(1, 2)]);
    members[1].plan(1, &[1, 2], &[]);
    sleep(Duration::from_millis(500)).await;
    assert!(members[1].reports.borrow().connected_to.is_empty());
    members[1].plan(2, &[1, 2], &[(1, 2)]);
    let began = Instant::now();
    members[1].linked_to(&[1]).await;
    assert!(began.elapsed() < Duration::from_secs(2), "the first offer is used: {:?}", began.elapsed());
    assert_eq!(hub.offers().len(), 1);
}

#[tokio::test]
async fn link_to_an_unlisted_member_is_refused() {
    if !network_namespace::enter("links::link_to_an_unlisted_member_is_refused") {
        return;
    }
    let hub = Hub::default();
    let [mut one, mut two] = [1, 2].map(|alias| TestMember::start(&hub, alias));
    one.plan(1, &[1, 2], &[(1, 2)]);
    two.plan(1, &[1, 2], &[]);
    let report = one.reported(|report| !report.failed.is_empty()).await;
    assert_eq!((&report.connected_to[..], &report.failed[..]), (&[][..], &[2][..]));
    assert!(hub.log().iter().all(|(from, _)| *from == address(1)), "no answer");
    assert!(one.counters().await.failed_attempts >= 3);
    two.reported(|report| report.version == 1 && report.connected_to.is_empty()).await;
}

#[tokio::test]
async fn unlisted_link_is_kept_for_five_seconds() {
    if !network_namespace::enter("links::unlisted_link_is_kept_for_five_seconds") {
        return;
    }
    let hub = Hub::default();
    let [mut one, mut two] = mesh(&hub, [1, 2], &[(1, 2)]).await;
    let began = Instant::now();
    one.plan(2, &[1, 2], &[]);
    two.plan(2, &[1, 2], &[]);
    one.reported(|report| report.version == 2 && report.connected_to == [2]).await;
    two.reported(|report| report.version == 2 && report.connected_to == [1]).await;
    one.linked_to(&[]).await;
    two.linked_to(&[]).await;
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_secs(5) && elapsed < Duration::from_secs(9), "{elapsed:?}");
    assert_eq!(hub.offers().len(), 1, "no further attempt");
}

#[tokio::test]
async fn closed_member_is_noticed_at_once() {
    if !network_namespace::enter("links::closed_member_is_noticed_at_once") {
        return;
    }
    let hub = Hub::default();
    let [mut one, two] = mesh(&hub, [1, 2], &[(1, 2)]).await;
    two.sender.send_reliable("last".into()).unwrap();
    drop(two);
    let began = Instant::now();
    assert_eq!(one.data().await.payload, "last");
    one.linked_to(&[]).await;
    // A lost path is noticed after four seconds.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn relay_only_member_sends_no_host_candidate() {
    if !network_namespace::enter("links::relay_only_member_sends_no_host_candidate") {
        return;
    }
    let hub = Hub::default();
    // A TURN server that does not answer.
    let json = r#"[{"urls":["turn:127.0.0.1:9?transport=udp"],"username":"1:0x1","credential":"a"}]"#;
    let ice_servers = URL_SAFE_NO_PAD.encode(json).parse().unwrap();
    let relayed = Options { relay_only: true, ice_servers, ..options(1) };
    let relayed = TestMember::start_with(&hub, 1, relayed);
    let other = TestMember::start(&hub, 2);
    for member in [&relayed, &other] {
        member.plan(1, &[1, 2], &[(1, 2)]);
    }
    while hub.offers().iter().filter(|(from, _)| *from == address(1)).count() < 2 {
        sleep(Duration::from_millis(50)).await;
    }
    let of_relayed = hub.log().into_iter().filter(|(from, _)| *from == address(1));
    for (_, signal) in of_relayed {
        match signal.content.unwrap() {
            Content::Candidate(candidate) => panic!("a candidate without a relay: {candidate}"),
            Content::Offer(sdp) | Content::Answer(sdp) => {
                assert!(!sdp.contains("a=candidate") && !sdp.contains("127.0.0.1"), "{sdp}");
            }
            Content::Fallback(_) => {}
        }
    }
    let has_candidate = |(_, signal): &(_, Signal)| matches!(signal.content, Some(Content::Candidate(_)));
    assert!(hub.log().iter().any(has_candidate), "the other member sends its own");
}

#[tokio::test]
async fn relay_only_member_without_turn_reports_a_failure() {
    if !network_namespace::enter("links::relay_only_member_without_turn_reports_a_failure") {
        return;
    }
    let hub = Hub::default();
    let mut relayed = TestMember::start_with(&hub, 1, Options { relay_only: true, ..options(1) });
    relayed.plan(1, &[1, 2], &[(1, 2)]);
    relayed.reported(|report| report.failed == [2]).await;
    assert!(hub.log().is_empty(), "no signal");
}
