//! The roles of a realm.

use std::fmt;

/// A role of a process in its realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Signs clients in, and forwards their heartbeats and their assignments.
    Gateway,
    /// Hosts rooms, in which members exchange messages.
    Rooms,
    /// Runs the engine: decides the islands and their nodes.
    Director,
    /// Serves presence: where peers are.
    Stats,
}

impl Role {
    /// All roles, in the order in which they are printed.
    pub(crate) const ALL: [Self; 4] = [Self::Gateway, Self::Rooms, Self::Director, Self::Stats];

    /// The role of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.to_string() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Rooms => "rooms",
            Self::Director => "director",
            Self::Stats => "stats",
        })
    }
}
