//! The roles of a realm.

use std::{fmt, str::FromStr};

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
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        let role = Self::ALL.into_iter().find(|role| role.to_string() == name);
        role.ok_or("is not a role: the roles are gateway, rooms, director and stats")
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
