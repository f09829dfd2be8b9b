//! Read access to the state of an engine: islands, peers, nodes and totals.

use std::{sync::Arc, time::Duration};

use protocol::{Address, IslandId, MediaGrants, NodeName, Position, SessionId};

use crate::{
    engine::Engine,
    ids::{IslandIndex, PeerIndex, ZoneIndex},
    inputs::Counters,
    rules::{MeshLimits, Rules},
    settings::Settings,
    transport::TransportView,
    world::{Capabilities, PeerState, World},
};

/// An island, as of the last flush. The positions of its members are the latest reported ones, which
/// may be newer.
#[derive(Clone, Copy)]
pub struct IslandView<'a> {
    world: &'a World,
    pub(crate) island: IslandIndex,
}

/// A peer in the world.
#[derive(Clone, Copy)]
pub struct PeerView<'a> {
    world: &'a World,
    peer: PeerIndex,
}

impl Engine {
    /// The island with this id, if it has members.
    pub fn island(&self, id: &IslandId) -> Option<IslandView<'_>> {
        let island = self.world.islands.find_by_id(id.as_str())?;
        self.world.islands.is_populated(island).then_some(IslandView { world: &self.world, island })
    }

    /// All islands that have members.
    pub fn islands(&self) -> impl Iterator<Item = IslandView<'_>> {
        self.world.islands.populated().map(|island| IslandView { world: &self.world, island })
    }

    /// The peer with this address, if it is in the world: it has sent a heartbeat and has not left.
    pub fn peer(&self, peer: Address) -> Option<PeerView<'_>> {
        let peer = self.world.peers.find(peer)?;
        (self.world.peers[peer].state == PeerState::Present).then_some(PeerView { world: &self.world, peer })
    }

    /// The islands with a room that is kept: those with members, and empty ones during their return window.
    pub fn kept_islands(&self) -> impl Iterator<Item = IslandView<'_>> {
        self.world.islands.kept().map(|island| IslandView { world: &self.world, island })
    }

    /// The island with this id, if its room is kept.
    pub fn kept_island(&self, id: &IslandId) -> Option<IslandView<'_>> {
        let island = self.world.islands.find_by_id(id.as_str())?;
        self.world.islands.is_kept(island).then_some(IslandView { world: &self.world, island })
    }

    /// All peers in the world.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.world.peers.present().map(|peer| PeerView { world: &self.world, peer })
    }

    /// The number of peers in the world.
    pub fn peers_count(&self) -> usize {
        self.world.peers.present_count()
    }

    /// The number of islands without a node, and one of them.
    pub fn islands_without_transport(&self) -> (usize, Option<IslandView<'_>>) {
        let islands = &self.world.islands;
        let waits = |&island: &IslandIndex| islands.is_populated(island) && islands[island].node.is_none();
        let mut waiting = islands.placements.watched.iter().copied().filter(waits);
        let first = waiting.next().map(|island| IslandView { world: &self.world, island });
        (waiting.count() + usize::from(first.is_some()), first)
    }

    /// The number of islands that have members.
    pub fn islands_count(&self) -> usize {
        self.world.islands.populated_count()
    }

    /// All nodes that were ever announced.
    pub fn transports(&self) -> impl Iterator<Item = TransportView<'_>> {
        self.world.nodes.views()
    }

    /// The size limit of an island outside every area, of clients that can join any transport: the
    /// setting, or less if no node offers rooms that large. While no node is on offer, the limit from
    /// before.
    pub fn open_zone_limit(&self) -> u32 {
        self.world.zones.size_limit(ZoneIndex::OPEN, Capabilities::ALL)
    }

    /// The rules of the realm's owner.
    pub fn rules(&self) -> &Arc<Rules> {
        self.world.zones.rules()
    }

    /// The settings of the engine.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The counters of ignored inputs.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Memory held for peers and islands, in bytes, by the capacity of the tables.
    pub fn bytes(&self) -> usize {
        self.world.bytes() + self.scratch.bytes()
    }
}

impl<'a> IslandView<'a> {
    /// Its id.
    pub fn id(&self) -> IslandId {
        let id = self.world.islands.id(self.island);
        id.expect("a flush gives an id to every island that has members")
    }

    /// Its members and their positions, in an order without meaning.
    pub fn members(&self) -> impl Iterator<Item = (Address, Position)> + use<'a> {
        self.world.members(self.island)
    }

    /// The number of its members.
    pub fn size(&self) -> u32 {
        self.world.spatial.size(self.island)
    }

    /// Its size limit.
    pub fn max_peers(&self) -> u32 {
        self.world.size_limit(self.island)
    }

    /// The name of the rule that applies to it, if any.
    pub fn rule(&self) -> Option<String> {
        self.world.rule_name(self.world.islands[self.island].rule.index())
    }

    /// The node that hosts its room; `None` while no node is available.
    pub fn transport(&self) -> Option<&'a NodeName> {
        self.world.islands[self.island].node.map(|node| self.world.nodes.name(node))
    }

    /// The node that hosts its room, or that hosted it until the island lost it: its members keep their connections
    /// there until the island has another node.
    pub fn room_node(&self) -> Option<&'a NodeName> {
        let islands = &self.world.islands;
        let node = islands[self.island].node.or_else(|| islands.placements.state(self.island).previous_node);
        node.map(|node| self.world.nodes.name(node))
    }

    /// The media that its members may publish.
    pub fn media(&self) -> MediaGrants {
        let reported = self.world.islands[self.island].reported_media;
        reported.unwrap_or_else(|| self.world.media(self.island))
    }

    /// The limits of its mesh, if it is on a p2p node.
    pub fn mesh_limits(&self) -> MeshLimits {
        self.world.mesh_limits(self.island)
    }

    /// The mean of its members' positions, in metres, with `y` 0.
    pub fn center(&self) -> Position {
        if self.world.clusters.is_some() {
            let count = f64::from(self.size());
            let mean = self.members().fold((0.0, 0.0), |(x, z), (_, at)| {
                (x + f64::from(at.x) / count, z + f64::from(at.z) / count)
            });
            return Position::new(mean.0 as f32, 0.0, mean.1 as f32);
        }
        let (x, z) = self.world.spatial.centre(self.island);
        Position::new(x as f32, 0.0, z as f32)
    }

    /// The distance of its farthest member from the centre, in metres on the ground.
    pub fn radius(&self) -> f32 {
        let center = self.center();
        let squares = self.members().map(|(_, position)| center.ground_distance_squared(position));
        squares.fold(0.0, f32::max).sqrt()
    }
}

impl<'a> PeerView<'a> {
    /// Its address.
    pub fn address(&self) -> Address {
        self.world.peers[self.peer].address
    }

    /// Its last reported position.
    pub fn position(&self) -> Position {
        let at = self.world.position(self.peer);
        Position::new(at.x, self.world.peers[self.peer].height_m, at.z)
    }

    /// Its island; `None` before the first flush after it arrived.
    pub fn island(&self) -> Option<IslandView<'a>> {
        let island = self.world.spatial.island_of(self.peer)?;
        Some(IslandView { world: self.world, island })
    }

    /// The island and the node of the last assignment of its client, in its current session.
    pub fn last_assigned(&self) -> Option<(IslandId, &'a NodeName)> {
        let record = &self.world.peers[self.peer];
        let node = self.world.nodes.name(record.last_assigned_node?);
        Some((self.world.islands.ids.island_id(record.last_assigned?), node))
    }

    /// Its session, if any of its messages carried one.
    pub fn session(&self) -> Option<SessionId> {
        self.world.peers.session(self.peer)
    }

    /// When its last message arrived, to the millisecond.
    pub fn last_seen(&self) -> Duration {
        self.world.peers[self.peer].last_seen()
    }

    /// Its preferred island, if it has one.
    pub fn desired_room(&self) -> Option<IslandId> {
        self.world
            .peers
            .preferred_island
            .get(&self.peer)
            .map(|&island| self.world.islands.ids.island_id(island))
    }
}
