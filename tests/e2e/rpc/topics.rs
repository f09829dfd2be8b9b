//! Topics: messages between clients, across islands.

use std::time::Duration;

use identity::Wallet;
use protocol::{
    Message, Position,
    bff::{
        PeerTopicSubscriptionResultElem, PublishToTopicRequest, PublishToTopicResult, Subscription,
        SubscriptionRequest, SystemTopicSubscriptionResultElem, UnsubscriptionResult,
    },
    v3::{Heartbeat, IslandChangedMessage, JoinIslandMessage},
};
use test_support::{Realm, eventually, rpc_caller::sign_in, wallet, wire};

fn subscription_to(topic: &str) -> SubscriptionRequest {
    SubscriptionRequest { topic: topic.to_owned() }
}

fn publication(topic: &str, payload: &[u8]) -> PublishToTopicRequest {
    PublishToTopicRequest { topic: topic.to_owned(), payload: payload.to_vec().into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_names_its_sender_and_mailbox_is_private() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let (mut publisher, mut listener) = (sign_in(&realm, &one).await, sign_in(&realm, &two).await);
    let chat = listener.stream("TopicsService.PeerSubscription", &subscription_to("plaza.*")).await;
    let mailbox = format!("{}.greeting", two.address());
    let greetings = listener.stream("TopicsService.PeerSubscription", &subscription_to(&mailbox)).await;
    let everything = publisher.stream("TopicsService.PeerSubscription", &subscription_to("*.*")).await;
    let of_system = publisher.stream("TopicsService.SystemSubscription", &subscription_to("*.*")).await;
    publisher.publish(&mailbox, b"hi").await;
    publisher.publish("plaza.chat", b"hello").await;
    let sender = one.address().to_string();
    let received: PeerTopicSubscriptionResultElem = listener.element(chat, 0).await;
    let topic = "plaza.chat".to_owned();
    let expected = PeerTopicSubscriptionResultElem { payload: b"hello"[..].into(), topic, sender, missed: 0 };
    assert_eq!(received, expected);
    let received: PeerTopicSubscriptionResultElem = listener.element(greetings, 0).await;
    assert_eq!((received.topic, &received.payload[..]), (mailbox.clone(), &b"hi"[..]));
    // Only its owner receives a mailbox, and only servers publish system messages.
    let received: PeerTopicSubscriptionResultElem = publisher.element(everything, 0).await;
    assert_eq!(received.topic, "plaza.chat");
    publisher.acknowledge(everything, 1, false).await;
    publisher.acknowledge(of_system, 0, false).await;
    assert!(publisher.wire.is_quiet_for(Duration::from_millis(300)).await);
    for procedure in ["TopicsService.PeerSubscription", "TopicsService.SystemSubscription"] {
        assert_eq!(
            publisher.call_expecting_error(procedure, &subscription_to(&mailbox)).await,
            "this mailbox is another's"
        );
    }
    let refused = publisher
        .call_expecting_error("TopicsService.SystemSubscription", &subscription_to("peer.*.chat"))
        .await;
    assert_eq!(refused, "a system topic does not begin with peer");
    for topic in ["", "a..b", "a b", "a.*", ">", "a\r\nPUB peer.x.connect 0\r\n", &"x".repeat(257)] {
        publisher.call_expecting_error("TopicsService.PublishToTopic", &publication(topic, b"")).await;
    }
    assert_eq!(realm.count("atoll_gateway_topic_messages_total").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_subscriber_misses_the_newest_and_learns_how_many() {
    let realm = Realm::start(&[("GATEWAY__MESSAGES_PER_SECOND", "10000")]);
    let mut publisher = sign_in(&realm, &wallet()).await;
    let (mut slow, mut quick) = (sign_in(&realm, &wallet()).await, sign_in(&realm, &wallet()).await);
    let unread = slow.stream("TopicsService.PeerSubscription", &subscription_to("news")).await;
    let read = quick.stream("TopicsService.PeerSubscription", &subscription_to("news")).await;
    for number in 0..80u8 {
        publisher.publish("news", &[number]).await;
        let received: PeerTopicSubscriptionResultElem = quick.element(read, number.into()).await;
        assert_eq!((&received.payload[..], received.missed), (&[number][..], 0));
    }
    assert_eq!(realm.count("atoll_gateway_topic_messages_dropped_total").await, 30.0);
    for number in 0..50u8 {
        let received: PeerTopicSubscriptionResultElem = slow.element(unread, number.into()).await;
        assert_eq!((&received.payload[..], received.missed), (&[number][..], 0));
    }
    publisher.publish("news", &[80]).await;
    let received: PeerTopicSubscriptionResultElem = slow.element(unread, 50).await;
    assert_eq!((&received.payload[..], received.missed), (&[80][..], 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_client_works_with_subscription_ids() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let mut caller = sign_in(&realm, &one).await;
    let own_island = format!("{}.island_changed", one.address());
    let subscription: Subscription =
        caller.request("CommsService.SubscribeToSystemMessages", &subscription_to(&own_island)).await;
    let changes = caller.stream("CommsService.GetSystemMessages", &subscription).await;
    let heartbeat = Heartbeat { position: Some(Position::new(0.0, 0.0, 0.0).into()), desired_room: None };
    let heartbeat = publication("heartbeat", &heartbeat.encode_to_vec());
    assert!(caller.request::<PublishToTopicResult>("CommsService.PublishToTopic", &heartbeat).await.ok);
    let received: SystemTopicSubscriptionResultElem = caller.element(changes, 0).await;
    assert_eq!(received.topic, own_island);
    let change = IslandChangedMessage::decode(received.payload).unwrap();
    assert!(change.conn_str.starts_with("ws-room:"), "{}", change.conn_str);
    let mut socket = wire::sign_in(&realm, &two).await;
    let joins = subscription_to(&format!("island.{}.peer_join", change.island_id));
    let joins = caller.stream("TopicsService.SystemSubscription", &joins).await;
    socket.heartbeat(10.0).await;
    assert_eq!(socket.island_changed().await.island_id, change.island_id);
    let received: SystemTopicSubscriptionResultElem = caller.element(joins, 0).await;
    let joined = JoinIslandMessage::decode(received.payload).unwrap();
    assert_eq!((joined.island_id, joined.peer_id), (change.island_id, two.address().to_string()));
    let refused =
        caller.call_expecting_error("CommsService.PublishToTopic", &publication("heartbeat", &[0xff])).await;
    assert_eq!(refused, "undecodable payload");

    // By id: messages wait until the subscription is read, and cancelling it ends its stream.
    let mut other = sign_in(&realm, &wallet()).await;
    let subscription: Subscription =
        caller.request("CommsService.SubscribeToPeerMessages", &subscription_to("plaza")).await;
    other.publish("plaza", b"early").await;
    let messages = caller.stream("CommsService.GetPeerMessages", &subscription).await;
    let received: PeerTopicSubscriptionResultElem = caller.element(messages, 0).await;
    assert_eq!(&received.payload[..], b"early");
    let refused = caller.call_expecting_error("CommsService.GetSystemMessages", &subscription).await;
    assert_eq!(refused, "unknown subscription");
    let cancelled: UnsubscriptionResult =
        caller.request("CommsService.UnsubscribeToPeerMessages", &subscription).await;
    assert!(cancelled.ok && caller.stream_message(messages).await.closed);
    let again: UnsubscriptionResult =
        caller.request("CommsService.UnsubscribeToPeerMessages", &subscription).await;
    assert!(!again.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn scene_topic_is_normalized_and_never_a_system_topic() {
    let realm = Realm::start(&[]);
    let one = wallet();
    let (mut publisher, mut listener) = (sign_in(&realm, &one).await, sign_in(&realm, &wallet()).await);
    let door = subscription_to("messageBus.scene.urn%3aa%2Eb.door.*");
    let doors = listener.stream("TopicsService.PeerSubscription", &door).await;
    let servers = listener.stream("TopicsService.SystemSubscription", &door).await;
    publisher.publish("messageBus.scene.other.door.open", b"elsewhere").await;
    publisher.publish("messageBus.scene.urn:a%2eb.door.open", b"knock").await;
    let received: PeerTopicSubscriptionResultElem = listener.element(doors, 0).await;
    let (topic, sender) = ("messageBus.scene.urn%3Aa%2Eb.door.open".to_owned(), one.address().to_string());
    let expected = PeerTopicSubscriptionResultElem { payload: b"knock"[..].into(), topic, sender, missed: 0 };
    assert_eq!(received, expected);
    listener.acknowledge(servers, 0, false).await;
    assert!(listener.wire.is_quiet_for(Duration::from_millis(300)).await);
    for topic in ["messageBus.scene.a", "messageBus.island.I1.peer.x.chat", "messageBus.scene.%ff.a"] {
        let refused =
            publisher.call_expecting_error("TopicsService.PublishToTopic", &publication(topic, b"")).await;
        assert!(refused.starts_with("a scene's topic is messageBus.scene."), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_order_holds_per_sender_and_gaps_are_counted() {
    const EACH: u32 = 150;
    let realm = Realm::start(&[("GATEWAY__MESSAGES_PER_SECOND", "10000")]);
    let wallets = [wallet(), wallet(), wallet()];
    let mut slow = sign_in(&realm, &wallet()).await;
    let stream = slow.stream("TopicsService.PeerSubscription", &subscription_to("count.*")).await;
    let publish_all = async |wallet: &Wallet| {
        let mut publisher = sign_in(&realm, wallet).await;
        for number in 0..EACH {
            publisher.publish("count.up", &number.to_be_bytes()).await;
        }
        publisher
    };
    let [one, two, three] = &wallets;
    let publishers = async { tokio::join!(publish_all(one), publish_all(two), publish_all(three)) };
    tokio::pin!(publishers);
    let (mut next, mut received, mut missed) = ([0; 3], 0, 0);
    let mut take = |element: PeerTopicSubscriptionResultElem| {
        let number = u32::from_be_bytes(element.payload[..].try_into().unwrap());
        let of = wallets.iter().position(|wallet| wallet.address().to_string() == element.sender).unwrap();
        assert!(number >= next[of], "twice, or out of order");
        next[of] = number + 1;
        received += 1;
        missed += element.missed;
        (received, missed)
    };
    // The subscriber reads more slowly than the others publish.
    let mut sequence = 0;
    let (mut publisher, ..) = loop {
        tokio::select! {
            biased;
            publishers = &mut publishers => break publishers,
            element = slow.element(stream, sequence) => {
                take(element);
                sequence += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    // A requested element may not have arrived yet.
    slow.acknowledge(stream, sequence, false).await;
    while !slow.wire.is_quiet_for(Duration::from_millis(500)).await {
        let message = slow.stream_message(stream).await;
        take(PeerTopicSubscriptionResultElem::decode(message.payload).unwrap());
        slow.acknowledge(stream, message.sequence_id, false).await;
    }
    // The next message reports the last drops.
    publisher.publish("count.up", &EACH.to_be_bytes()).await;
    let last = slow.stream_message(stream).await;
    let (received, missed) = take(PeerTopicSubscriptionResultElem::decode(last.payload).unwrap());
    assert_eq!(received + missed, u64::from(EACH) * 3 + 1);
    assert!(missed > 0, "nothing was dropped");
    assert_eq!(realm.count("atoll_gateway_topic_messages_dropped_total").await, missed as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_session_receives_no_topic_messages() {
    let realm = Realm::start(&[("GATEWAY__MAX_SUBSCRIPTIONS", "1")]);
    let (one, two) = (wallet(), wallet());
    let mut publisher = sign_in(&realm, &two).await;
    let mut older = sign_in(&realm, &one).await;
    let chat = older.stream("TopicsService.PeerSubscription", &subscription_to("plaza")).await;
    let refused =
        older.call_expecting_error("TopicsService.PeerSubscription", &subscription_to("casino")).await;
    assert_eq!(refused, "too many subscriptions");
    older.acknowledge(chat, 0, true).await;
    older.stream("TopicsService.PeerSubscription", &subscription_to("casino")).await;
    let _newer = sign_in(&realm, &one).await;
    older.wire.closed().await;
    publisher.publish("casino", b"without a subscriber").await;
    eventually("gone", async || realm.metric("atoll_gateway_sockets").await == 2.0).await;
    assert_eq!(realm.count("atoll_gateway_topic_deliveries_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_above_its_byte_rate_is_slowed_without_loss() {
    const LARGE: usize = 60_000;
    let realm = Realm::start(&[]);
    let mut flood = sign_in(&realm, &wallet()).await;
    let (mut other, mut listener) = (sign_in(&realm, &wallet()).await, sign_in(&realm, &wallet()).await);
    let stream = listener.stream("TopicsService.PeerSubscription", &subscription_to("news")).await;
    let began = std::time::Instant::now();
    let mut calls = Vec::new();
    for number in 0..6_u8 {
        calls.push(flood.call("TopicsService.PublishToTopic", &publication("news", &[number; LARGE])).await);
    }
    let received: PeerTopicSubscriptionResultElem = listener.element(stream, 0).await;
    assert_eq!(received.payload[0], 0);
    other.publish("news", b"other").await;
    let (mut next, mut heard_before_other) = (1, None);
    for sequence in 1..7 {
        let received: PeerTopicSubscriptionResultElem = listener.element(stream, sequence).await;
        assert_eq!(received.missed, 0);
        if &received.payload[..] == b"other" {
            heard_before_other = Some(next);
        } else {
            assert_eq!((received.payload.len(), received.payload[0]), (LARGE, next));
            next += 1;
        }
    }
    assert_eq!(next, 6);
    assert!(heard_before_other.is_some_and(|number| number < 6), "the other publisher is not delayed");
    // The burst of one second passes; the rest takes 64 KiB per second.
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    for number in calls {
        assert!(flood.response::<PublishToTopicResult>(number).await.ok);
    }
}
