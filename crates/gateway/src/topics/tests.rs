use proptest::prelude::*;
use protocol::Message;

use super::*;

const OWNER: Address = Address::new([1; 20]);

fn is_empty(topics: &Topics) -> bool {
    [&topics.peers, &topics.system].iter().all(|tree| {
        let root = tree.read().unwrap();
        root.children.is_empty() && root.subscribers.is_empty()
    })
}

#[test]
fn peer_messages_carry_sender_and_skip_system_subscribers() {
    let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
    let peers = topics.subscribe(PublisherKind::Peers, "plaza.*".parse().unwrap(), &backlogs, 1);
    let system = topics.subscribe(PublisherKind::System, "plaza.*".parse().unwrap(), &backlogs, 2);
    topics.deliver_peer(OWNER, &"plaza.chat".parse().unwrap(), &"hi".into());
    topics.deliver_system(&"plaza.news".parse().unwrap(), &"new".into());
    topics.deliver_system(&"casino.news".parse().unwrap(), &"old".into());
    let heard = bff::PeerTopicSubscriptionResultElem::decode(backlogs.pop(1).unwrap().payload).unwrap();
    assert_eq!(
        (heard.sender, &*heard.topic, &heard.payload[..]),
        (OWNER.to_string(), "plaza.chat", &b"hi"[..])
    );
    let heard = bff::SystemTopicSubscriptionResultElem::decode(backlogs.pop(2).unwrap().payload).unwrap();
    assert_eq!((&*heard.topic, &heard.payload[..]), ("plaza.news", &b"new"[..]));
    assert!(backlogs.pop(1).is_none() && backlogs.pop(2).is_none());
    drop((peers, system));
    topics.deliver_peer(OWNER, &"plaza.chat".parse().unwrap(), &"hi".into());
    assert!(backlogs.pop(1).is_none() && is_empty(&topics));
}

#[test]
fn scene_messages_of_peers_skip_system_subscribers() {
    let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
    let pattern = || "messageBus.scene.s1.*".parse().unwrap();
    let _peers = topics.subscribe(PublisherKind::Peers, pattern(), &backlogs, 1);
    let _system = topics.subscribe(PublisherKind::System, pattern(), &backlogs, 2);
    let door = "messageBus.scene.s1.door".parse().unwrap();
    topics.deliver_scene(Some(OWNER), &door, &"knock".into());
    topics.deliver_scene(None, &door, &"open".into());
    topics.deliver_scene(None, &"messageBus.scene.s2.door".parse().unwrap(), &"elsewhere".into());
    let heard = |id| {
        let element = backlogs.pop(id)?.payload;
        let element = bff::PeerTopicSubscriptionResultElem::decode(element).unwrap();
        Some((element.sender, element.payload))
    };
    assert_eq!(heard(1), Some((OWNER.to_string(), "knock".into())));
    assert_eq!(heard(1), Some((String::new(), "open".into())));
    assert_eq!(heard(2), Some((String::new(), "open".into())));
    assert_eq!((heard(1), heard(2)), (None, None));
}

#[test]
fn unidentified_loss_is_recorded_for_every_subscription() {
    let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
    let _one = topics.subscribe(PublisherKind::Peers, "a.b".parse().unwrap(), &backlogs, 1);
    let _two = topics.subscribe(PublisherKind::System, "*".parse().unwrap(), &backlogs, 2);
    topics.record_missed(3);
    topics.deliver_peer(OWNER, &"a.b".parse().unwrap(), &Bytes::new());
    topics.deliver_system(&"a".parse().unwrap(), &Bytes::new());
    assert_eq!((backlogs.pop(1).unwrap().missed, backlogs.pop(2).unwrap().missed), (3, 3));
}

fn topic() -> impl Strategy<Value = String> {
    let mailbox = OWNER.to_string();
    let segment = prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "*".to_owned(), mailbox]);
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("."))
}

proptest! {
    #[test]
    fn the_tree_says_what_the_patterns_say(
        patterns in prop::collection::vec(topic(), 0..12),
        published in prop::collection::vec(topic(), 1..12),
        gone: u16,
    ) {
        let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(SubscriptionQueues::new(50)));
        let patterns: Vec<TopicPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let listen = |(id, pattern): (usize, &TopicPattern)| {
            topics.subscribe(PublisherKind::Peers, pattern.clone(), &backlogs, id as u32)
        };
        let mut listening: Vec<TopicSubscription> = patterns.iter().enumerate().map(listen).collect();
        listening.retain(|listening| gone >> listening.subscriber.id & 1 == 0);
        for topic in published.iter().filter_map(|text| text.parse::<Topic>().ok()) {
            topics.deliver_peer(OWNER, &topic, &Bytes::new());
            for (id, pattern) in patterns.iter().enumerate() {
                let expected = gone >> id & 1 == 0 && pattern.matches(&topic);
                prop_assert_eq!(backlogs.pop(id as u32).is_some(), expected, "{} under {}", &topic, pattern);
            }
        }
        drop(listening);
        prop_assert!(is_empty(&topics));
    }
}
