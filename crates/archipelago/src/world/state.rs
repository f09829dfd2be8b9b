//! The [`World`], and how it keeps track of its changes.

use protocol::{Address, MediaGrants, Position};

use super::{
    capabilities::Capabilities,
    changes::{Changes, Evaluated, are_few_movers},
    clusters::Clusters,
    islands::{IslandState, Islands},
    node::Demand,
    nodes::Nodes,
    peers::{Flags, Peers},
    spatial::{Member, SpatialIndex},
    zone_transitions::ZoneTransitions,
    zones::Zones,
};
use crate::{
    ids::{IslandIndex, PeerIndex, RuleIndex, ZoneIndex},
    island_ids::IslandIds,
    point::Point,
    rules::MeshLimits,
    settings::{Clustering, Settings},
};

/// The state that a flush evaluates.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) peers: Peers,
    pub(crate) islands: Islands,
    pub(crate) nodes: Nodes,
    pub(crate) spatial: SpatialIndex,
    pub(crate) zones: Zones,
    pub(crate) zone_transitions: ZoneTransitions,
    /// The cluster of each peer; `None` unless [`Clustering::External`] is set.
    pub(crate) clusters: Option<Clusters>,
    pub(crate) changes: Changes,
}

impl World {
    /// A world without peers, islands and nodes. `started_ms` is part of the id of each island.
    pub(crate) fn new(settings: &Settings, started_ms: u64) -> Self {
        let nodes = Nodes::default();
        let mut zones = Zones::new(settings);
        zones.add_capability_set(Capabilities::ALL);
        zones.recompute_limits(&nodes);
        let mut spatial = SpatialIndex::new(zones.max_distance_m());
        spatial.distances.set(ZoneIndex::OPEN, zones.distances(ZoneIndex::OPEN));
        Self {
            peers: Peers::new(settings.assumed_transports.clone()),
            islands: Islands::new(IslandIds::new(&settings.id_prefix, started_ms)),
            nodes,
            spatial,
            zones,
            zone_transitions: ZoneTransitions::default(),
            clusters: (settings.clustering == Clustering::External).then(Clusters::default),
            changes: Changes::default(),
        }
    }

    /// The position of a peer as it last reported it. With external clustering the spatial index holds
    /// the anchor of the peer's cluster instead.
    pub(crate) fn position(&self, peer: PeerIndex) -> Point {
        self.clusters.as_ref().map_or_else(|| self.spatial.position(peer), |clusters| clusters.position(peer))
    }

    /// The members of an island and their positions, in an order without meaning.
    pub(crate) fn members(&self, island: IslandIndex) -> impl Iterator<Item = (Address, Position)> {
        self.spatial.members(island).map(|Member { peer, at, .. }| {
            let at = self.clusters.as_ref().map_or(at, |clusters| clusters.position(peer));
            let record = &self.peers[peer];
            (record.address, Position::new(at.x, record.height_m, at.z))
        })
    }

    /// The media that members of an island may publish, by the rule that decides for it.
    pub(crate) fn media(&self, island: IslandIndex) -> MediaGrants {
        self.zones.rules().media(self.islands[island].rule.index())
    }

    /// The limits of the mesh of an island, by the rule that decides for it.
    pub(crate) fn mesh_limits(&self, island: IslandIndex) -> MeshLimits {
        self.zones.rules().mesh_limits(self.islands[island].rule.index())
    }

    /// Whether a peer may be in an island: always, unless clusters are external and the peer has none.
    pub(crate) fn is_placeable(&self, peer: PeerIndex) -> bool {
        self.clusters.as_ref().is_none_or(|clusters| clusters.has_cluster(peer))
    }

    /// Whether the peer is in an island that has a node. When an island without one gets a node, all
    /// its members are queued for a report.
    pub(crate) fn island_has_node(&self, peer: PeerIndex) -> bool {
        self.spatial.island_of(peer).is_some_and(|island| self.islands[island].node.is_some())
    }

    /// The name of a rule; `None` for no rule.
    pub(crate) fn rule_name(&self, rule: Option<RuleIndex>) -> Option<String> {
        rule.map(|rule| self.zones.rules().rule(rule).name.clone())
    }

    /// The needs of an island on a node.
    pub(crate) fn demand(&self, island: IslandIndex) -> Demand {
        let spatial = &self.spatial;
        Demand {
            island,
            size: spatial.size(island),
            capabilities: spatial.capabilities(island, None),
            max_mesh_size: self.mesh_limits(island).max_members(),
        }
    }

    /// Whether an island has the same members as after the last flush, and few of them moved.
    pub(crate) fn has_few_movers(&self, island: IslandIndex) -> bool {
        let record = &self.islands[island];
        !record.members_changed && are_few_movers(record.movers, self.spatial.size(island))
    }

    /// Sorts islands by Morton code, so that islands near each other are processed one after the other and
    /// share CPU cache lines. The order depends on positions and ages only, so it is deterministic.
    pub(crate) fn sort_by_locality(&self, islands: &mut [IslandIndex]) {
        islands.sort_by_cached_key(|&island| (self.spatial.morton_code(island), self.islands[island].age));
    }

    /// Marks an island so that the next flush evaluates it completely.
    pub(crate) fn mark_dirty(&mut self, island: IslandIndex) {
        let record = &mut self.islands[island];
        record.movers = u32::MAX;
        if !std::mem::replace(&mut record.dirty, true) {
            self.changes.dirty.push(island);
        }
    }

    /// Marks all islands so that the next flush evaluates them completely.
    pub(crate) fn mark_all_dirty(&mut self) {
        let islands: Vec<IslandIndex> = self.islands.populated().collect();
        islands.into_iter().for_each(|island| self.mark_dirty(island));
    }

    /// Marks a member that moved, and its island.
    pub(crate) fn mark_moved(&mut self, peer: PeerIndex, from: Point) {
        let Some(island) = self.spatial.island_of(peer) else { return };
        if self.peers[peer].flags.replace(Flags::MOVED, true) {
            return;
        }
        let record = &mut self.islands[island];
        record.movers = record.movers.saturating_add(1);
        let is_few = are_few_movers(record.movers, self.spatial.size(island));
        self.changes.add_move(peer, island, from, is_few);
        if !std::mem::replace(&mut record.dirty, true) {
            self.changes.dirty.push(island);
        }
    }

    /// Marks an island with other members than after the last flush.
    pub(crate) fn mark_changed(&mut self, island: IslandIndex) {
        if !std::mem::replace(&mut self.islands[island].members_changed, true) {
            self.changes.changed.push(island);
        }
    }

    /// Queues a peer so that the next flush checks whether its membership or assignment changed.
    pub(crate) fn queue_report(&mut self, peer: PeerIndex) {
        if !self.peers[peer].flags.replace(Flags::REPORT_QUEUED, true) {
            self.changes.to_report.push(peer);
        }
    }

    /// Creates an island without members and without an id.
    pub(crate) fn open_island(&mut self) -> IslandIndex {
        self.changes.opened_count += 1;
        // Younger than every island that has a serial; islands of one flush in the order of creation.
        let age = self.islands.ids.peek_next().number() + self.changes.opened_count;
        let island = self.islands.add(age);
        self.spatial.add_island(island);
        island
    }

    /// Closes an island that has no members.
    pub(crate) fn close_island(&mut self, island: IslandIndex) {
        self.islands.set_state(island, IslandState::Closed);
        self.islands.placements.forget(island);
        self.nodes.forget_island(island);
        if self.islands[island].serial.is_none() {
            self.islands.remove(island);
        } else {
            self.changes.closed.push(island);
        }
    }

    /// Adds a peer that is in no island to an island.
    pub(crate) fn add_member(&mut self, peer: PeerIndex, island: IslandIndex) {
        self.spatial.add_member(peer, island);
        self.queue_report(peer);
        self.mark_changed(island);
    }

    /// Clears the marks of the changes that a flush evaluated, and the lists of all changes.
    pub(crate) fn finish_changes(&mut self, evaluated: Evaluated) {
        for &island in &evaluated.dirty {
            let record = &mut self.islands[island];
            (record.dirty, record.movers) = (false, 0);
        }
        for &peer in evaluated.moved.iter() {
            self.peers[peer].flags.replace(Flags::MOVED, false);
        }
        self.changes.clear(evaluated);
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.peers.bytes()
            + self.spatial.bytes()
            + self.islands.bytes()
            + self.zones.bytes()
            + self.clusters.as_ref().map_or(0, Clusters::bytes)
            + self.zone_transitions.bytes()
            + self.changes.bytes()
    }
}
