//! The acts that roles permit.

use protocol::Address;

use crate::{
    act::{Act, Actor},
    role::Role,
    scope::{SceneName, Scope, Subject},
    state::State,
};

/// Why an author may not perform an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The author has no role for this scope.
    #[error("no role of this wallet permits the act in this scope")]
    NoRole,
    /// The rank of the subject is not below that of the author.
    #[error("the subject has a role that protects it from this author")]
    Protected,
}

/// The power of a wallet in a scope. A wallet may act upon wallets with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    None,
    SceneModerator,
    SceneOwner,
    RealmModerator,
    RealmAdmin,
}

impl Role {
    fn rank_in(&self, scope: &Scope) -> Rank {
        let is_here = |scene: &SceneName| matches!(scope, Scope::Scene(name) if name == scene);
        match self {
            Self::RealmAdmin => Rank::RealmAdmin,
            Self::RealmModerator => Rank::RealmModerator,
            Self::SceneOwner(scene) if is_here(scene) => Rank::SceneOwner,
            Self::SceneModerator(scene) if is_here(scene) => Rank::SceneModerator,
            Self::SceneOwner(_) | Self::SceneModerator(_) => Rank::None,
        }
    }
}

impl State {
    /// Whether an author may perform an act now. Operators may do everything.
    ///
    /// A wallet acts upon wallets of a lower rank in the scope of the act: admin, realm moderator, scene owner, scene
    /// moderator, others. So moderators of a scene cannot ban its owner or each other.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn authorize(&self, actor: &Actor, act: &Act) -> Result<(), Forbidden> {
        let Actor::Wallet(actor) = actor else { return Ok(()) };
        match act {
            Act::GrantRole { role, .. } | Act::RevokeRole { role, .. } => self.authorize_role(*actor, role),
            Act::Ban { subject, scope, .. } | Act::Unban { subject, scope } => match subject {
                Subject::Wallet(wallet) => self.authorize_upon(*actor, *wallet, scope),
                Subject::Network(_) => self.require(*actor, &Scope::Realm, Rank::RealmModerator),
            },
            Act::Kick { wallet, scope }
            | Act::Mute { wallet, scope, .. }
            | Act::Unmute { wallet, scope, .. }
            | Act::Warn { wallet, scope } => self.authorize_upon(*actor, *wallet, scope),
        }
    }

    fn authorize_role(&self, actor: Address, role: &Role) -> Result<(), Forbidden> {
        match role {
            Role::SceneModerator(scene) => {
                self.require(actor, &Scope::Scene(scene.clone()), Rank::SceneOwner)
            }
            _ => self.require(actor, &Scope::Realm, Rank::RealmAdmin),
        }
    }

    fn authorize_upon(&self, actor: Address, wallet: Address, scope: &Scope) -> Result<(), Forbidden> {
        self.require(actor, scope, Rank::SceneModerator)?;
        match self.rank(wallet, scope) < self.rank(actor, scope) {
            true => Ok(()),
            false => Err(Forbidden::Protected),
        }
    }

    fn require(&self, actor: Address, scope: &Scope, rank: Rank) -> Result<(), Forbidden> {
        if self.rank(actor, scope) >= rank { Ok(()) } else { Err(Forbidden::NoRole) }
    }

    fn rank(&self, wallet: Address, scope: &Scope) -> Rank {
        self.roles(wallet).map(|role| role.rank_in(scope)).max().unwrap_or(Rank::None)
    }
}
