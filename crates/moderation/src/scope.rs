//! Scopes and subjects of acts.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use protocol::Address;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Where an act applies. Its text is `realm` or `scene:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Realm,
    /// In the zones of one scene of the rules.
    Scene(SceneName),
}

/// The name of a scene: 1 to 64 characters, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SceneName(String);

/// The subject of a ban. Its text is an address, or a network such as `203.0.113.0/24`; a single IP address is the network
/// of its full length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A wallet.
    Wallet(Address),
    /// All addresses of a network.
    Network(IpNet),
}

/// A text that is no scope, scene name, subject or role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Not a scope.
    #[error("a scope is `realm` or `scene:<name>`")]
    Scope,
    /// Not the name of a scene.
    #[error("the name of a scene has 1 to 64 characters, and no control characters")]
    SceneName,
    /// Not a role.
    #[error("a role is realm-admin, realm-moderator, scene-owner:<scene> or scene-moderator:<scene>")]
    Role,
    /// Not a subject.
    #[error("a subject is a wallet address, an IP address or a network such as 203.0.113.0/24")]
    Subject,
}

const MAX_NAME_CHARS: usize = 64;

impl SceneName {
    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SceneName {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let is_valid =
            (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if is_valid { Ok(Self(text.to_owned())) } else { Err(ScopeError::SceneName) }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text.split_once(':') {
            None if text == "realm" => Ok(Self::Realm),
            Some(("scene", name)) => name.parse().map(Self::Scene),
            _ => Err(ScopeError::Scope),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Realm => f.write_str("realm"),
            Self::Scene(name) => write!(f, "scene:{}", name.0),
        }
    }
}

impl FromStr for Subject {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Wallet(address));
        }
        let network: Option<IpNet> =
            text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        // Two texts of one network are one subject. An IPv4-mapped address is IPv4, as in all limits.
        network.map(|network| Self::Network(canonical(network.trunc()))).ok_or(ScopeError::Subject)
    }
}

fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            let v4 = v6.addr().to_ipv4_mapped();
            let v4 = v4.and_then(|v4| IpNet::new(v4.into(), v6.prefix_len() - 96).ok());
            v4.unwrap_or(network)
        }
        _ => network,
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wallet(address) => address.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// Serializes a type as its text.
macro_rules! serde_as_text {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

serde_as_text!(Scope);
serde_as_text!(Subject);
pub(crate) use serde_as_text;
