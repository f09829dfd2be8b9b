//! The facts that an explanation is based on, collected from the engine's state.

use std::time::Duration;

use protocol::{Address, IslandId, NodeName, Position};
use serde::Serialize;

use crate::{
    engine::Engine,
    peers::PeerState,
    registry::NodeRejection,
    rules::{Distances, Rule},
    slab::NONE,
    spatial::{Capabilities, Point},
};

/// The engine's state of a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerFacts {
    /// Its address.
    pub address: Address,
    /// Whether it is in the world: it sent a position and neither disconnected nor fell silent.
    pub present: bool,
    /// Its last reported position, in metres: x, y (up), z.
    pub position: [f32; 3],
    /// Seconds since its last message.
    pub heard_s_ago: f64,
    /// Its current session, if it has one.
    pub session: Option<String>,
    /// Seconds since the last heartbeat of a session that the current one replaced.
    pub replaced_session_heard_s_ago: Option<f64>,
    /// The capabilities its client has, among those that some node needs.
    pub can_join: Vec<String>,
    /// The areas of the zone in effect for it.
    pub areas: Vec<String>,
    /// The areas of its position, if a border crossing is pending.
    pub stands_in: Option<Vec<String>>,
    /// Seconds until that crossing takes effect.
    pub counts_in_s: Option<f64>,
    /// Its island.
    pub island: Option<IslandId>,
    /// Its preferred island.
    pub desired_room: Option<IslandId>,
    /// The island of its client's last assignment.
    pub told_island: Option<IslandId>,
    /// The node of its client's last assignment; `None`: it has no place in the room any more.
    pub told_node: Option<NodeName>,
}

/// The engine's state of an island.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IslandFacts {
    /// Its id.
    pub id: IslandId,
    /// Number of members.
    pub size: u32,
    /// Size limit.
    pub limit: u32,
    /// The areas of the zone that most of its members are in.
    pub areas: Vec<String>,
    /// The capabilities that all members have, among those that some node needs.
    pub can_join: Vec<String>,
    /// Name of the rule that decides; `None`: no rule does.
    pub rule: Option<String>,
    /// The rules of its zone up to the one that would decide now, and why each matches or does not.
    pub rules: Vec<RuleFacts>,
    /// Another rule that matches better, and the seconds until it decides.
    pub next_rule: Option<(Option<String>, f64)>,
    /// Node that hosts its room.
    pub node: Option<NodeName>,
    /// The nodes that could host it, in order of preference.
    pub candidates: Vec<NodeCandidate>,
    /// Seconds for which a better node has been available.
    pub better_for_s: Option<f64>,
    /// Seconds since its last move to another node, if the engine still remembers one.
    pub moved_s_ago: Option<f64>,
}

/// A rule that was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleFacts {
    /// Its name.
    pub name: String,
    /// Whether it matches.
    pub matches: bool,
    /// Why it does not match, or its conditions and effects.
    pub reason: String,
}

/// A node that an island could be placed on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeCandidate {
    /// The choice of the rule or of the defaults that names it: a kind or a node.
    pub choice: String,
    /// Whether the rule names it; otherwise the default transports do.
    pub by_rule: bool,
    /// The node; `None`: no node of this choice was ever announced.
    pub node: Option<NodeName>,
    /// Whether it could host the island.
    pub fits: bool,
    /// Why it could not, or its free seats.
    pub reason: String,
    /// The same as `reason`, for the choice of the cause.
    #[serde(skip)]
    pub(super) unfit: Option<NodeRejection>,
}

/// The rules and limits at a position.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PositionFacts {
    /// The position, in metres: x, z.
    pub at: [f32; 2],
    /// Its parcel: x, z.
    pub parcel: [i32; 2],
    /// The areas that contain it.
    pub areas: Vec<String>,
    /// The exclusive area that contains it: its peers share islands only with each other.
    pub exclusive: Option<String>,
    /// Join distance, in metres.
    pub join_distance_m: f32,
    /// Leave distance, in metres.
    pub leave_distance_m: f32,
    /// Size limit of an island here, if all its members can join every transport.
    pub limit: u32,
    /// The rules that apply here, in the order in which they are tried, with their conditions.
    pub rules: Vec<RuleFacts>,
}

impl Engine {
    pub(super) fn peer_facts(&self, peer: u32, now: Duration) -> PeerFacts {
        let record = &self.peers[peer];
        let at = self.position(peer);
        let traits = self.spatial.traits(peer);
        let island = self.spatial.island_of(peer);
        let transition = self.zone_transitions.get(peer);
        let serial_text = |serial: crate::ids::Serial| {
            (serial != crate::ids::Serial::NONE).then(|| self.ids.island_id(serial))
        };
        PeerFacts {
            address: record.address,
            present: record.state == PeerState::Present,
            position: [at.x, record.height_m, at.z],
            heard_s_ago: seconds(now.saturating_sub(record.last_seen())),
            session: self.peers.session(peer).map(|session| session.to_string()),
            replaced_session_heard_s_ago: self
                .stale_heartbeats
                .get(&peer)
                .map(|&at| seconds(now.saturating_sub(at))),
            can_join: self.capability_names(traits.capabilities()),
            areas: self.area_labels(traits.zone()),
            stands_in: transition.map(|transition| self.area_labels(transition.to)),
            counts_in_s: transition.map(|transition| seconds(transition.due.saturating_sub(now))),
            island: (island != NONE).then(|| self.islands[island].serial).and_then(serial_text),
            desired_room: self.preferred_island.get(&peer).map(|&serial| self.ids.island_id(serial)),
            told_island: serial_text(record.last_assigned),
            told_node: self.registry.name(record.last_assigned_node).cloned(),
        }
    }

    pub(super) fn island_facts(&self, island: u32, now: Duration) -> IslandFacts {
        let record = &self.islands[island];
        let size = self.spatial.size(island);
        let zone = self.majority_zone(island);
        let placement = self.placement_state(island);
        IslandFacts {
            id: self.ids.island_id(record.serial),
            size,
            limit: self.size_limit(island),
            areas: self.area_labels(zone),
            can_join: self.capability_names(self.spatial.capabilities(island, None)),
            rule: self.rule_name(record.rule),
            rules: self.rules_tried(zone, size),
            next_rule: placement.candidate_rule.map(|(rule, since)| {
                let due = since.saturating_add(self.zones.settling_of(rule));
                (self.rule_name(rule), seconds(due.saturating_sub(now)))
            }),
            node: self.registry.name(record.node).cloned(),
            candidates: self.candidates(island, now),
            better_for_s: placement.better_node_since.map(|since| seconds(now.saturating_sub(since))),
            moved_s_ago: placement.moved_at.map(|at| seconds(now.saturating_sub(at))),
        }
    }

    /// The nodes that an island could be placed on, in order of preference, each once.
    fn candidates(&self, island: u32, now: Duration) -> Vec<NodeCandidate> {
        let record = &self.islands[island];
        let rule = self.zones.rules.rules.get(record.rule as usize);
        let own_choices = rule.and_then(|rule| rule.transports.as_ref()).map_or(0, Vec::len);
        let (size, capabilities) = (self.spatial.size(island), self.spatial.capabilities(island, None));
        let mut candidates: Vec<NodeCandidate> = Vec::new();
        for (rank, choice) in self.zones.choices(record.rule).enumerate() {
            let (by_rule, choice_text) = (rank < own_choices || own_choices == 0, choice.to_string());
            let mut any = false;
            for (node, unfit) in self.registry.candidates(choice, size, capabilities, record.node) {
                any = true;
                let Some((view, announced_at)) = self.registry.last_announcement(node) else { continue };
                let name = &view.transport.node;
                if candidates.iter().any(|listed| listed.node.as_ref() == Some(name)) {
                    continue;
                }
                let silent = seconds(now.saturating_sub(announced_at));
                let free = view
                    .free_seats
                    .map_or("unlimited seats".to_owned(), |free| format!("free seats: {free}"));
                let reason = match unfit {
                    None => free,
                    Some(NodeRejection::Gone) => format!("no announcement for {silent:.1} s"),
                    Some(NodeRejection::Draining) => "draining".to_owned(),
                    Some(NodeRejection::MissingCapability) => {
                        self.missing_capability_reason(island, &view.transport.capability)
                    }
                    Some(NodeRejection::RoomTooSmall) => {
                        format!(
                            "its rooms hold {}, the island has {size} members",
                            view.transport.max_island_size
                        )
                    }
                    Some(NodeRejection::Full) => format!("{free}, the island has {size} members"),
                };
                candidates.push(NodeCandidate {
                    choice: choice_text.clone(),
                    by_rule,
                    node: Some(name.clone()),
                    fits: unfit.is_none(),
                    reason,
                    unfit,
                });
            }
            if !any && !candidates.iter().any(|listed| listed.choice == choice_text) {
                let reason = "no node offers it".to_owned();
                candidates.push(NodeCandidate {
                    choice: choice_text,
                    by_rule,
                    node: None,
                    fits: false,
                    reason,
                    unfit: None,
                });
            }
        }
        candidates
    }

    fn missing_capability_reason(&self, island: u32, capability: &str) -> String {
        let lacks = |member: &crate::spatial::Member| {
            !self.capability_names(member.traits.capabilities()).iter().any(|name| name == capability)
        };
        let address = self.spatial.members(island).find(lacks).map(|member| self.peers[member.peer].address);
        address.map_or_else(String::new, |address| format!("{address} cannot join {capability}"))
    }

    /// The names of these capabilities, among those that some node needs.
    pub(super) fn capability_names(&self, capabilities: Capabilities) -> Vec<String> {
        self.registry.capability_names(capabilities).map(str::to_owned).collect()
    }

    pub(super) fn area_labels(&self, zone: u32) -> Vec<String> {
        let areas = self.zones.zone(zone).areas.iter();
        areas.map(|&area| self.zones.rules.areas[area as usize].label.clone()).collect()
    }

    /// The name of a rule; `None` for a number that means no rule.
    pub(super) fn rule_name(&self, rule: u32) -> Option<String> {
        self.zones.rules.rules.get(rule as usize).map(|rule| rule.name.clone())
    }

    /// The rules of a zone up to the first that matches an island of `size` members.
    fn rules_tried(&self, zone: u32, size: u32) -> Vec<RuleFacts> {
        let mut tried = Vec::new();
        for number in self.zones.rules_of(zone) {
            let rule = &self.zones.rules.rules[number as usize];
            let count = self.zones.crowding_count(number).unwrap_or_default();
            let (matches, reason) = if !rule.people.contains(size) {
                (false, format!("it applies to {} members, the island has {size}", rule.people))
            } else if !self.zones.crowding_holds(number) {
                let required = rule.crowding.map(|count| count.to_string()).unwrap_or_default();
                (false, format!("it applies to {required} peers in its area, there are {count}"))
            } else {
                (true, rule_conditions(rule))
            };
            tried.push(RuleFacts { name: rule.name.clone(), matches, reason });
            if matches {
                break;
            }
        }
        tried
    }

    pub(super) fn position_facts(&self, at: Point) -> PositionFacts {
        // The position may be in a zone that no peer has been in yet: it is added to a copy of the zones.
        let mut zones = self.zones.clone();
        let (before, zone) = (zones.count(), zones.zone_at(at));
        if zones.count() > before {
            zones.compute_new_limits(before, &self.registry);
        }
        let label = |area: u32| zones.rules.areas[area as usize].label.clone();
        let rules = zones.rules_of(zone).map(|number| (number, &zones.rules.rules[number as usize]));
        let zone_record = zones.zone(zone);
        let parcel = Position::new(at.x, 0.0, at.z).parcel();
        PositionFacts {
            at: [at.x, at.z],
            parcel: [parcel.x, parcel.y],
            areas: zone_record.areas.iter().map(|&area| label(area)).collect(),
            exclusive: (zone_record.enclosure != NONE).then(|| label(zone_record.enclosure)),
            join_distance_m: zone_record.distances.join_m,
            leave_distance_m: zone_record.distances.leave_m,
            limit: zones.size_limit(zone, Capabilities::ALL),
            rules: rules
                .map(|(number, rule)| RuleFacts {
                    name: rule.name.clone(),
                    matches: zones.crowding_holds(number),
                    reason: rule_conditions(rule),
                })
                .collect(),
        }
    }
}

/// The conditions and effects of a rule, in one line.
fn rule_conditions(rule: &Rule) -> String {
    let mut parts = Vec::new();
    if rule.people != crate::rules::CountRange::ANY {
        parts.push(format!("{} members", rule.people));
    }
    if let Some(crowding) = rule.crowding {
        parts.push(format!("{crowding} peers in its area"));
    }
    if let Some(hours) = rule.hours {
        parts.push(hours.to_string());
    }
    if let Some(transports) = &rule.transports {
        let names: Vec<String> = transports.iter().map(ToString::to_string).collect();
        parts.push(format!("prefers {}", names.join(", then ")));
    }
    if let Some(size) = rule.island_size {
        parts.push(format!("island size {size}"));
    }
    if let Some(Distances { join_m, leave_m }) = rule.distances {
        parts.push(format!("join distance {join_m} m, leave distance {leave_m} m"));
    }
    if let Some(settling) = rule.settling {
        parts.push(format!("settling time {} s", seconds(settling)));
    }
    if parts.is_empty() { "always".to_owned() } else { parts.join("; ") }
}

/// Seconds, rounded to a millisecond.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}
