//! Snapshots of the state.

use protocol::Address;
use serde::{Deserialize, Serialize};

use crate::{
    role::Role,
    scope::{Scope, Subject},
    state::{Channel, InForce, State},
};

/// All acts in force, in a form for files and stores. [`State::from`] restores the state without the entries before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// The version of this form: [`Snapshot::VERSION`]. Others are an error.
    #[serde(deserialize_with = "known_version")]
    version: u32,
    sequence: u64,
    bans: Vec<Ban>,
    mutes: Vec<Mute>,
    roles: Vec<Grant>,
}

impl Snapshot {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

fn known_version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    match version == Snapshot::VERSION {
        true => Ok(version),
        false => Err(serde::de::Error::custom(format!("unknown version {version} of the snapshot"))),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ban {
    subject: Subject,
    scope: Scope,
    #[serde(flatten)]
    in_force: InForce,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mute {
    wallet: Address,
    scope: Scope,
    channel: Channel,
    #[serde(flatten)]
    in_force: InForce,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    wallet: Address,
    role: Role,
    #[serde(flatten)]
    in_force: InForce,
}

impl From<&State> for Snapshot {
    fn from(state: &State) -> Self {
        let bans = state.bans.iter().map(|((subject, scope), in_force)| Ban {
            subject: *subject,
            scope: scope.clone(),
            in_force: in_force.clone(),
        });
        let mutes = state.mutes.iter().map(|((wallet, scope, channel), in_force)| Mute {
            wallet: *wallet,
            scope: scope.clone(),
            channel: *channel,
            in_force: in_force.clone(),
        });
        let roles = state.roles.iter().map(|((wallet, role), in_force)| Grant {
            wallet: *wallet,
            role: role.clone(),
            in_force: in_force.clone(),
        });
        Self {
            version: Self::VERSION,
            sequence: state.sequence,
            bans: bans.collect(),
            mutes: mutes.collect(),
            roles: roles.collect(),
        }
    }
}

impl From<Snapshot> for State {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { sequence, bans, mutes, roles, .. } = snapshot;
        Self {
            sequence,
            bans: bans.into_iter().map(|ban| ((ban.subject, ban.scope), ban.in_force)).collect(),
            mutes: mutes
                .into_iter()
                .map(|mute| ((mute.wallet, mute.scope, mute.channel), mute.in_force))
                .collect(),
            roles: roles.into_iter().map(|grant| ((grant.wallet, grant.role), grant.in_force)).collect(),
        }
    }
}
