//! What clients say to each other under topics, across islands.

use std::time::Duration;

use protocol::{
    Message, Position,
    bff::{
        PeerTopicSubscriptionResultElem, PublishToTopicRequest, PublishToTopicResult, Subscription,
        SubscriptionRequest, SystemTopicSubscriptionResultElem, UnsubscriptionResult,
    },
    v3::{Heartbeat, IslandChangedMessage},
};

use super::caller::{Caller, sign_in};
use crate::{
    front::{Realm, eventually, wallet},
    wire,
};

fn to(topic: &str) -> SubscriptionRequest {
    SubscriptionRequest { topic: topic.to_owned() }
}

fn says(topic: &str, payload: &[u8]) -> PublishToTopicRequest {
    PublishToTopicRequest { topic: topic.to_owned(), payload: payload.to_vec().into() }
}

impl Caller {
    async fn publish(&mut self, topic: &str, payload: &[u8]) {
        let published: PublishToTopicResult =
            self.ask("TopicsService.PublishToTopic", &says(topic, payload)).await;
        assert!(published.ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_heard_with_its_sender_and_a_mailbox_by_its_owner_alone() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let (mut speaker, mut listener) = (sign_in(&realm, &one).await, sign_in(&realm, &two).await);
    let chat = listener.stream("TopicsService.PeerSubscription", &to("plaza.*")).await;
    let mailbox = format!("{}.offer", two.address());
    let offers = listener.stream("TopicsService.PeerSubscription", &to(&mailbox)).await;
    let everything = speaker.stream("TopicsService.PeerSubscription", &to("*.*")).await;
    let of_system = speaker.stream("TopicsService.SystemSubscription", &to("*.*")).await;
    speaker.publish(&mailbox, b"sdp").await;
    speaker.publish("plaza.chat", b"hello").await;
    let sender = one.address().to_string();
    let heard: PeerTopicSubscriptionResultElem = listener.element(chat, 0).await;
    let topic = "plaza.chat".to_owned();
    let expected = PeerTopicSubscriptionResultElem { payload: b"hello"[..].into(), topic, sender, missed: 0 };
    assert_eq!(heard, expected);
    let heard: PeerTopicSubscriptionResultElem = listener.element(offers, 0).await;
    assert_eq!((heard.topic, &heard.payload[..]), (mailbox.clone(), &b"sdp"[..]));
    // What goes to a mailbox, only its owner hears, and servers alone speak for the system.
    let heard: PeerTopicSubscriptionResultElem = speaker.element(everything, 0).await;
    assert_eq!(heard.topic, "plaza.chat");
    speaker.acknowledge(everything, 1, false).await;
    speaker.acknowledge(of_system, 0, false).await;
    assert!(speaker.wire.is_quiet_for(Duration::from_millis(300)).await);
    for procedure in ["TopicsService.PeerSubscription", "TopicsService.SystemSubscription"] {
        assert_eq!(speaker.refused(procedure, &to(&mailbox)).await, "this mailbox is another's");
    }
    let refused = speaker.refused("TopicsService.SystemSubscription", &to("peer.*.chat")).await;
    assert_eq!(refused, "a system topic does not begin with peer");
    for topic in ["", "a..b", "a b", "a.*", ">", "a\r\nPUB peer.x.connect 0\r\n", &"x".repeat(257)] {
        speaker.refused("TopicsService.PublishToTopic", &says(topic, b"")).await;
    }
    assert_eq!(realm.count("atoll_gateway_topic_messages_total").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_misses_the_newest_and_is_told_how_many() {
    let realm = Realm::start(&[("GATEWAY__MESSAGES_PER_SECOND", "10000")]);
    let mut speaker = sign_in(&realm, &wallet()).await;
    let (mut slow, mut quick) = (sign_in(&realm, &wallet()).await, sign_in(&realm, &wallet()).await);
    let unread = slow.stream("TopicsService.PeerSubscription", &to("news")).await;
    let read = quick.stream("TopicsService.PeerSubscription", &to("news")).await;
    for number in 0..80u8 {
        speaker.publish("news", &[number]).await;
        let heard: PeerTopicSubscriptionResultElem = quick.element(read, number.into()).await;
        assert_eq!((&heard.payload[..], heard.missed), (&[number][..], 0));
    }
    assert_eq!(realm.count("atoll_gateway_topic_messages_dropped_total").await, 30.0);
    for number in 0..50u8 {
        let heard: PeerTopicSubscriptionResultElem = slow.element(unread, number.into()).await;
        assert_eq!((&heard.payload[..], heard.missed), (&[number][..], 0));
    }
    speaker.publish("news", &[80]).await;
    let heard: PeerTopicSubscriptionResultElem = slow.element(unread, 50).await;
    assert_eq!((&heard.payload[..], heard.missed), (&[80][..], 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_2022_lives_on_topics_and_subscription_ids() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let mut caller = sign_in(&realm, &one).await;
    let own_island = format!("{}.island_changed", one.address());
    let subscription: Subscription =
        caller.ask("CommsService.SubscribeToSystemMessages", &to(&own_island)).await;
    let changes = caller.stream("CommsService.GetSystemMessages", &subscription).await;
    let heartbeat = Heartbeat { position: Some(Position::new(0.0, 0.0, 0.0).into()), desired_room: None };
    let heartbeat = says("heartbeat", &heartbeat.encode_to_vec());
    assert!(caller.ask::<PublishToTopicResult>("CommsService.PublishToTopic", &heartbeat).await.ok);
    let heard: SystemTopicSubscriptionResultElem = caller.element(changes, 0).await;
    assert_eq!(heard.topic, own_island);
    let change = IslandChangedMessage::decode(heard.payload).unwrap();
    assert!(change.conn_str.starts_with("ws-room:"), "{}", change.conn_str);
    let mut socket = wire::sign_in(&realm, &two).await;
    socket.heartbeat(10.0).await;
    assert_eq!(socket.island_changed().await.island_id, change.island_id);
    let refused = caller.refused("CommsService.PublishToTopic", &says("heartbeat", &[0xff])).await;
    assert_eq!(refused, "undecodable payload");

    // By id: what comes before it is read waits, and it goes with its stream when it is cancelled.
    let mut other = sign_in(&realm, &wallet()).await;
    let subscription: Subscription = caller.ask("CommsService.SubscribeToPeerMessages", &to("plaza")).await;
    other.publish("plaza", b"early").await;
    let messages = caller.stream("CommsService.GetPeerMessages", &subscription).await;
    let heard: PeerTopicSubscriptionResultElem = caller.element(messages, 0).await;
    assert_eq!(&heard.payload[..], b"early");
    let refused = caller.refused("CommsService.GetSystemMessages", &subscription).await;
    assert_eq!(refused, "unknown subscription");
    let cancelled: UnsubscriptionResult =
        caller.ask("CommsService.UnsubscribeToPeerMessages", &subscription).await;
    assert!(cancelled.ok && caller.stream_message(messages).await.closed);
    let again: UnsubscriptionResult =
        caller.ask("CommsService.UnsubscribeToPeerMessages", &subscription).await;
    assert!(!again.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_replaced_hears_nothing_and_subscriptions_are_limited() {
    let realm = Realm::start(&[("GATEWAY__MAX_SUBSCRIPTIONS", "1")]);
    let (one, two) = (wallet(), wallet());
    let mut speaker = sign_in(&realm, &two).await;
    let mut older = sign_in(&realm, &one).await;
    let chat = older.stream("TopicsService.PeerSubscription", &to("plaza")).await;
    let refused = older.refused("TopicsService.PeerSubscription", &to("casino")).await;
    assert_eq!(refused, "too many subscriptions");
    older.acknowledge(chat, 0, true).await;
    older.stream("TopicsService.PeerSubscription", &to("casino")).await;
    let _newer = sign_in(&realm, &one).await;
    older.wire.closed().await;
    speaker.publish("casino", b"for nobody").await;
    eventually("gone", async || realm.metric("atoll_gateway_sockets").await == 2.0).await;
    assert_eq!(realm.count("atoll_gateway_topic_deliveries_total").await, 0.0);
}
