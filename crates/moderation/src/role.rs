//! Roles.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::scope::{SceneName, ScopeError, serde_as_text};

/// The role of a wallet. Its text is `realm-admin`, `realm-moderator`, `scene-owner:<scene>` or `scene-moderator:<scene>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May do everything.
    RealmAdmin,
    /// May ban, kick, mute and warn everywhere.
    RealmModerator,
    /// May ban, kick, mute and warn in one scene, and appoint its moderators.
    SceneOwner(SceneName),
    /// May ban, kick, mute and warn in one scene.
    SceneModerator(SceneName),
}

impl FromStr for Role {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text.split_once(':') {
            None if text == "realm-admin" => Ok(Self::RealmAdmin),
            None if text == "realm-moderator" => Ok(Self::RealmModerator),
            Some(("scene-owner", scene)) => scene.parse().map(Self::SceneOwner),
            Some(("scene-moderator", scene)) => scene.parse().map(Self::SceneModerator),
            _ => Err(ScopeError::Role),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RealmAdmin => f.write_str("realm-admin"),
            Self::RealmModerator => f.write_str("realm-moderator"),
            Self::SceneOwner(scene) => write!(f, "scene-owner:{}", scene.as_str()),
            Self::SceneModerator(scene) => write!(f, "scene-moderator:{}", scene.as_str()),
        }
    }
}

serde_as_text!(Role);
