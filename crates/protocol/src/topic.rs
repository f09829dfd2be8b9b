//! Topics: the addresses under which clients and servers publish to clients, and the patterns with which
//! clients subscribe.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::Address;

/// The address of a message: dot-separated segments, none of them empty, of printable characters other than
/// the space, `*` and `>`; at most 256 bytes and 16 segments. Cheap to clone.
///
/// A topic that begins with an address is the mailbox of that address: every client may publish to it, and
/// only its owner may subscribe. Parsing converts the address to lower case. A topic that begins with the
/// segment `messageBus` is a [`SceneTopic`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Topic(Arc<str>);

/// A topic on which only servers publish: it does not begin with `peer`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SystemTopic(Topic);

/// A topic of one scene, `messageBus.scene.<scene>.<topic>`, on which clients in the scene and the servers of
/// its owner exchange messages. `<scene>` is the id of the scene, percent-encoded except for letters, digits,
/// `-` and `_`; parsing normalizes the encoding, so that each topic has one spelling. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SceneTopic(Topic);

/// The pattern of a subscription: a topic in which a segment `*` matches any one segment, but never the
/// address of a mailbox.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern(Arc<str>);

/// The error of parsing a topic or a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The text is empty, or a segment is.
    #[error("a topic has no empty segment")]
    EmptySegment,
    /// More than 256 bytes.
    #[error("a topic has at most {MAX_TOPIC_BYTES} bytes")]
    TooLong,
    /// More than 16 segments.
    #[error("a topic has at most {MAX_SEGMENTS} segments")]
    TooDeep,
    /// A space, a control character, a `>`, or a `*` where none is allowed.
    #[error("a topic has only printable characters, without space, '*' and '>'")]
    Character,
    /// A system topic that begins with `peer`.
    #[error("a system topic does not begin with peer")]
    NotASystemTopic,
    /// A topic that begins with `messageBus` and is no topic of a scene.
    #[error("a scene's topic is messageBus.scene.<scene>.<topic>, with the scene percent-encoded")]
    NotASceneTopic,
}

const MAX_TOPIC_BYTES: usize = 256;
/// The limit of segments, far above that of any topic in use. Every segment costs memory and time in each
/// subscription to the topic.
const MAX_SEGMENTS: usize = 16;
/// The first segment of the topics of peers on the bus, behind `client-proto.`.
const PEER_SEGMENT: &str = "peer";
/// The first segment of the topics of scenes.
const MESSAGE_BUS_SEGMENT: &str = "messageBus";
/// The prefix of the topics of scenes.
const SCENE_PREFIX: &str = "messageBus.scene.";
/// The characters that are percent-encoded in the id of a scene.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

impl Topic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The owner of the mailbox, if the topic is one.
    pub fn mailbox(&self) -> Option<Address> {
        mailbox_owner(&self.0)
    }
}

impl SceneTopic {
    /// The topic `topic` of a scene.
    ///
    /// # Errors
    /// [`TopicError::EmptySegment`] if the id of the scene is empty, [`TopicError::TooLong`] or
    /// [`TopicError::TooDeep`] if the whole exceeds a limit of topics.
    pub fn new(scene: &str, topic: &Topic) -> Result<Self, TopicError> {
        format!("{SCENE_PREFIX}{}.{topic}", utf8_percent_encode(scene, ENCODED)).parse()
    }

    /// The id of the scene, decoded.
    pub fn scene(&self) -> Cow<'_, str> {
        percent_decode_str(scene_and_rest(self.0.as_str()).unwrap_or_default().0).decode_utf8_lossy()
    }

    /// The whole topic, including its prefix.
    pub fn topic(&self) -> &Topic {
        &self.0
    }
}

impl SystemTopic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The whole topic, including its prefix.
    pub fn topic(&self) -> &Topic {
        &self.0
    }
}

impl TopicPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The owner of the mailbox that the pattern subscribes to, if it does.
    pub fn mailbox(&self) -> Option<Address> {
        mailbox_owner(&self.0)
    }

    /// Whether the pattern can match a system topic.
    pub fn can_match_system_topics(&self) -> bool {
        first_segment(&self.0) != PEER_SEGMENT
    }

    /// Whether the pattern matches a topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.mailbox() == topic.mailbox() && crate::subject::matches(&self.0, &topic.0)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let topic = checked(text, |_| false)?;
        let whole = scene_and_rest(&topic).is_some_and(|(_, rest)| !rest.is_empty());
        if first_segment(&topic) == MESSAGE_BUS_SEGMENT && !whole {
            return Err(TopicError::NotASceneTopic);
        }
        Ok(Self(topic))
    }
}

impl TryFrom<Topic> for SceneTopic {
    /// The topic, which is not a scene's.
    type Error = Topic;

    fn try_from(topic: Topic) -> Result<Self, Topic> {
        // Parsing a `Topic` rejects every other text with this first segment.
        if first_segment(&topic.0) == MESSAGE_BUS_SEGMENT { Ok(Self(topic)) } else { Err(topic) }
    }
}

impl FromStr for SceneTopic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::try_from(text.parse::<Topic>()?).map_err(|_| TopicError::NotASceneTopic)
    }
}

impl FromStr for SystemTopic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let topic: Topic = text.parse()?;
        if first_segment(&topic.0) == PEER_SEGMENT {
            return Err(TopicError::NotASystemTopic);
        }
        Ok(Self(topic))
    }
}

impl FromStr for TopicPattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        checked(text, |segment| segment == "*").map(Self)
    }
}

/// Checks and normalizes a topic or pattern. Segments for which `is_wildcard` holds need not be printable
/// characters of a topic.
fn checked(text: &str, is_wildcard: impl Fn(&str) -> bool) -> Result<Arc<str>, TopicError> {
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong);
    }
    for (index, segment) in text.split('.').enumerate() {
        if segment.is_empty() {
            return Err(TopicError::EmptySegment);
        }
        if index == MAX_SEGMENTS {
            return Err(TopicError::TooDeep);
        }
        if !is_wildcard(segment) && !segment.chars().all(is_printable) {
            return Err(TopicError::Character);
        }
    }
    if let Some(owner) = mailbox_owner(text) {
        return Ok(format!("{owner}{}", &text[first_segment(text).len()..]).into());
    }
    match scene_and_rest(text) {
        Some((scene, rest)) if !is_wildcard(scene) => {
            let id = percent_decode_str(scene).decode_utf8().map_err(|_| TopicError::NotASceneTopic)?;
            let normalized = format!("{SCENE_PREFIX}{}{rest}", utf8_percent_encode(&id, ENCODED));
            // The normalized encoding may be longer than the input.
            if normalized.len() > MAX_TOPIC_BYTES { Err(TopicError::TooLong) } else { Ok(normalized.into()) }
        }
        _ => Ok(text.into()),
    }
}

/// Splits the topic of a scene into the encoded id of the scene and the rest, which begins with a dot or is
/// empty.
fn scene_and_rest(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix(SCENE_PREFIX)?;
    Some(rest.split_at(rest.find('.').unwrap_or(rest.len())))
}

fn is_printable(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && c != '*' && c != '>'
}

fn first_segment(text: &str) -> &str {
    text.split('.').next().unwrap_or_default()
}

fn mailbox_owner(text: &str) -> Option<Address> {
    first_segment(text).parse().ok()
}

impl fmt::Display for SceneTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SceneTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! printed {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

printed!(Topic, SystemTopic, TopicPattern);

#[cfg(test)]
mod tests;
