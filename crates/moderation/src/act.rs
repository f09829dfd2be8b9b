//! Acts and journal entries.

use protocol::Address;
use serde::{Deserialize, Serialize};

use crate::{
    role::Role,
    scope::{Scope, Subject},
};

/// An act of moderation. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Act {
    /// Refuses a wallet or a network: its sessions end and it may not sign in; in a scene, it is kept out of the scene's
    /// islands.
    Ban {
        /// The wallet or network.
        subject: Subject,
        /// Where it is refused. A network can be banned in the realm only.
        scope: Scope,
        /// When the ban ends; `None`: when it is lifted.
        until_ms: Option<u64>,
    },
    /// Lifts a ban.
    Unban {
        /// The wallet or network.
        subject: Subject,
        /// The scope of the ban.
        scope: Scope,
    },
    /// Ends the session of a wallet. It may sign in again.
    Kick {
        /// The wallet.
        wallet: Address,
        /// The scope in which the actor acts.
        scope: Scope,
    },
    /// Stops a wallet from publishing.
    Mute {
        /// The wallet.
        wallet: Address,
        /// Where it is muted.
        scope: Scope,
        /// The channels on which it may not publish.
        channels: Channels,
        /// When the mute ends; `None`: when it is lifted.
        until_ms: Option<u64>,
    },
    /// Lifts the mute of some channels.
    Unmute {
        /// The wallet.
        wallet: Address,
        /// The scope of the mute.
        scope: Scope,
        /// The channels that it may publish again.
        channels: Channels,
    },
    /// Sends a wallet a warning, which is the reason of the entry.
    Warn {
        /// The wallet.
        wallet: Address,
        /// The scope in which the actor acts.
        scope: Scope,
    },
    /// Grants a role.
    GrantRole {
        /// The wallet.
        wallet: Address,
        /// The role.
        role: Role,
    },
    /// Revokes a role.
    RevokeRole {
        /// The wallet.
        wallet: Address,
        /// The role.
        role: Role,
    },
}

/// The channels of a mute. At least one is true in a valid act.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channels {
    /// Sound.
    #[serde(default)]
    pub voice: bool,
    /// Chat messages.
    #[serde(default)]
    pub chat: bool,
}

impl Channels {
    /// Those of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { voice: self.voice || other.voice, chat: self.chat || other.chat }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        !self.voice && !self.chat
    }
}

/// The author of an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// An operator: the name of the token, or of the socket on the machine itself.
    Operator(String),
    /// A wallet with a role.
    Wallet(Address),
}

/// An act in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Grows by 1 with each entry. The first is 1.
    pub sequence: u64,
    /// When the writer accepted it.
    pub at_ms: u64,
    /// Its author.
    pub actor: Actor,
    /// The act.
    #[serde(flatten)]
    pub act: Act,
    /// For the audit, and for the peer that the act concerns.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 1_000;
/// The largest network that can be banned, as the length of its prefix.
pub const MIN_PREFIX: (u8, u8) = (8, 16);

/// An act that no author may add to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAct {
    /// The reason is too long.
    #[error("the reason is longer than {MAX_REASON_BYTES} bytes")]
    Reason,
    /// A network in a scene.
    #[error("a network can be banned in the realm only")]
    NetworkInScene,
    /// The network is too large.
    #[error("an IPv4 network has a prefix of at least 8 bits, an IPv6 network one of 16")]
    LargeNetwork,
    /// No channel.
    #[error("a mute names voice, chat or both")]
    NoChannel,
    /// It would have ended before it begins.
    #[error("the end is not after the beginning")]
    Ended,
    /// A warning without a text.
    #[error("a warning has a reason")]
    NoReason,
}

impl Act {
    /// Whether the act may be in the journal at `at_ms`, for this reason.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn validate(&self, reason: &str, at_ms: u64) -> Result<(), InvalidAct> {
        if reason.len() > MAX_REASON_BYTES {
            return Err(InvalidAct::Reason);
        }
        match self {
            Self::Ban { subject, scope, .. } => validate_ban(subject, scope)?,
            Self::Mute { channels, .. } | Self::Unmute { channels, .. } if channels.is_empty() => {
                return Err(InvalidAct::NoChannel);
            }
            Self::Warn { .. } if reason.is_empty() => return Err(InvalidAct::NoReason),
            _ => {}
        }
        match self {
            Self::Ban { until_ms: Some(until_ms), .. } | Self::Mute { until_ms: Some(until_ms), .. }
                if *until_ms <= at_ms =>
            {
                Err(InvalidAct::Ended)
            }
            _ => Ok(()),
        }
    }
}

fn validate_ban(subject: &Subject, scope: &Scope) -> Result<(), InvalidAct> {
    let Subject::Network(network) = subject else { return Ok(()) };
    if *scope != Scope::Realm {
        return Err(InvalidAct::NetworkInScene);
    }
    let min = if network.addr().is_ipv4() { MIN_PREFIX.0 } else { MIN_PREFIX.1 };
    if network.prefix_len() < min { Err(InvalidAct::LargeNetwork) } else { Ok(()) }
}
