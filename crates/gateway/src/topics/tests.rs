use proptest::prelude::*;
use protocol::Message;

use super::*;

const OWNER: Address = Address::new([1; 20]);

fn is_empty(topics: &Topics) -> bool {
    [&topics.peers, &topics.system].iter().all(|tree| {
        let root = tree.read().unwrap();
        root.next.is_empty() && root.listeners.is_empty()
    })
}

#[test]
fn what_peers_say_is_heard_with_its_sender_and_not_as_the_systems() {
    let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(Backlogs::new(50)));
    let peers = topics.listen(Publisher::Peers, "plaza.*".parse().unwrap(), &backlogs, 1);
    let system = topics.listen(Publisher::System, "plaza.*".parse().unwrap(), &backlogs, 2);
    topics.heard_peer(OWNER, &"plaza.chat".parse().unwrap(), &"hi".into());
    topics.heard_system(&"plaza.news".parse().unwrap(), &"new".into());
    topics.heard_system(&"casino.news".parse().unwrap(), &"old".into());
    let heard = bff::PeerTopicSubscriptionResultElem::decode(backlogs.pop(1).unwrap().payload).unwrap();
    assert_eq!(
        (heard.sender, &*heard.topic, &heard.payload[..]),
        (OWNER.to_string(), "plaza.chat", &b"hi"[..])
    );
    let heard = bff::SystemTopicSubscriptionResultElem::decode(backlogs.pop(2).unwrap().payload).unwrap();
    assert_eq!((&*heard.topic, &heard.payload[..]), ("plaza.news", &b"new"[..]));
    assert!(backlogs.pop(1).is_none() && backlogs.pop(2).is_none());
    drop((peers, system));
    topics.heard_peer(OWNER, &"plaza.chat".parse().unwrap(), &"hi".into());
    assert!(backlogs.pop(1).is_none() && is_empty(&topics));
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
        let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(Backlogs::new(50)));
        let patterns: Vec<TopicPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let listen = |(id, pattern): (usize, &TopicPattern)| {
            topics.listen(Publisher::Peers, pattern.clone(), &backlogs, id as u32)
        };
        let mut listening: Vec<Listening> = patterns.iter().enumerate().map(listen).collect();
        listening.retain(|listening| gone >> listening.listener.id & 1 == 0);
        for topic in published.iter().filter_map(|text| text.parse::<Topic>().ok()) {
            topics.heard_peer(OWNER, &topic, &Bytes::new());
            for (id, pattern) in patterns.iter().enumerate() {
                let expected = gone >> id & 1 == 0 && pattern.matches(&topic);
                prop_assert_eq!(backlogs.pop(id as u32).is_some(), expected, "{} under {}", &topic, pattern);
            }
        }
        drop(listening);
        prop_assert!(is_empty(&topics));
    }
}
