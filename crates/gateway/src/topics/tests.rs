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

#[test]
fn in_a_scene_servers_are_heard_by_all_and_peers_never_as_servers() {
    let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(Backlogs::new(50)));
    let pattern = || "messageBus.scene.s1.*".parse().unwrap();
    let _peers = topics.listen(Publisher::Peers, pattern(), &backlogs, 1);
    let _system = topics.listen(Publisher::System, pattern(), &backlogs, 2);
    let door = "messageBus.scene.s1.door".parse().unwrap();
    topics.heard_in_scene(Some(OWNER), &door, &"knock".into());
    topics.heard_in_scene(None, &door, &"open".into());
    topics.heard_in_scene(None, &"messageBus.scene.s2.door".parse().unwrap(), &"elsewhere".into());
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
fn what_did_not_get_here_everybody_may_have_missed() {
    let (topics, backlogs) = (Arc::new(Topics::default()), Arc::new(Backlogs::new(50)));
    let _one = topics.listen(Publisher::Peers, "a.b".parse().unwrap(), &backlogs, 1);
    let _two = topics.listen(Publisher::System, "*".parse().unwrap(), &backlogs, 2);
    topics.missed(3);
    topics.heard_peer(OWNER, &"a.b".parse().unwrap(), &Bytes::new());
    topics.heard_system(&"a".parse().unwrap(), &Bytes::new());
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
