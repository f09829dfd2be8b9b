//! What answers rest on.

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

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerFacts {
    /// Who.
    pub address: Address,
    /// Whether it is in the world.
    pub present: bool,
    /// Where it last said it stands, in metres: x, y, z.
    pub position: [f32; 3],
    /// Seconds since it was last heard.
    pub heard_s_ago: f64,
    /// Its session, if it has one.
    pub session: Option<String>,
    /// Seconds since a session of it that was replaced was last heard.
    pub replaced_session_heard_s_ago: Option<f64>,
    /// What its client can join, of what is known.
    pub can_join: Vec<String>,
    /// The areas that it is counted to.
    pub areas: Vec<String>,
    /// The areas that it stands in, when those are others.
    pub stands_in: Option<Vec<String>>,
    /// Seconds until it is counted to those.
    pub counts_in_s: Option<f64>,
    /// The island that it is in.
    pub island: Option<IslandId>,
    /// The island that it would like to be in.
    pub desired_room: Option<IslandId>,
    /// The island that its client was last told of.
    pub told_island: Option<IslandId>,
    /// And the node.
    pub told_node: Option<NodeName>,
}

/// What is known of an island.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IslandFacts {
    /// Which.
    pub id: IslandId,
    /// How many members it has.
    pub size: u32,
    /// How many it may have.
    pub limit: u32,
    /// The areas that most of its members are counted to.
    pub areas: Vec<String>,
    /// What all its members can join, of what is known.
    pub can_join: Vec<String>,
    /// The rule that decides; `None`: none does.
    pub rule: Option<String>,
    /// The rules of its place up to the one that would decide now, and why each does or does not.
    pub rules: Vec<RuleFacts>,
    /// Another rule that has been the better one, and the seconds until it counts.
    pub next_rule: Option<(Option<String>, f64)>,
    /// The node that holds its room.
    pub node: Option<NodeName>,
    /// The nodes that could, in order of preference.
    pub candidates: Vec<NodeCandidate>,
    /// Seconds since there has been a better node.
    pub better_for_s: Option<f64>,
    /// Seconds since it was moved, if that was lately.
    pub moved_s_ago: Option<f64>,
}

/// A rule that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleFacts {
    /// What it is called.
    pub name: String,
    /// Whether it matches.
    pub matches: bool,
    /// Why not, or what it asks.
    pub reason: String,
}

/// A node that an island might be on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeCandidate {
    /// How it is named: a kind or a node.
    pub choice: String,
    /// Whether the rule wants it; if not, it is what is used without a rule.
    pub by_rule: bool,
    /// Which node; `None`: there is none.
    pub node: Option<NodeName>,
    /// Whether it could hold the island.
    pub fits: bool,
    /// Why not, or what it has to offer.
    pub reason: String,
    /// What of these it is.
    #[serde(skip)]
    pub(super) unfit: Option<NodeRejection>,
}

/// What holds at a place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PositionFacts {
    /// Where, in metres: x, z.
    pub at: [f32; 2],
    /// Its parcel.
    pub parcel: [i32; 2],
    /// The areas that it is in.
    pub areas: Vec<String>,
    /// The area whose people are together only among themselves.
    pub exclusive: Option<String>,
    /// Up to here people come together, in metres.
    pub join_distance_m: f32,
    /// Beyond this they part, in metres.
    pub leave_distance_m: f32,
    /// The most members of an island.
    pub limit: u32,
    /// The rules that hold here, in the order in which they are tried, with what they ask.
    pub rules: Vec<RuleFacts>,
}

impl Engine {
    pub(super) fn peer_facts(&self, peer: u32, now: Duration) -> PeerFacts {
        let record = &self.peers[peer];
        let at = self.position(peer);
        let terms = self.spatial.traits(peer);
        let island = self.spatial.island_of(peer);
        let crossing = self.zone_transitions.get(peer);
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
            can_join: self.capability_names(terms.capabilities()),
            areas: self.area_labels(terms.zone()),
            stands_in: crossing.map(|crossing| self.area_labels(crossing.to)),
            counts_in_s: crossing.map(|crossing| seconds(crossing.due.saturating_sub(now))),
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
        let pace = self.placement_state(island);
        IslandFacts {
            id: self.ids.island_id(record.serial),
            size,
            limit: self.size_limit(island),
            areas: self.area_labels(zone),
            can_join: self.capability_names(self.spatial.capabilities(island, None)),
            rule: self.rule_name(record.rule),
            rules: self.rules_tried(zone, size),
            next_rule: pace.candidate_rule.map(|(rule, since)| {
                let due = since.saturating_add(self.zones.settling_of(rule));
                (self.rule_name(rule), seconds(due.saturating_sub(now)))
            }),
            node: self.registry.name(record.node).cloned(),
            candidates: self.candidates(island, now),
            better_for_s: pace.better_node_since.map(|since| seconds(now.saturating_sub(since))),
            moved_s_ago: pace.moved_at.map(|at| seconds(now.saturating_sub(at))),
        }
    }

    /// The nodes that an island might be on, in order of preference, each once.
    fn candidates(&self, island: u32, now: Duration) -> Vec<NodeCandidate> {
        let record = &self.islands[island];
        let rule = self.zones.rules.rules.get(record.rule as usize);
        let own = rule.and_then(|rule| rule.transports.as_ref()).map_or(0, Vec::len);
        let (size, capabilities) = (self.spatial.size(island), self.spatial.capabilities(island, None));
        let mut candidates: Vec<NodeCandidate> = Vec::new();
        for (place, choice) in self.zones.choices(record.rule).enumerate() {
            let (by_rule, spelled) = (place < own || own == 0, choice.to_string());
            let mut any = false;
            for (node, unfit) in self.registry.candidates(choice, size, capabilities, record.node) {
                any = true;
                let Some((view, heard)) = self.registry.last_announcement(node) else { continue };
                let name = &view.transport.node;
                if candidates.iter().any(|known| known.node.as_ref() == Some(name)) {
                    continue;
                }
                let silent = seconds(now.saturating_sub(heard));
                let free = view
                    .free_seats
                    .map_or("seats without limit".to_owned(), |free| format!("free seats: {free}"));
                let reason = match unfit {
                    None => free,
                    Some(NodeRejection::Gone) => format!("not heard for {silent:.1} s"),
                    Some(NodeRejection::Draining) => "draining".to_owned(),
                    Some(NodeRejection::MissingCapability) => {
                        self.missing_capability_reason(island, &view.transport.capability)
                    }
                    Some(NodeRejection::RoomTooSmall) => {
                        format!("holds {} in a room, and they are {size}", view.transport.max_island_size)
                    }
                    Some(NodeRejection::Full) => format!("{free}, and they are {size}"),
                };
                candidates.push(NodeCandidate {
                    choice: spelled.clone(),
                    by_rule,
                    node: Some(name.clone()),
                    fits: unfit.is_none(),
                    reason,
                    unfit,
                });
            }
            if !any && !candidates.iter().any(|known| known.choice == spelled) {
                let reason = "there is none".to_owned();
                candidates.push(NodeCandidate {
                    choice: spelled,
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
        let who = self.spatial.members(island).find(lacks).map(|member| self.peers[member.peer].address);
        who.map_or_else(String::new, |who| format!("{who} cannot join {capability}"))
    }

    /// What capabilities are called, of those that some node needs.
    pub(super) fn capability_names(&self, capabilities: Capabilities) -> Vec<String> {
        self.registry.capability_names(capabilities).map(str::to_owned).collect()
    }

    pub(super) fn area_labels(&self, zone: u32) -> Vec<String> {
        let areas = self.zones.zone(zone).areas.iter();
        areas.map(|&area| self.zones.rules.areas[area as usize].label.clone()).collect()
    }

    /// `None` for no rule.
    pub(super) fn rule_name(&self, rule: u32) -> Option<String> {
        self.zones.rules.rules.get(rule as usize).map(|rule| rule.name.clone())
    }

    /// Rules of a zone up to the first that matches an island of so many.
    fn rules_tried(&self, zone: u32, size: u32) -> Vec<RuleFacts> {
        let mut tried = Vec::new();
        for number in self.zones.rules_of(zone) {
            let rule = &self.zones.rules.rules[number as usize];
            let seen = self.zones.crowding_count(number).unwrap_or_default();
            let (matches, reason) = if !rule.people.contains(size) {
                (false, format!("it is about {} people, and they are {size}", rule.people))
            } else if !self.zones.crowding_holds(number) {
                let wanted = rule.crowding.map(|count| count.to_string()).unwrap_or_default();
                (false, format!("it is about a crowd of {wanted}, and there are {seen}"))
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
        // Nobody may have stood here before.
        let mut zones = self.zones.clone();
        let (before, zone) = (zones.count(), zones.zone_at(at));
        if zones.count() > before {
            zones.compute_new_limits(before, &self.registry);
        }
        let label = |area: u32| zones.rules.areas[area as usize].label.clone();
        let rules = zones.rules_of(zone).map(|number| (number, &zones.rules.rules[number as usize]));
        let place = zones.zone(zone);
        let parcel = Position::new(at.x, 0.0, at.z).parcel();
        PositionFacts {
            at: [at.x, at.z],
            parcel: [parcel.x, parcel.y],
            areas: place.areas.iter().map(|&area| label(area)).collect(),
            exclusive: (place.enclosure != NONE).then(|| label(place.enclosure)),
            join_distance_m: place.distances.join_m,
            leave_distance_m: place.distances.leave_m,
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

/// What a rule asks and wants.
fn rule_conditions(rule: &Rule) -> String {
    let mut parts = Vec::new();
    if rule.people != crate::rules::CountRange::ANY {
        parts.push(format!("{} people", rule.people));
    }
    if let Some(crowding) = rule.crowding {
        parts.push(format!("a crowd of {crowding}"));
    }
    if let Some(hours) = rule.hours {
        parts.push(hours.to_string());
    }
    if let Some(transports) = &rule.transports {
        let names: Vec<String> = transports.iter().map(ToString::to_string).collect();
        parts.push(format!("wants {}", names.join(", then ")));
    }
    if let Some(size) = rule.island_size {
        parts.push(format!("islands of {size}"));
    }
    if let Some(Distances { join_m, leave_m }) = rule.distances {
        parts.push(format!("together within {join_m} m, apart beyond {leave_m} m"));
    }
    if let Some(settling) = rule.settling {
        parts.push(format!("settles in {} s", seconds(settling)));
    }
    if parts.is_empty() { "always".to_owned() } else { parts.join("; ") }
}

pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}
