//! Owner rules: which transports, island sizes and distances apply in which area.
//!
//! Rules are an ordered list; the first that matches an island decides. A rule matches by area, by the
//! number of members of the island, by the number of peers in the area and by the time of day, and names
//! transports in order of preference. The conditions on the place (area, time of day, number of peers in
//! the area) decide which peers may share an island; the number of members of an island does not, and
//! therefore distances cannot depend on it.
//!
//! [`Rules::parse`] reads them from TOML.

mod area;
mod area_index;
mod parse;

use std::{fmt, time::Duration};

use protocol::NodeName;

pub use area::{Area, Shape};
pub(crate) use area_index::AreaIndex;
pub use parse::RulesError;

use crate::registry::TransportKind;

/// The owner's rules. The default value has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
    /// The areas that rules name, by [`Rule::area`].
    pub areas: Vec<Area>,
    /// The transports where no rule matches or none of the rule's own is available, in order of
    /// preference. `None`: [`DEFAULT_TRANSPORTS`].
    pub default_transports: Option<Vec<TransportChoice>>,
}

/// The default transports of a rules file that sets none: LiveKit, then WebSocket rooms.
pub const DEFAULT_TRANSPORTS: [TransportChoice; 2] =
    [TransportChoice::Kind(TransportKind::LiveKit), TransportChoice::Kind(TransportKind::WsRoom)];

/// One rule. Each condition that is absent always holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique in a file.
    pub name: String,
    /// Its area: an index into [`Rules::areas`]. `None`: the whole world.
    pub area: Option<usize>,
    /// Whether peers inside the area share islands only with each other.
    pub exclusive: bool,
    /// Condition: the number of members of the island.
    pub people: CountRange,
    /// Condition: the number of peers in the area, or in the world if the rule has no area, over all
    /// islands.
    pub crowding: Option<CountRange>,
    /// Condition: the time of day.
    pub hours: Option<Hours>,
    /// Transports in order of preference. `None`: the default transports.
    pub transports: Option<Vec<TransportChoice>>,
    /// Size limit of an island. `None`: the setting.
    pub island_size: Option<u32>,
    /// Distances in the area. `None`: those of the next rule that sets them, or the settings'.
    pub distances: Option<Distances>,
    /// Settling time: how long a change must last before it takes effect. `None`: the setting.
    pub settling: Option<Duration>,
}

/// A transport that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportChoice {
    /// The least loaded node of this kind.
    Kind(TransportKind),
    /// The node with this name.
    Node(NodeName),
}

/// A range of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountRange {
    /// Least number.
    pub min: u32,
    /// Greatest number.
    pub max: u32,
}

/// Join and leave distance, in metres on the ground. See [`Settings`](crate::Settings) for their bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// Up to this distance peers are linked.
    pub join_m: f32,
    /// Beyond this distance linked peers are no longer linked.
    pub leave_m: f32,
}

/// A part of the day, in UTC. It may extend past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// First minute of the day inside, 0 to 1,439.
    pub from: u16,
    /// First minute outside, 0 to 1,440; less than `from` if the range extends past midnight.
    pub to: u16,
}

/// Minutes in a day.
pub(crate) const DAY_MINUTES: u16 = 24 * 60;

impl CountRange {
    /// Contains every number.
    pub const ANY: Self = Self { min: 0, max: u32::MAX };

    /// Whether `count` is in the range.
    pub fn contains(self, count: u32) -> bool {
        (self.min..=self.max).contains(&count)
    }
}

impl Hours {
    /// Whether a minute of the day, 0 to 1,439, is inside.
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl Rules {
    /// The transports of islands without a rule, in order of preference.
    pub fn default_transports(&self) -> &[TransportChoice] {
        self.default_transports.as_deref().unwrap_or(&DEFAULT_TRANSPORTS)
    }

    /// Rules that never decide, each with an earlier rule that matches wherever it does, both by name.
    /// Shadowed rules may still set distances, sizes and settling times.
    pub fn shadowed_rules(&self) -> impl Iterator<Item = (&str, &str)> {
        let always =
            |rule: &Rule| rule.people == CountRange::ANY && rule.crowding.is_none() && rule.hours.is_none();
        self.rules.iter().enumerate().filter_map(move |(index, rule)| {
            let covers =
                |earlier: &&Rule| always(earlier) && (earlier.area.is_none() || earlier.area == rule.area);
            let earlier = self.rules[..index].iter().find(covers)?;
            Some((rule.name.as_str(), earlier.name.as_str()))
        })
    }

    /// The transports of an island under a rule, in order of preference: those of the rule, then the
    /// defaults. `None`: no rule decides for the island.
    pub fn choices(&self, rule: Option<usize>) -> impl Iterator<Item = &TransportChoice> {
        let own = rule.and_then(|rule| self.rules[rule].transports.as_deref()).unwrap_or_default();
        own.iter().chain(self.default_transports())
    }
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

impl fmt::Display for CountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { min: 0, max: u32::MAX } => f.write_str("any number"),
            Self { min, max: u32::MAX } => write!(f, "at least {min}"),
            Self { min: 0, max } => write!(f, "at most {max}"),
            Self { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02} UTC", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests;
