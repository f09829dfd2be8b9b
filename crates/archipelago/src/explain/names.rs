//! Names of capabilities, areas and rules.

use protocol::{IslandId, NodeName};

use crate::{
    engine::Engine,
    ids::{IslandIndex, NodeIndex, ZoneIndex},
    world::Capabilities,
};

impl Engine {
    /// The id of an island that has members.
    pub(super) fn island_id(&self, island: IslandIndex) -> IslandId {
        let id = self.world.islands.id(island);
        id.expect("a flush gives an id to every island that has members")
    }

    /// The name of a node, if there is one.
    pub(super) fn node_name(&self, node: Option<NodeIndex>) -> Option<NodeName> {
        node.map(|node| self.world.nodes.name(node).clone())
    }

    /// The names of these capabilities, among those that some node needs.
    pub(super) fn capability_names(&self, capabilities: Capabilities) -> Vec<String> {
        self.world.nodes.capabilities.names(capabilities).map(str::to_owned).collect()
    }

    pub(super) fn area_labels(&self, zone: ZoneIndex) -> Vec<String> {
        let areas = self.world.zones.zone(zone).areas.iter();
        areas.map(|&area| self.world.zones.rules().area(area).label.clone()).collect()
    }
}
