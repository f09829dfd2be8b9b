//! Messages between participants.

use std::time::Duration;

use rtc::livekit::{Event, MAX_PACKET_BYTES, SendError};
use test_support::{LiveKitServer, network_namespace};
use tokio::time::{sleep, timeout};

use crate::room::{data, join, joined, left, next, observer_token, try_join};

#[tokio::test]
async fn reliable_messages_arrive_in_order() {
    if !network_namespace::enter("delivery::reliable_messages_arrive_in_order") {
        return;
    }
    let server = LiveKitServer::start();
    let (mut one, own, others) = join(&server.url(), "one").await;
    assert_eq!(others, []);
    let (mut two, _, others) = join(&server.url(), "two").await;
    assert_eq!(others, std::slice::from_ref(&own));
    assert_eq!(joined(&mut one, "two").await.identity, "two");
    let sender = one.sender();
    for number in 0..1_000_u32 {
        while sender.send_reliable(number.to_be_bytes().to_vec().into(), Some("t"))
            == Err(SendError::QueueFull)
        {
            sleep(Duration::from_millis(1)).await;
        }
    }
    for number in 0..1_000_u32 {
        let data = data(&mut two).await;
        assert_eq!(data.payload, number.to_be_bytes().to_vec());
        assert_eq!((data.sender, data.topic.as_deref(), data.reliable), (Some(own.clone()), Some("t"), true));
    }
    let echo = timeout(Duration::from_millis(300), one.next()).await;
    assert!(echo.is_err(), "no message of its own: {echo:?}");
}

#[tokio::test]
async fn lossy_and_large_messages_arrive_on_the_loopback() {
    if !network_namespace::enter("delivery::lossy_and_large_messages_arrive_on_the_loopback") {
        return;
    }
    let server = LiveKitServer::start();
    let (one, ..) = join(&server.url(), "one").await;
    let (mut two, ..) = join(&server.url(), "two").await;
    // The server forwards lossy messages from the time at which it knows that both are connected.
    sleep(Duration::from_millis(500)).await;
    one.sender().send_lossy("lossy".into(), None).unwrap();
    let lossy = data(&mut two).await;
    assert_eq!((lossy.payload, lossy.topic, lossy.reliable), ("lossy".into(), None, false));
    let largest = vec![7; MAX_PACKET_BYTES - 100];
    one.sender().send_reliable(largest.clone().into(), None).unwrap();
    assert_eq!(data(&mut two).await.payload, largest);
    let refused = one.sender().send_reliable(vec![7; MAX_PACKET_BYTES].into(), None);
    assert!(matches!(refused, Err(SendError::TooLarge(bytes)) if bytes > MAX_PACKET_BYTES), "{refused:?}");
}

#[tokio::test]
async fn close_delivers_queued_messages_and_announces_the_leave() {
    if !network_namespace::enter("delivery::close_delivers_queued_messages_and_announces_the_leave") {
        return;
    }
    let server = LiveKitServer::start();
    let (one, own, _) = join(&server.url(), "one").await;
    let (mut two, ..) = join(&server.url(), "two").await;
    let sender = one.sender();
    for number in 0..200_u8 {
        sender.send_reliable(vec![number].into(), None).unwrap();
    }
    one.close().await;
    assert_eq!(sender.send_reliable("late".into(), None), Err(SendError::NotConnected));
    for number in 0..200_u8 {
        assert_eq!(data(&mut two).await.payload, vec![number]);
    }
    // Without a Leave the server notices the end after some 25 seconds.
    timeout(Duration::from_secs(10), left(&mut two, &own.sid)).await.expect("left at once");
}

#[tokio::test]
async fn hidden_observer_receives_and_is_not_seen() {
    if !network_namespace::enter("delivery::hidden_observer_receives_and_is_not_seen") {
        return;
    }
    let server = LiveKitServer::start();
    let (mut one, own, _) = join(&server.url(), "one").await;
    let mut observer = try_join(&server.url(), observer_token("observer")).await.unwrap();
    let Event::Joined { others, .. } = next(&mut observer).await else { panic!("not joined first") };
    assert_eq!(others, std::slice::from_ref(&own));
    assert_eq!(observer.sender().send_reliable("a".into(), None), Err(SendError::NotPermitted));
    let (mut two, _, others) = join(&server.url(), "two").await;
    assert_eq!(others, std::slice::from_ref(&own));
    two.sender().send_reliable("hello".into(), None).unwrap();
    assert_eq!(data(&mut observer).await.payload, "hello");
    assert_eq!(data(&mut one).await.payload, "hello");
    observer.close().await;
    one.sender().send_reliable("bye".into(), None).unwrap();
    // The first event of the second participant is this message: it saw neither a join nor a leave.
    assert!(matches!(next(&mut two).await, Event::Data(data) if data.payload == "bye"));
}

#[tokio::test]
async fn unread_events_delay_reliable_and_drop_lossy_messages() {
    if !network_namespace::enter("delivery::unread_events_delay_reliable_and_drop_lossy_messages") {
        return;
    }
    let server = LiveKitServer::start();
    let (one, ..) = join(&server.url(), "one").await;
    let (mut two, ..) = join(&server.url(), "two").await;
    sleep(Duration::from_millis(500)).await;
    let sender = one.sender();
    // More than all queues of the second participant hold.
    let count = 2_000_u32;
    for number in 0..count {
        while sender.send_reliable(number.to_be_bytes().to_vec().into(), None) == Err(SendError::QueueFull) {
            sleep(Duration::from_millis(1)).await;
        }
        // One lossy message follows after all events are queued.
        if number >= 1_500 {
            let _ = sender.send_lossy("lossy".into(), None);
        }
        if number % 50 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    sleep(Duration::from_secs(1)).await;
    assert!(two.lossy_dropped() > 0);
    let mut expected = 0..count;
    while expected.start < count {
        let data = data(&mut two).await;
        if data.reliable {
            assert_eq!(data.payload, expected.next().unwrap().to_be_bytes().to_vec());
        }
    }
}
