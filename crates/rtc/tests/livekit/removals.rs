//! Participations that the server ends, and their reasons.

use rtc::livekit::{Event, LeaveReason, Participant};
use test_support::{LiveKitServer, network_namespace};

use crate::room::{ROOM, api, join, joined, left, next, wait_for};

/// Waits for the end, after which no event follows.
async fn end(mut participant: Participant) -> LeaveReason {
    let reason = wait_for(&mut participant, |event| match event {
        Event::Left(reason) => Some(reason.clone()),
        Event::Reconnecting => panic!("it must not reconnect"),
        _ => None,
    })
    .await;
    assert_eq!(participant.next().await, None);
    reason
}

#[tokio::test]
async fn removed_participant_and_deleted_room_have_reasons() {
    if !network_namespace::enter("removals::removed_participant_and_deleted_room_have_reasons") {
        return;
    }
    let server = LiveKitServer::start();
    let (one, ..) = join(&server.url(), "one").await;
    let (mut two, ..) = join(&server.url(), "two").await;
    api(&server).remove_participant(ROOM, "one").await.unwrap();
    assert_eq!(end(one).await, LeaveReason::Removed);
    let gone = wait_for(&mut two, |event| match event {
        Event::ParticipantLeft(member) => Some(member.identity.clone()),
        _ => None,
    });
    assert_eq!(gone.await, "one");
    api(&server).delete_room(ROOM).await.unwrap();
    assert_eq!(end(two).await, LeaveReason::RoomDeleted);
}

#[tokio::test]
async fn second_join_of_an_identity_ends_the_first() {
    if !network_namespace::enter("removals::second_join_of_an_identity_ends_the_first") {
        return;
    }
    let server = LiveKitServer::start();
    let (mut witness, ..) = join(&server.url(), "witness").await;
    let (older, own, _) = join(&server.url(), "one").await;
    assert_eq!(joined(&mut witness, "one").await, own);
    let (_newer, newer_own, _) = join(&server.url(), "one").await;
    assert_eq!(end(older).await, LeaveReason::DuplicateIdentity);
    assert_ne!(own.sid, newer_own.sid);
    assert_eq!(next(&mut witness).await, Event::ParticipantLeft(own));
    assert_eq!(next(&mut witness).await, Event::ParticipantJoined(newer_own));
}

#[tokio::test]
async fn participant_that_leaves_is_announced_to_the_others() {
    if !network_namespace::enter("removals::participant_that_leaves_is_announced_to_the_others") {
        return;
    }
    let server = LiveKitServer::start();
    let (mut one, ..) = join(&server.url(), "one").await;
    let (two, own, _) = join(&server.url(), "two").await;
    assert_eq!(joined(&mut one, "two").await, own);
    // Dropping it leaves, too.
    drop(two);
    left(&mut one, &own.sid).await;
}
