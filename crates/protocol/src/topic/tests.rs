//! Tests of topics: limits, mailboxes, and which subjects clients and servers can reach with them.

use proptest::prelude::*;

use super::*;
use crate::{Subject, subject};

const ME: Address = Address::new([0xab; 20]);

fn pattern(text: &str) -> TopicPattern {
    text.parse().unwrap()
}

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

#[test]
fn invalid_topic_is_rejected() {
    use TopicError::{Character, EmptySegment, TooDeep, TooLong};
    for (text, error) in [
        ("", EmptySegment),
        (".a", EmptySegment),
        ("a..b", EmptySegment),
        ("a.", EmptySegment),
        ("a b", Character),
        ("a\r\nPUB peer.x.connect 0\r\n", Character),
        ("a\u{85}b", Character),
        ("a\0", Character),
        ("a.>", Character),
        ("a*", Character),
        (&"x".repeat(257), TooLong),
        (&["x"; 17].join("."), TooDeep),
    ] {
        assert_eq!(text.parse::<Topic>(), Err(error), "{text:?}");
        assert_eq!(text.parse::<TopicPattern>(), Err(error), "{text:?}");
    }
    assert_eq!("a.*".parse::<Topic>(), Err(Character));
    assert_eq!("peer.a".parse::<SystemTopic>(), Err(TopicError::NotASystemTopic));
    assert_eq!("peer".parse::<SystemTopic>(), Err(TopicError::NotASystemTopic));
    for text in ["a", "peers.a", "café.plaza", &"x".repeat(256), &["x"; 16].join(".")] {
        assert_eq!(topic(text).as_str(), text);
        assert!(text.parse::<SystemTopic>().is_ok());
    }
}

#[test]
fn star_matches_one_segment_but_no_mailbox() {
    assert!(pattern("plaza.*").matches(&topic("plaza.chat")));
    assert!(pattern("*.*").matches(&topic("plaza.chat")));
    assert!(!pattern("*").matches(&topic("plaza.chat")));
    let offer = topic(&format!("{}.offer", ME.to_string().to_uppercase().replace("0X", "0x")));
    assert_eq!(offer.as_str(), format!("{ME}.offer"));
    assert_eq!(offer.mailbox(), Some(ME));
    assert!(!pattern("*.offer").matches(&offer));
    let mine = pattern(&format!("{ME}.*"));
    assert_eq!(mine.mailbox(), Some(ME));
    assert!(mine.matches(&offer));
}

#[test]
fn scene_topic_has_one_normalized_text() {
    let chat = topic("door.open");
    let scene = SceneTopic::new("urn:decentraland:a.b", &chat).unwrap();
    assert_eq!(scene.to_string(), "messageBus.scene.urn%3Adecentraland%3Aa%2Eb.door.open");
    assert_eq!(scene.scene(), "urn:decentraland:a.b");
    for other in [
        "messageBus.scene.urn:decentraland:a%2eb.door.open",
        "messageBus.scene.%75rn%3adecentraland%3Aa%2Eb.door.open",
    ] {
        assert_eq!(topic(other), *scene.topic());
        assert_eq!(other.parse(), Ok(scene.clone()));
        assert!(pattern(other).matches(scene.topic()));
    }
    assert!(pattern("messageBus.scene.*.door.*").matches(scene.topic()));
    for other in [
        "messageBus",
        "messageBus.scene",
        "messageBus.scene.a",
        "messageBus.island.I1.peer.x",
        "messageBus.scene.%ff.a",
    ] {
        assert_eq!(other.parse::<Topic>(), Err(TopicError::NotASceneTopic), "{other}");
    }
    assert_eq!("plaza.chat".parse::<SceneTopic>(), Err(TopicError::NotASceneTopic));
    assert_eq!(SceneTopic::new(&":".repeat(90), &chat), Err(TopicError::TooLong));
    assert_eq!(format!("messageBus.scene.{}.a", ":".repeat(90)).parse::<Topic>(), Err(TopicError::TooLong));
}

/// Texts that resemble subjects, and arbitrary text.
fn texts() -> impl Strategy<Value = String> {
    let segments = prop::sample::select(vec![
        "peer",
        "client-proto",
        "engine",
        "atoll",
        "messageBus",
        "scene",
        "%2e",
        "urn:é",
        "island_changed",
        "connect",
        "*",
        ">",
        "",
        "a",
        " ",
        "\r\n",
        "0xABABABABABABABABABABABABABABABABABABABAB",
        "0x0000000000000000000000000000000000000001",
    ]);
    let near = prop::collection::vec(segments, 0..7).prop_map(|segments| segments.join("."));
    prop_oneof![3 => near, 1 => any::<String>(), 1 => "[a-c.*>]{0,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn client_publish_stays_under_its_own_prefix(text in texts()) {
        let Ok(topic) = text.parse::<Topic>() else { return Ok(()) };
        let (published, start) = match SceneTopic::try_from(topic.clone()) {
            Ok(topic) => (Subject::SceneTopic(topic), "messageBus.scene.".to_owned()),
            Err(topic) => (Subject::PeerTopic(ME, topic), format!("client-proto.peer.{ME}.")),
        };
        let written = published.to_string();
        prop_assert!(written.starts_with(&start));
        prop_assert!(!written.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'));
        prop_assert!(written.split('.').all(|segment| !segment.is_empty()));
        prop_assert_eq!(written.parse(), Ok(published));
        prop_assert_eq!(topic.as_str().parse(), Ok(topic));
        for forbidden in ["peer.>", "island.>", "engine.>", "atoll.>", "messageBus.island.>"] {
            prop_assert!(!subject::matches(forbidden, &written));
        }
    }

    #[test]
    fn system_topic_never_uses_the_peer_prefix(text in texts()) {
        if let Ok(topic) = text.parse::<SystemTopic>() {
            let published = Subject::SystemTopic(topic);
            let written = published.to_string();
            prop_assert!(!subject::matches("client-proto.peer.>", &written) && written != "client-proto.peer");
            prop_assert_eq!(written.parse(), Ok(published));
        }
    }

    #[test]
    fn pattern_never_matches_another_mailbox(pattern_text in texts(), topic_text in texts()) {
        let (Ok(pattern), Ok(topic)) = (pattern_text.parse::<TopicPattern>(), topic_text.parse::<Topic>()) else {
            return Ok(());
        };
        if pattern.mailbox() != topic.mailbox() {
            prop_assert!(!pattern.matches(&topic));
        }
        prop_assert_eq!(pattern.as_str().parse(), Ok(pattern));
    }
}
