//! Tests of subscriptions and their streams.

use super::*;

const ME: Address = Address::new([1; 20]);
const OTHER: Address = Address::new([2; 20]);

fn subscriptions() -> Subscriptions {
    Subscriptions::new(Arc::default(), 2, 50)
}

#[test]
fn foreign_mailbox_and_system_peer_topic_are_rejected() {
    use PublisherKind::{Peers, System};
    let mut own = subscriptions();
    let theirs = Err(SubscriptionError::ForeignMailbox);
    for publisher in [Peers, System] {
        assert_eq!(own.subscribe(ME, publisher, &format!("{OTHER}.offer"), Some(1)), theirs);
        assert_eq!(own.subscribe(ME, publisher, &format!("{OTHER}.island_changed"), Some(1)), theirs);
    }
    for topic in ["peer", "peer.*.chat", &format!("peer.{OTHER}.chat")] {
        let refused = own.subscribe(ME, System, topic, Some(1));
        assert_eq!(refused, Err(TopicError::NotASystemTopic.into()), "{topic}");
    }
    assert!(own.subscribe(ME, Peers, "a.>", Some(1)).is_err());
    assert_eq!(own.subscribe(ME, Peers, &format!("{ME}.*"), Some(1)), Ok(1));
    assert_eq!(own.subscribe(ME, System, "*.*", None), Ok(2));
    assert_eq!(own.subscribe(ME, Peers, "one.more", Some(3)), Err(SubscriptionError::TooMany));
}

#[test]
fn subscription_without_stream_lasts_until_cancelled() {
    use PublisherKind::{Peers, System};
    let mut own = subscriptions();
    let id = own.subscribe(ME, Peers, "plaza", None).unwrap();
    let topics = own.topics.clone();
    let publish = |text: &'static str| topics.deliver_peer(OTHER, &"plaza".parse().unwrap(), &text.into());
    publish("before the stream is attached");
    assert_eq!(own.attach_stream(System, id, 7), Err(SubscriptionError::Unknown));
    assert_eq!(own.attach_stream(Peers, id, 7), Ok(()));
    assert_eq!(own.attach_stream(Peers, id, 8), Err(SubscriptionError::StreamOpen));
    assert!(own.pop(7).is_some() && own.pop(7).is_none());
    own.stream_ended(7);
    publish("between two streams");
    assert_eq!(own.attach_stream(Peers, id, 9), Ok(()));
    assert!(own.pop(9).is_some());
    assert_eq!(own.cancel(System, id), (false, None));
    assert_eq!(own.cancel(Peers, id), (true, Some(9)));
    assert_eq!(own.cancel(Peers, id), (false, None));
    assert!(own.pop(9).is_none() && own.by_id.is_empty() && own.streams.is_empty());
}

#[test]
fn newest_island_change_is_kept_until_requested() {
    let mut own = subscriptions();
    let change = |conn_str: &str| -> Bytes {
        IslandChangedMessage { conn_str: conn_str.to_owned(), ..Default::default() }.encode_to_vec().into()
    };
    own.island_changed(&change("offline:1"));
    own.subscribe_commands(1).unwrap();
    assert_eq!(own.pop(1), Some(encode_world_command(&change("offline:1"))));
    own.island_changed(&change("offline:2"));
    own.island_changed(&change("offline:3"));
    let topic = format!("{ME}.island_changed");
    own.subscribe(ME, PublisherKind::System, &topic, Some(2)).unwrap();
    assert_eq!(own.pop(2), None, "another stream received it");
    assert_eq!(own.pop(1), Some(encode_world_command(&change("offline:3"))));
    assert_eq!(own.pop(1), None);
    own.island_changed(&change("offline:4"));
    let received = SystemTopicSubscriptionResultElem::decode(own.pop(2).unwrap()).unwrap();
    assert_eq!((received.topic, received.payload), (topic, change("offline:4")));
}

#[test]
fn missed_count_is_a_field_of_the_element() {
    let element = SystemTopicSubscriptionResultElem { topic: "a".into(), ..Default::default() };
    let bytes = append_missed(element.encode_to_vec().into(), 3);
    let expected = SystemTopicSubscriptionResultElem { missed: 3, ..element };
    assert_eq!(SystemTopicSubscriptionResultElem::decode(bytes).unwrap(), expected);
}
