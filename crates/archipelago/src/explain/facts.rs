//! The facts that an explanation is based on.

use std::time::Duration;

use protocol::{Address, IslandId, NodeName};
use serde::Serialize;

use crate::world::NodeRejection;

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

/// Seconds, rounded to a millisecond.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}
