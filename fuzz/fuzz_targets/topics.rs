//! Topics, patterns, subjects and connection strings: each accepted text is written as it was read, and
//! no topic of a client reaches a subject outside its own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Address, ConnectionString, SceneTopic, Subject, SystemTopic, Topic, TopicPattern, subject};

const ME: Address = Address::new([0xab; 20]);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (listened, said) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(topic) = said.parse::<Topic>() {
        assert_eq!(topic.as_str().parse(), Ok(topic.clone()));
        let (published, start) = match SceneTopic::try_from(topic.clone()) {
            Ok(scene) => {
                // Composing it from its parts gives the same spelling.
                let rest = scene.to_string().splitn(4, '.').nth(3).expect("a topic in the scene").to_owned();
                if let Ok(rest) = rest.parse::<Topic>()
                    && let Ok(again) = SceneTopic::new(&scene.scene(), &rest)
                    && rest.as_str().len() + scene.scene().len() < 80
                {
                    assert_eq!(again.scene(), scene.scene());
                }
                (Subject::SceneTopic(scene), "messageBus.scene.".to_owned())
            }
            Err(topic) => (Subject::PeerTopic(ME, topic), format!("client-proto.peer.{ME}.")),
        };
        let written = published.to_string();
        assert!(written.starts_with(&start));
        assert!(!written.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'));
        assert!(written.split('.').all(|segment| !segment.is_empty()));
        assert_eq!(written.parse(), Ok(published));
        if let Ok(pattern) = listened.parse::<TopicPattern>()
            && pattern.matches(&topic)
        {
            assert_eq!(pattern.mailbox(), topic.mailbox(), "another's mailbox");
        }
    }
    if let Ok(pattern) = listened.parse::<TopicPattern>() {
        assert_eq!(pattern.as_str().parse(), Ok(pattern));
    }
    if let Ok(topic) = said.parse::<SystemTopic>() {
        let written = Subject::SystemTopic(topic).to_string();
        assert!(!subject::matches("client-proto.peer.>", &written));
    }
    if let Ok(subject) = said.parse::<Subject>() {
        assert_eq!(subject.to_string().parse(), Ok(subject));
    }
    if let Ok(connection) = said.parse::<ConnectionString>() {
        assert_eq!(connection.to_string().parse(), Ok(connection));
    }
});
