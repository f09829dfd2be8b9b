//! Owner rules: how the people of a place are to talk.
//!
//! Rules are an ordered list; the first that matches an island decides. A rule matches by area, by
//! how many people there are, by how crowded the area is and by the time of day, and says which
//! transports to use, in order of preference. What is written about a place (its area, the time of
//! day, how crowded it is) decides who is together with whom; how many people an island has does
//! not, and so distances cannot hang on it.
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

/// Rules as their owner wrote them. The default has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
    /// The areas that rules name, by [`Rule::area`].
    pub areas: Vec<Area>,
    /// What is used where no rule matches, or nothing that a rule wants is to be had, in order of
    /// preference. `None`: [`DEFAULT_TRANSPORTS`].
    pub default_transports: Option<Vec<TransportChoice>>,
}

/// LiveKit, then WebSocket rooms.
pub const DEFAULT_TRANSPORTS: [TransportChoice; 2] =
    [TransportChoice::Kind(TransportKind::LiveKit), TransportChoice::Kind(TransportKind::WsRoom)];

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What it is called; no two are called the same.
    pub name: String,
    /// Where it holds: an index into [`Rules::areas`]. `None`: everywhere.
    pub area: Option<usize>,
    /// Whether those inside the area are together only among themselves.
    pub exclusive: bool,
    /// How many people the island may have.
    pub people: CountRange,
    /// How many people the area, or without one the world, may hold, in whatever islands.
    pub crowding: Option<CountRange>,
    /// When it holds.
    pub hours: Option<Hours>,
    /// What to use, in order of preference. `None`: what is used without a rule.
    pub transports: Option<Vec<TransportChoice>>,
    /// The most members of an island. `None`: the setting.
    pub island_size: Option<u32>,
    /// The distances that hold in the area. `None`: those of the next rule that has some, or the
    /// setting's.
    pub distances: Option<Distances>,
    /// How long a change must last before it counts. `None`: the setting.
    pub settling: Option<Duration>,
}

/// A transport as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportChoice {
    /// Any node of this kind: the least loaded.
    Kind(TransportKind),
    /// This node.
    Node(NodeName),
}

/// From so many to so many, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountRange {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// When people come together and when they part. Metres on the ground; see
/// [`InvalidSettings`](crate::Settings).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// Up to here they come together.
    pub join_m: f32,
    /// Beyond this they part.
    pub leave_m: f32,
}

/// A part of the day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// The first minute of the day that is in it.
    pub from: u16,
    /// The first that is not; less than `from` when it goes past midnight.
    pub to: u16,
}

/// Minutes of a day.
pub(crate) const DAY_MINUTES: u16 = 24 * 60;

impl CountRange {
    /// Any number.
    pub const ANY: Self = Self { min: 0, max: u32::MAX };

    /// Whether so many are in it.
    pub fn contains(self, count: u32) -> bool {
        (self.min..=self.max).contains(&count)
    }
}

impl Hours {
    /// Whether a minute of the day is in it.
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl Rules {
    /// What is used where no rule says otherwise.
    pub fn default_transports(&self) -> &[TransportChoice] {
        self.default_transports.as_deref().unwrap_or(&DEFAULT_TRANSPORTS)
    }

    /// Rules that never decide, each with one before it that matches wherever it does. They may
    /// still set distances, sizes and settling times.
    pub fn shadowed_rules(&self) -> impl Iterator<Item = (&str, &str)> {
        let always =
            |rule: &Rule| rule.people == CountRange::ANY && rule.crowding.is_none() && rule.hours.is_none();
        self.rules.iter().enumerate().filter_map(move |(place, rule)| {
            let covers =
                |before: &&Rule| always(before) && (before.area.is_none() || before.area == rule.area);
            let before = self.rules[..place].iter().find(covers)?;
            Some((rule.name.as_str(), before.name.as_str()))
        })
    }

    /// What an island under this rule may use, in order of preference: what the rule wants, then
    /// what is used without a rule. `None` stands for no rule.
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
