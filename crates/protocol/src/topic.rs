//! Topics: what clients and servers say things under, and what clients listen to.

use std::{fmt, str::FromStr, sync::Arc};

use crate::Address;

/// What a message is published under: dot-separated segments, none of them empty, of printable
/// characters other than the space, `*` and `>`; at most 256 bytes. Cheap to clone.
///
/// A topic whose first segment is an address, which is written in lower case, is the mailbox of
/// that address: anyone may publish to it, and only its owner listen.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Topic(Arc<str>);

/// A topic that servers alone publish under: it does not begin with `peer`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SystemTopic(Topic);

/// What is listened to: a topic, in which `*` alone stands for any one segment, but never for the
/// address of a mailbox.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern(Arc<str>);

/// Why a text is not a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing, or nothing between two dots.
    #[error("a topic has no empty segment")]
    EmptySegment,
    /// More than 256 bytes.
    #[error("a topic has at most {MAX_TOPIC_BYTES} bytes")]
    TooLong,
    /// A space, a control character, `>`, or a `*` that is not allowed there.
    #[error("a topic has only printable characters, without space, '*' and '>'")]
    Character,
    /// A system topic that begins with `peer`.
    #[error("a system topic does not begin with peer")]
    NotOfTheSystem,
}

const MAX_TOPIC_BYTES: usize = 256;
/// The first segment of what peers say, on the bus.
const PEER_SEGMENT: &str = "peer";

impl Topic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose mailbox it is, if it is one.
    pub fn mailbox(&self) -> Option<Address> {
        mailbox(&self.0)
    }
}

impl SystemTopic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The topic that it is.
    pub fn topic(&self) -> &Topic {
        &self.0
    }
}

impl TopicPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose mailbox it listens to, if it does.
    pub fn mailbox(&self) -> Option<Address> {
        mailbox(&self.0)
    }

    /// Whether a system topic can fall under it.
    pub fn is_of_the_system(&self) -> bool {
        first(&self.0) != PEER_SEGMENT
    }

    /// Whether a topic falls under it.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.mailbox() == topic.mailbox() && crate::subject::matches(&self.0, &topic.0)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        checked(text, |_| false).map(Self)
    }
}

impl FromStr for SystemTopic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let topic: Topic = text.parse()?;
        if first(&topic.0) == PEER_SEGMENT {
            return Err(TopicError::NotOfTheSystem);
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

/// The text in its one spelling, if it is a topic, or its segments are `besides`.
fn checked(text: &str, besides: impl Fn(&str) -> bool) -> Result<Arc<str>, TopicError> {
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong);
    }
    for segment in text.split('.') {
        if segment.is_empty() {
            return Err(TopicError::EmptySegment);
        }
        if !besides(segment) && !segment.chars().all(is_printable) {
            return Err(TopicError::Character);
        }
    }
    Ok(match mailbox(text) {
        Some(owner) => format!("{owner}{}", &text[first(text).len()..]).into(),
        None => text.into(),
    })
}

fn is_printable(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && c != '*' && c != '>'
}

fn first(text: &str) -> &str {
    text.split('.').next().unwrap_or_default()
}

fn mailbox(text: &str) -> Option<Address> {
    first(text).parse().ok()
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
