//! Lost connections.

use std::time::Duration;

use rtc::livekit::{Event, LeaveReason, Options, Participant, SendError};
use test_support::{LiveKitServer, network_namespace};
use tokio::time::{Instant, sleep};

use crate::{
    proxy::Proxy,
    room::{data, join, joined, next, token, try_join, wait_for},
};

/// Waits for the end of a reconnection: whether it resumed the session, its sid, and the messages that may be lost.
async fn reconnected(participant: &mut Participant) -> (bool, String, usize) {
    wait_for(participant, |event| match event {
        Event::Reconnected { resumed, sid, unconfirmed } => Some((*resumed, sid.clone(), *unconfirmed)),
        Event::Left(reason) => panic!("left: {reason}"),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn cut_signalling_is_resumed_without_loss() {
    if !network_namespace::enter("reconnects::cut_signalling_is_resumed_without_loss") {
        return;
    }
    let server = LiveKitServer::start();
    let proxy = Proxy::start(server.address()).await;
    let (mut one, own, _) = join(&proxy.url(), "one").await;
    let (mut two, other, _) = join(&server.url(), "two").await;
    joined(&mut one, "two").await;
    // Both send every 5 ms; the socket of the first is cut three times meanwhile.
    let sending = [one.sender(), two.sender()].map(|sender| {
        tokio::spawn(async move {
            for number in 0..600_u32 {
                while sender.send_reliable(number.to_be_bytes().to_vec().into(), None)
                    == Err(SendError::QueueFull)
                {
                    sleep(Duration::from_millis(5)).await;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
    });
    let mut received = Vec::new();
    for _ in 0..3 {
        proxy.cut();
        let began = Instant::now();
        loop {
            match next(&mut one).await {
                Event::Data(data) => received.push(data.payload),
                Event::Reconnected { resumed, sid, unconfirmed } => {
                    println!("resumed after {:?}", began.elapsed());
                    assert_eq!((resumed, sid, unconfirmed), (true, own.sid.clone(), 0));
                    break;
                }
                Event::Reconnecting => {}
                other => panic!("{other:?}"),
            }
        }
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            received.push(data(&mut one).await.payload);
        }
    }
    while received.len() < 600 {
        received.push(data(&mut one).await.payload);
    }
    let expected: Vec<_> = (0..600_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(received, expected);
    for number in &expected {
        // The other side sees neither a leave nor a loss.
        match next(&mut two).await {
            Event::Data(data) => {
                assert_eq!((&data.payload[..], data.sender), (&number[..], Some(own.clone())))
            }
            event => panic!("{event:?}"),
        }
    }
    for sending in sending {
        sending.await.unwrap();
    }
    assert_ne!(own.sid, other.sid);
}

#[tokio::test]
async fn leave_during_a_cut_is_reported_after_it() {
    if !network_namespace::enter("reconnects::leave_during_a_cut_is_reported_after_it") {
        return;
    }
    let server = LiveKitServer::start();
    let proxy = Proxy::start(server.address()).await;
    let (mut one, ..) = join(&proxy.url(), "one").await;
    let (two, other, _) = join(&server.url(), "two").await;
    joined(&mut one, "two").await;
    proxy.cut();
    two.close().await;
    let mut left = false;
    let mut restored = false;
    while !(left && restored) {
        match next(&mut one).await {
            Event::ParticipantLeft(member) => left |= member == other,
            Event::Reconnected { .. } => restored = true,
            Event::Reconnecting => {}
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn restarted_server_is_rejoined() {
    if !network_namespace::enter("reconnects::restarted_server_is_rejoined") {
        return;
    }
    let mut server = LiveKitServer::start();
    let (mut one, own, _) = join(&server.url(), "one").await;
    let (mut two, ..) = join(&server.url(), "two").await;
    joined(&mut one, "two").await;
    server.kill();
    assert_eq!(next(&mut one).await, Event::Reconnecting);
    assert_eq!(one.sender().send_lossy("a".into(), None), Err(SendError::NotConnected));
    one.sender().send_reliable("queued".into(), None).unwrap();
    server.restart();
    let ((resumed, sid, unconfirmed), (other_resumed, ..)) =
        tokio::join!(reconnected(&mut one), reconnected(&mut two));
    println!("unconfirmed: {unconfirmed}");
    assert!(!resumed && !other_resumed);
    assert_ne!(sid, own.sid);
    one.sender().send_reliable("after".into(), None).unwrap();
    wait_for(&mut two, |event| match event {
        Event::Data(data) => (data.payload == "after").then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn killed_server_ends_the_participation_at_the_limit() {
    if !network_namespace::enter("reconnects::killed_server_ends_the_participation_at_the_limit") {
        return;
    }
    let mut server = LiveKitServer::start();
    let options =
        Options { reconnect_timeout: Duration::from_secs(2), ..Options::new(server.url(), token("one")) };
    let mut one = Participant::join(options).await.unwrap();
    let mut gone = try_join(&server.url(), token("two")).await.unwrap();
    server.kill();
    let began = Instant::now();
    let reason = wait_for(&mut one, |event| match event {
        Event::Left(reason) => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert!(matches!(reason, LeaveReason::Lost(_)), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(one.next().await, None);
    assert_eq!(one.sender().send_reliable("a".into(), None), Err(SendError::NotConnected));
    // A participant that still reconnects can be closed.
    wait_for(&mut gone, |event| (*event == Event::Reconnecting).then_some(())).await;
    gone.close().await;
}

#[tokio::test]
async fn server_that_shuts_down_states_the_reason() {
    if !network_namespace::enter("reconnects::server_that_shuts_down_states_the_reason") {
        return;
    }
    let mut server = LiveKitServer::start();
    let options =
        Options { reconnect_timeout: Duration::from_secs(2), ..Options::new(server.url(), token("one")) };
    let mut one = Participant::join(options).await.unwrap();
    let shut_down = tokio::task::spawn_blocking(move || server.shut_down());
    let reason = wait_for(&mut one, |event| match event {
        Event::Left(reason) => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert_eq!(reason, LeaveReason::ServerShutdown);
    shut_down.await.unwrap();
}
