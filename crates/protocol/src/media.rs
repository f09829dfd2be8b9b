//! The media that the members of an island may publish.

use std::{fmt, str::FromStr};

/// The media that the members of an island may publish to its room, besides data. Only transports that carry
/// media of clients enforce it. By default all members may use their microphone, and none a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MediaGrants {
    /// The members that may publish sound.
    pub voice: Voice,
    /// Whether the members may publish their camera.
    pub video: bool,
}

/// The members of an island that may publish sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Voice {
    /// All members.
    #[default]
    Everyone,
    /// No member.
    None,
}

/// A text is not the name of a [`Voice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"everyone\" or \"none\"")]
pub struct VoiceError;

impl Voice {
    /// Its name in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Voice {
    type Err = VoiceError;

    fn from_str(text: &str) -> Result<Self, VoiceError> {
        [Self::Everyone, Self::None].into_iter().find(|voice| voice.as_str() == text).ok_or(VoiceError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voice_is_parsed_as_it_is_printed() {
        for voice in [Voice::Everyone, Voice::None] {
            assert_eq!(voice.to_string().parse(), Ok(voice));
        }
        for text in ["", "Everyone", "nobody", "none "] {
            assert_eq!(text.parse::<Voice>(), Err(VoiceError), "{text:?}");
        }
        assert_eq!(MediaGrants::default(), MediaGrants { voice: Voice::Everyone, video: false });
    }
}
