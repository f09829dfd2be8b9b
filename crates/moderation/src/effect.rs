//! The changes that acts cause.

use protocol::Address;

use crate::scope::{Scope, Subject};

/// A change of the state, for the processes that enforce it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A ban began, or was replaced by one with another end.
    Banned {
        /// The wallet or network.
        subject: Subject,
        /// The scope of the ban.
        scope: Scope,
    },
    /// A ban was lifted, or has ended.
    Unbanned {
        /// The wallet or network.
        subject: Subject,
        /// The scope of the ban.
        scope: Scope,
    },
    /// The sessions of a wallet end once.
    Kicked {
        /// The wallet.
        wallet: Address,
    },
    /// See [`State::muted`](crate::State::muted).
    MutesChanged {
        /// The wallet.
        wallet: Address,
    },
    /// A wallet is to be sent a warning.
    Warned {
        /// The wallet.
        wallet: Address,
    },
    /// See [`State::roles`](crate::State::roles).
    RolesChanged {
        /// The wallet.
        wallet: Address,
    },
}
