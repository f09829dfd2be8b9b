//! Names of rooms, and patterns that match them.

use std::{fmt, str::FromStr, sync::Arc};

use crate::IslandId;

/// The name of a room: the id of an island, or a name from the configuration, which may contain dots
/// (`<name>.dcl.eth`). Never part of a bus subject. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Arc<str>);

/// The error of parsing a [`RoomName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {max} characters of A-Z, a-z, 0-9, '-', '_' and '.', without a '.' at either end or behind another",
    max = MAX_NAME_CHARS
)]
pub struct RoomNameError;

/// A pattern of room names: a name, or a prefix followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPattern(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Name(RoomName),
    Prefix(Box<str>),
}

/// The error of parsing a [`RoomPattern`]: no room could match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room can have such a name: a name, or its beginning followed by '*', {0}")]
pub struct RoomPatternError(RoomNameError);

/// The name of the room of a scene in a world contains both names, and the id of a scene alone has 59
/// characters.
const MAX_NAME_CHARS: usize = 128;

impl RoomName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&IslandId> for RoomName {
    fn from(island: &IslandId) -> Self {
        Self(island.as_str().into())
    }
}

impl FromStr for RoomName {
    type Err = RoomNameError;

    fn from_str(text: &str) -> Result<Self, RoomNameError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        // No empty segments: clients and proxies rewrite URLs with "." and "..", so these must not be names.
        let segment = |segment: &str| !segment.is_empty() && segment.bytes().all(plain);
        let fits = text.len() <= MAX_NAME_CHARS && text.split('.').all(segment);
        if fits { Ok(Self(text.into())) } else { Err(RoomNameError) }
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl RoomPattern {
    /// Whether the pattern matches the name of a room.
    pub fn matches(&self, room: &RoomName) -> bool {
        match &self.0 {
            Pattern::Name(name) => name == room,
            Pattern::Prefix(prefix) => room.as_str().starts_with(&**prefix),
        }
    }
}

impl FromStr for RoomPattern {
    type Err = RoomPatternError;

    fn from_str(text: &str) -> Result<Self, RoomPatternError> {
        let name = |text: &str| text.parse::<RoomName>().map_err(RoomPatternError);
        let Some(prefix) = text.strip_suffix('*') else { return Ok(Self(Pattern::Name(name(text)?))) };
        // A prefix that is shorter than the limit is valid if the prefix with one more letter is a name.
        if prefix.len() < MAX_NAME_CHARS {
            name(&format!("{prefix}x"))?;
        } else {
            name(prefix)?;
        }
        Ok(Self(Pattern::Prefix(prefix.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_may_have_dots_between_segments() {
        let long = "x".repeat(MAX_NAME_CHARS);
        for name in ["I1", "lobby", "name.dcl.eth", "world-prd-scene-room-name.dcl.eth-bafkrei", &long] {
            assert_eq!(name.parse::<RoomName>().unwrap().as_str(), name);
        }
        let longer = format!("{long}x");
        for text in ["", ".", "..", ".eth", "name.", "a..b", "a b", "a/b", "a*", "a>", "é", "a\n", &longer] {
            assert_eq!(text.parse::<RoomName>(), Err(RoomNameError), "{text:?}");
        }
        assert_eq!(RoomName::from(&"I1".parse().unwrap()), "I1".parse().unwrap());
    }

    #[test]
    fn pattern_matches_a_name_or_its_prefix() {
        let matches = |pattern: &str, room: &str| {
            pattern.parse::<RoomPattern>().unwrap().matches(&room.parse().unwrap())
        };
        assert!(matches("name.dcl.eth", "name.dcl.eth") && !matches("name.dcl.eth", "name.dcl.ethx"));
        assert!(matches("world-*", "world-name.dcl.eth") && matches("name.*", "name.dcl.eth"));
        assert!(matches("*", "lobby") && matches("lobby*", "lobby") && !matches("lobby*", "lobb"));
    }

    #[test]
    fn pattern_that_no_room_matches_is_an_error() {
        let long = "x".repeat(MAX_NAME_CHARS);
        assert!(format!("{long}*").parse::<RoomPattern>().is_ok());
        for text in ["", "a b", "*.dcl.eth", "a..b", "a..*", ".*", "a*b*", "a/*", &format!("{long}x*")] {
            assert_eq!(text.parse::<RoomPattern>(), Err(RoomPatternError(RoomNameError)), "{text:?}");
        }
    }
}
