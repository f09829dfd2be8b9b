//! The rules of a file.

use std::{fmt, time::Duration};

use protocol::{MediaGrants, NodeName, Voice};

use super::{
    area::Area,
    conditions::{CountRange, Hours},
};
use crate::{
    ids::{AreaIndex, RuleIndex, TableIndex},
    transport::TransportKind,
};

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
    /// The media that members may publish where no rule matches, or where the rule does not set them.
    pub default_media: MediaGrants,
}

/// The default transports of a rules file that sets none: LiveKit, then WebSocket rooms.
pub const DEFAULT_TRANSPORTS: [TransportChoice; 2] =
    [TransportChoice::Kind(TransportKind::LiveKit), TransportChoice::Kind(TransportKind::WsRoom)];

/// One rule. Each condition that is absent always holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique in a file.
    pub name: String,
    /// Its area. `None`: the whole world.
    pub area: Option<AreaIndex>,
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
    /// The members that may publish sound. `None`: those of [`Rules::default_media`].
    pub voice: Option<Voice>,
    /// Whether the members may publish their camera. `None`: as in [`Rules::default_media`].
    pub video: Option<bool>,
    /// The most links of a member of a mesh. `None`: 6, the most that a rule may set.
    pub max_links: Option<u32>,
    /// Whether members of a mesh forward messages of others. `None`: they do.
    pub relay: Option<bool>,
    /// Size limit of an island. `None`: the setting.
    pub island_size: Option<u32>,
    /// Distances in the area. `None`: those of the next rule that sets them, or the settings'.
    pub distances: Option<Distances>,
    /// Settling time: how long a change must last before it takes effect. `None`: the setting.
    pub settling: Option<Duration>,
}

/// The limits of a mesh, by the rule that decides for its island.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshLimits {
    /// The most links of a member, 2 to 6.
    pub max_links: u32,
    /// Whether members forward messages of others. If not, every two members need a link of their own.
    pub relay: bool,
}

/// The most links of a member of a mesh that a rule may set: more is too much for browsers.
pub(super) const MAX_LINKS: u32 = 6;

/// A transport that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportChoice {
    /// The least loaded node of this kind.
    Kind(TransportKind),
    /// The node with this name.
    Node(NodeName),
}

/// Join and leave distance, in metres on the ground. See [`Settings`](crate::Settings) for their bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// Up to this distance peers are linked.
    pub join_m: f32,
    /// Beyond this distance linked peers are no longer linked.
    pub leave_m: f32,
}

impl Rules {
    /// An area that a rule names.
    pub fn area(&self, area: AreaIndex) -> &Area {
        &self.areas[area.position()]
    }

    pub(crate) fn rule(&self, rule: RuleIndex) -> &Rule {
        &self.rules[rule.position()]
    }

    /// All rules with their indexes, in the order in which they are tried.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (RuleIndex, &Rule)> {
        RuleIndex::first(self.rules.len()).zip(&self.rules)
    }

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
    pub(crate) fn choices(&self, rule: Option<RuleIndex>) -> impl Iterator<Item = &TransportChoice> {
        let own = rule.and_then(|rule| self.rule(rule).transports.as_deref()).unwrap_or_default();
        own.iter().chain(self.default_transports())
    }

    /// The media that members of an island under a rule may publish. `None`: no rule decides for the island.
    pub(crate) fn media(&self, rule: Option<RuleIndex>) -> MediaGrants {
        let Some(rule) = rule.map(|rule| self.rule(rule)) else { return self.default_media };
        let MediaGrants { voice, video } = self.default_media;
        MediaGrants { voice: rule.voice.unwrap_or(voice), video: rule.video.unwrap_or(video) }
    }

    /// The limits of the mesh of an island under a rule. `None`: no rule decides for the island.
    pub(crate) fn mesh_limits(&self, rule: Option<RuleIndex>) -> MeshLimits {
        let MeshLimits { max_links, relay } = MeshLimits::default();
        let Some(rule) = rule.map(|rule| self.rule(rule)) else { return MeshLimits { max_links, relay } };
        MeshLimits { max_links: rule.max_links.unwrap_or(max_links), relay: rule.relay.unwrap_or(relay) }
    }
}

impl MeshLimits {
    /// The most members of such a mesh: without relay, all must be linked with each other.
    pub fn max_members(self) -> u32 {
        if self.relay { u32::MAX } else { self.max_links + 1 }
    }
}

impl Default for MeshLimits {
    fn default() -> Self {
        Self { max_links: MAX_LINKS, relay: true }
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
