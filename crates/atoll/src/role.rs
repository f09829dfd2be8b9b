//! The roles of a realm.

use std::fmt;

/// What a process may be to a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Signs people in, and hands them what directors say.
    Gateway,
    /// Rooms in which people hear each other.
    Rooms,
    /// Decides who is together, and where.
    Director,
    /// Tells who is where.
    Stats,
}

impl Role {
    /// All of them, in the order in which they are told.
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
