//! Tests of topic subscriptions.

use proptest::prelude::*;
use protocol::Message;

use super::*;

const OWNER: Address = Address::new([1; 20]);

fn is_empty(topics: &Topics) -> bool {
    [&topics.peers, &topics.system].iter().all(|tree| tree.read().is_empty())
}

#[test]
fn peer_messages_carry_sender_and_skip_system_subscribers() {
    let (topics, queues) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
    let peers = topics.subscribe(PublisherKind::Peers, "plaza.*".parse().unwrap(), &queues, 1);
    let system = topics.subscribe(PublisherKind::System, "plaza.*".parse().unwrap(), &queues, 2);
    topics.deliver_peer(OWNER, &"plaza.chat".parse().unwrap(), &"hi".into());
    topics.deliver_system(&"plaza.news".parse().unwrap(), &"new".into());
    topics.deliver_system(&"casino.news".parse().unwrap(), &"old".into());
    let received = bff::PeerTopicSubscriptionResultElem::decode(queues.pop(1).unwrap().payload).unwrap();
    assert_eq!(
        (received.sender, &*received.topic, &received.payload[..]),
        (OWNER.to_string(), "plaza.chat", &b"hi"[..])
    );
    let received = bff::SystemTopicSubscriptionResultElem::decode(queues.pop(2).unwrap().payload).unwrap();
    assert_eq!((&*received.topic, &received.payload[..]), ("plaza.news", &b"new"[..]));
    assert!(queues.pop(1).is_none() && queues.pop(2).is_none());
    drop((peers, system));
    topics.deliver_peer(OWNER, &"plaza.chat".parse().unwrap(), &"hi".into());
    assert!(queues.pop(1).is_none() && is_empty(&topics));
}

#[test]
fn scene_messages_of_peers_skip_system_subscribers() {
    let (topics, queues) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
    let pattern = || "messageBus.scene.s1.*".parse().unwrap();
    let _peers = topics.subscribe(PublisherKind::Peers, pattern(), &queues, 1);
    let _system = topics.subscribe(PublisherKind::System, pattern(), &queues, 2);
    let door = "messageBus.scene.s1.door".parse().unwrap();
    topics.deliver_scene(Some(OWNER), &door, &"knock".into());
    topics.deliver_scene(None, &door, &"open".into());
    topics.deliver_scene(None, &"messageBus.scene.s2.door".parse().unwrap(), &"other scene".into());
    let received = |id| {
        let element = queues.pop(id)?.payload;
        let element = bff::PeerTopicSubscriptionResultElem::decode(element).unwrap();
        Some((element.sender, element.payload))
    };
    assert_eq!(received(1), Some((OWNER.to_string(), "knock".into())));
    assert_eq!(received(1), Some((String::new(), "open".into())));
    assert_eq!(received(2), Some((String::new(), "open".into())));
    assert_eq!((received(1), received(2)), (None, None));
}

#[test]
fn unidentified_loss_is_recorded_for_every_subscription() {
    let (topics, queues) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
    let _one = topics.subscribe(PublisherKind::Peers, "a.b".parse().unwrap(), &queues, 1);
    let _two = topics.subscribe(PublisherKind::System, "*".parse().unwrap(), &queues, 2);
    topics.record_missed(3);
    topics.deliver_peer(OWNER, &"a.b".parse().unwrap(), &Bytes::new());
    topics.deliver_system(&"a".parse().unwrap(), &Bytes::new());
    assert_eq!((queues.pop(1).unwrap().missed, queues.pop(2).unwrap().missed), (3, 3));
}

fn topic() -> impl Strategy<Value = String> {
    let mailbox = OWNER.to_string();
    let segment = prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "*".to_owned(), mailbox]);
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("."))
}

proptest! {
    #[test]
    fn topic_tree_agrees_with_pattern_matching(
        patterns in prop::collection::vec(topic(), 0..12),
        published in prop::collection::vec(topic(), 1..12),
        dropped: u16,
    ) {
        let (topics, queues) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
        let patterns: Vec<TopicPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let subscribe = |(id, pattern): (usize, &TopicPattern)| {
            topics.subscribe(PublisherKind::Peers, pattern.clone(), &queues, id as u32)
        };
        let mut subscriptions: Vec<TopicSubscription> = patterns.iter().enumerate().map(subscribe).collect();
        subscriptions.retain(|subscription| dropped >> subscription.subscriber.id & 1 == 0);
        for topic in published.iter().filter_map(|text| text.parse::<Topic>().ok()) {
            topics.deliver_peer(OWNER, &topic, &Bytes::new());
            for (id, pattern) in patterns.iter().enumerate() {
                let expected = dropped >> id & 1 == 0 && pattern.matches(&topic);
                prop_assert_eq!(queues.pop(id as u32).is_some(), expected, "{} under {}", &topic, pattern);
            }
        }
        drop(subscriptions);
        prop_assert!(is_empty(&topics));
    }
}
