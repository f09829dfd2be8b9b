//! The acts in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use protocol::Address;

use crate::{
    act::{Act, Actor, Channels, Entry},
    effect::Effect,
    role::Role,
    scope::{SceneName, Scope, Subject},
};

/// The state that a journal produces: the acts in force, at the time of the last entry or of the last [`State::expire`].
///
/// Memory grows with the acts in force only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The sequence of the last entry; 0 before the first.
    pub(crate) sequence: u64,
    pub(crate) bans: BTreeMap<(Subject, Scope), InForce>,
    pub(crate) mutes: BTreeMap<(Address, Scope, Channel), InForce>,
    pub(crate) roles: BTreeMap<(Address, Role), InForce>,
}

/// One of [`Channels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Sound.
    Voice,
    /// Chat messages.
    Chat,
}

/// An act in force.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    /// The sequence of its entry.
    pub sequence: u64,
    /// When it began.
    pub at_ms: u64,
    /// Its author.
    pub actor: Actor,
    /// Its reason; empty if none was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it ends; `None`: when it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// An entry is missing between the last one and this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {found} follows entry {last}: entries between them are missing")]
pub struct GapError {
    /// The last entry that was applied.
    pub last: u64,
    /// The entry that was not.
    pub found: u64,
}

impl State {
    /// The sequence of the last entry; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Applies the next entry, and returns its effects. An entry that was applied before has none. Acts that end are
    /// not in force from [`Self::expire`] on.
    ///
    /// # Errors
    /// Entries before this one are missing. The state is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<Vec<Effect>, GapError> {
        if entry.sequence <= self.sequence {
            return Ok(Vec::new());
        }
        if entry.sequence != self.sequence + 1 {
            return Err(GapError { last: self.sequence, found: entry.sequence });
        }
        self.sequence = entry.sequence;
        let in_force = |until_ms| InForce {
            sequence: entry.sequence,
            at_ms: entry.at_ms,
            actor: entry.actor.clone(),
            reason: entry.reason.clone(),
            until_ms,
        };
        let effect = match &entry.act {
            Act::Ban { subject, scope, until_ms } => {
                self.bans.insert((*subject, scope.clone()), in_force(*until_ms));
                Some(Effect::Banned { subject: *subject, scope: scope.clone() })
            }
            Act::Unban { subject, scope } => {
                let was_banned = self.bans.remove(&(*subject, scope.clone())).is_some();
                was_banned.then(|| Effect::Unbanned { subject: *subject, scope: scope.clone() })
            }
            Act::Kick { wallet, .. } => Some(Effect::Kicked { wallet: *wallet }),
            Act::Mute { wallet, scope, channels, until_ms } => {
                for channel in channels.each() {
                    self.mutes.insert((*wallet, scope.clone(), channel), in_force(*until_ms));
                }
                Some(Effect::MutesChanged { wallet: *wallet })
            }
            Act::Unmute { wallet, scope, channels } => {
                let mut lifted =
                    channels.each().map(|channel| self.mutes.remove(&(*wallet, scope.clone(), channel)));
                let has_lifted = lifted.by_ref().fold(false, |any, lifted| any | lifted.is_some());
                has_lifted.then_some(Effect::MutesChanged { wallet: *wallet })
            }
            Act::Warn { wallet, .. } => Some(Effect::Warned { wallet: *wallet }),
            Act::GrantRole { wallet, role } => {
                let before = self.roles.insert((*wallet, role.clone()), in_force(None));
                before.is_none().then_some(Effect::RolesChanged { wallet: *wallet })
            }
            Act::RevokeRole { wallet, role } => {
                let before = self.roles.remove(&(*wallet, role.clone()));
                before.is_some().then_some(Effect::RolesChanged { wallet: *wallet })
            }
        };
        Ok(effect.into_iter().collect())
    }

    /// Removes the acts that have ended by now, and returns the effects.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Effect> {
        let lasts = |in_force: &InForce| in_force.until_ms.is_none_or(|until_ms| until_ms > now_ms);
        let mut effects = Vec::new();
        self.bans.retain(|(subject, scope), ban| {
            if !lasts(ban) {
                effects.push(Effect::Unbanned { subject: *subject, scope: scope.clone() });
            }
            lasts(ban)
        });
        let mut unmuted = BTreeSet::new();
        self.mutes.retain(|(wallet, ..), mute| {
            if !lasts(mute) {
                unmuted.insert(*wallet);
            }
            lasts(mute)
        });
        effects.extend(unmuted.into_iter().map(|wallet| Effect::MutesChanged { wallet }));
        effects
    }

    /// When the next act ends, for [`Self::expire`].
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.bans.values().chain(self.mutes.values()).filter_map(|in_force| in_force.until_ms).min()
    }

    /// The ban of a wallet in this scope alone: a ban in the realm is not one in each scene.
    pub fn ban(&self, wallet: Address, scope: &Scope) -> Option<&InForce> {
        self.bans.get(&(Subject::Wallet(wallet), scope.clone()))
    }

    /// The ban of a network with this address.
    pub fn network_ban(&self, address: IpAddr) -> Option<&InForce> {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().find_map(|prefix| {
            let network = IpNet::new(address, prefix).ok()?.trunc();
            self.bans.get(&(Subject::Network(network), Scope::Realm))
        })
    }

    /// The scenes in which a wallet is banned.
    pub fn scene_bans(&self, wallet: Address) -> impl Iterator<Item = (&SceneName, &InForce)> {
        let bans = self.bans.range((Subject::Wallet(wallet), Scope::Realm)..);
        let own = bans.take_while(move |((subject, _), _)| *subject == Subject::Wallet(wallet));
        own.filter_map(|((_, scope), ban)| match scope {
            Scope::Scene(scene) => Some((scene, ban)),
            Scope::Realm => None,
        })
    }

    /// The channels on which a wallet is muted in a scene, or outside all scenes: by mutes in the realm and in the scene.
    pub fn muted(&self, wallet: Address, scene: Option<&SceneName>) -> Channels {
        let mut channels = Channels::default();
        for (_, scope, channel) in self.mutes_of(wallet).map(|(key, _)| key) {
            if matches!(scope, Scope::Realm) || matches!(scope, Scope::Scene(name) if Some(name) == scene) {
                channels = channels.union((*channel).into());
            }
        }
        channels
    }

    fn mutes_of(&self, wallet: Address) -> impl Iterator<Item = (&(Address, Scope, Channel), &InForce)> {
        let mutes = self.mutes.range((wallet, Scope::Realm, Channel::Voice)..);
        mutes.take_while(move |((muted, ..), _)| *muted == wallet)
    }

    /// The roles of a wallet.
    pub fn roles(&self, wallet: Address) -> impl Iterator<Item = &Role> {
        let roles = self.roles.range((wallet, Role::RealmAdmin)..);
        roles.map(|(key, _)| key).take_while(move |(holder, _)| *holder == wallet).map(|(_, role)| role)
    }

    /// All bans, by subject and scope.
    pub fn bans(&self) -> impl Iterator<Item = (Subject, &Scope, &InForce)> {
        self.bans.iter().map(|((subject, scope), ban)| (*subject, scope, ban))
    }

    /// Whether the act of an entry is in force, so that a store must keep the entry however old it is.
    pub fn is_in_force(&self, sequence: u64) -> bool {
        let in_force = self.bans.values().chain(self.mutes.values()).chain(self.roles.values());
        in_force.into_iter().any(|act| act.sequence == sequence)
    }
}

impl Channels {
    pub(crate) fn each(self) -> impl Iterator<Item = Channel> {
        [self.voice.then_some(Channel::Voice), self.chat.then_some(Channel::Chat)].into_iter().flatten()
    }
}

impl From<Channel> for Channels {
    fn from(channel: Channel) -> Self {
        Self { voice: channel == Channel::Voice, chat: channel == Channel::Chat }
    }
}
