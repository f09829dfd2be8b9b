//! The outputs of a mesh, and its errors.

use std::time::Duration;

use protocol::Address;

use crate::{health::Failure, plan::Plan, settings::SettingsError};

/// The outputs of [`Mesh::tick`](crate::Mesh::tick).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// The plans that changed, or that were lost, each with its recipient; by address. Send them all.
    pub plans: Vec<(Address, Plan)>,
    /// The mesh began to fail. Reported once: again only after the mesh has recovered.
    pub failure: Option<Failure>,
}

/// The reason for which a member cannot join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Without relay, every two members need a link, and no member has more than the greatest number of links.
    #[error("a mesh without relay has at most {limit} members")]
    Full {
        /// The most members.
        limit: usize,
    },
    /// All aliases have been assigned.
    #[error("no alias is left")]
    NoAlias,
}

/// The reason for which a mesh cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A setting is out of bounds.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A member does not fit.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// A member that has not reported for [`Settings::silence`](crate::Settings::silence).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentMember {
    /// Its address.
    pub address: Address,
    /// The time of its last report; `None` if it never reported: its client may not support the mesh.
    pub last_report: Option<Duration>,
}
