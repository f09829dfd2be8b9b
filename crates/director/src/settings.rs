//! The configuration of a director.

use std::{sync::Arc, time::Duration};

use archipelago::rules::Rules;
use protocol::PositionPrecision;

use crate::configured_nodes::ConfiguredNode;

/// The configuration of a director.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Distances, sizes and times of islands.
    pub engine: archipelago::Settings,
    /// The realm's name, if it has one: clusters of another realm are ignored.
    pub realm: Option<String>,
    /// The interval of flushes: how often changes are computed and published.
    pub flush_interval: Duration,
    /// How often all islands are reported.
    pub report_interval: Duration,
    /// How often the leader publishes `engine.discovery`.
    pub discovery_interval: Duration,
    /// The size of the world: the largest distance from the origin on each axis, in metres.
    pub position_bound_m: f32,
    /// The precision of member positions in `island_changed`.
    pub positions: PositionPrecision,
    /// The rules at the start.
    pub rules: Arc<Rules>,
    /// The build, for `engine.discovery`.
    pub commit_hash: Option<String>,
    /// Nodes that do not announce themselves, each with a unique name.
    pub transports: Vec<ConfiguredNode>,
}
