//! Read access to the state of an engine: islands, peers, nodes and totals.

use std::time::Duration;

use protocol::{Address, IslandId, NodeName, Position, SessionId};

use crate::{
    clusters::Clusters,
    engine::{Counters, Engine},
    ids::Serial,
    invariants::{PeerBounds, PerPeerBounds},
    peers::PeerState,
    registry::{NO_NODE, TransportView},
    rules::Rules,
    settings::Settings,
    slab::NONE,
    spatial::{Capabilities, Member, ZoneDistances},
    zones::OPEN_ZONE,
};

/// An island, as of the last flush. The positions of its members are the latest reported ones, which
/// may be newer.
#[derive(Clone, Copy)]
pub struct IslandView<'a> {
    engine: &'a Engine,
    island: u32,
}

/// A peer in the world.
#[derive(Clone, Copy)]
pub struct PeerView<'a> {
    engine: &'a Engine,
    peer: u32,
}

impl Engine {
    /// The island with this id, if it has members.
    pub fn island(&self, id: &IslandId) -> Option<IslandView<'_>> {
        let island = self.islands.find(self.ids.serial(id.as_str())?)?;
        self.islands.is_populated(island).then_some(IslandView { engine: self, island })
    }

    /// All islands that have members.
    pub fn islands(&self) -> impl Iterator<Item = IslandView<'_>> {
        self.islands.populated().map(|island| IslandView { engine: self, island })
    }

    /// The peer with this address, if it is in the world: it has sent a heartbeat and has not left.
    pub fn peer(&self, peer: Address) -> Option<PeerView<'_>> {
        let peer = self.peers.find(peer)?;
        (self.peers[peer].state == PeerState::Present).then_some(PeerView { engine: self, peer })
    }

    /// Whether the engine knows this session of a peer or a later one; without a session, whether it
    /// knows the peer. A peer that was removed is not known.
    pub fn knows_session(&self, peer: Address, session: Option<SessionId>) -> bool {
        let Some(peer) = self.peers.find(peer) else { return false };
        session.is_none_or(|session| Some(session) <= self.peers.session(peer))
    }

    /// All peers in the world.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        let present = self.peers.known().filter(|&peer| self.peers[peer].state == PeerState::Present);
        present.map(|peer| PeerView { engine: self, peer })
    }

    /// The number of peers in the world.
    pub fn peers_count(&self) -> usize {
        self.peers.present_count()
    }

    /// The number of peers in the world that may be in an island.
    pub(crate) fn placeable_count(&self) -> usize {
        let present = self.peers.known().filter(|&peer| self.peers[peer].state == PeerState::Present);
        present.filter(|&peer| self.is_placeable(peer)).count()
    }

    /// The members of each island with their points in the spatial index: the reported positions, or
    /// with external clustering the anchors of the clusters.
    pub(crate) fn spatial_members(&self) -> impl Iterator<Item = (IslandView<'_>, Vec<(Address, Position)>)> {
        self.islands().map(|view| {
            let members = self.spatial.members(view.island);
            let member = |Member { peer, at, .. }| (self.peers[peer].address, Position::new(at.x, 0.0, at.z));
            (view, members.map(member).collect())
        })
    }

    /// The number of islands without a node, and one of them.
    pub fn islands_without_transport(&self) -> (usize, Option<IslandView<'_>>) {
        let waits =
            |&&island: &&u32| self.islands.is_populated(island) && self.islands[island].node == NO_NODE;
        let mut waiting = self.watched.iter().filter(waits);
        let first = waiting.next().map(|&island| IslandView { engine: self, island });
        (waiting.count() + usize::from(first.is_some()), first)
    }

    /// The number of islands that have members.
    pub fn islands_count(&self) -> usize {
        self.islands.populated_count()
    }

    /// All nodes that were ever announced.
    pub fn transports(&self) -> impl Iterator<Item = TransportView<'_>> {
        self.registry.views()
    }

    /// The size limit of an island outside every area, of clients that can join any transport: the
    /// setting, or less if no node offers rooms that large. While no node is on offer, the limit from
    /// before.
    pub fn open_zone_limit(&self) -> u32 {
        self.zones.size_limit(OPEN_ZONE, Capabilities::ALL)
    }

    /// The distances and limits of each peer, for the invariant checks; `None` if the settings apply to
    /// all.
    pub(crate) fn per_peer_bounds(&self) -> Option<PerPeerBounds> {
        let Settings { join_distance_m, leave_distance_m, .. } = self.settings;
        let open = self.zones.distances(OPEN_ZONE);
        let plain = (open.join_m, open.leave_m) == (join_distance_m, leave_distance_m);
        if plain && !self.zones.is_partitioned() && self.zones.uniform_limit().is_some() {
            return None;
        }
        let peers = self.peers.known().map(|peer| {
            let traits = self.spatial.traits(peer);
            let ZoneDistances { enclosure, join_m, leave_m } = self.zones.distances(traits.zone());
            let (zone, capabilities) = (traits.zone(), traits.capabilities().0);
            (self.peers[peer].address, PeerBounds { zone, enclosure, capabilities, join_m, leave_m })
        });
        Some(PerPeerBounds { peers: peers.collect(), limits: self.zones.limits().collect() })
    }

    /// The rules of the realm's owner.
    pub fn rules(&self) -> &Rules {
        &self.zones.rules
    }

    /// An island that should have another node, for the invariant checks: its node is gone, drains, has
    /// too small a room or cannot be joined by all members, or it has none, while another node of its
    /// rule could host it. Nodes with a seat count are not considered: seats may have become free after
    /// the island was evaluated.
    pub(crate) fn misplaced_island(&self) -> Option<IslandId> {
        let badly = |&island: &u32| {
            let (size, zone) = (self.spatial.size(island), self.majority_zone(island));
            let capabilities = self.spatial.capabilities(island, None);
            let rule = self.zones.rule_for(zone, size);
            let could = || {
                let choose = |choice| self.registry.choose(choice, size, capabilities);
                let views = self.zones.choices(rule).filter_map(choose);
                views
                    .filter_map(|node| self.registry.last_announcement(node))
                    .any(|(view, _)| view.free_seats.is_none())
            };
            !self.registry.can_stay_ignoring_seats(self.islands[island].node, size, capabilities) && could()
        };
        self.islands.populated().find(badly).map(|island| self.ids.island_id(self.islands[island].serial))
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
        self.peers.bytes()
            + self.spatial.bytes()
            + self.islands.bytes()
            + self.zones.bytes()
            + self.clusters.as_ref().map_or(0, Clusters::bytes)
            + self.zone_transitions.bytes()
            + self.reconnect_grace.bytes()
            + self.pending.bytes()
            + self.scratch.bytes()
    }
}

impl<'a> IslandView<'a> {
    /// Its id.
    pub fn id(&self) -> IslandId {
        self.engine.ids.island_id(self.engine.islands[self.island].serial)
    }

    /// Its members and their positions, in an order without meaning.
    pub fn members(&self) -> impl Iterator<Item = (Address, Position)> + use<'a> {
        let engine = self.engine;
        engine.spatial.members(self.island).map(|Member { peer, .. }| {
            let (record, at) = (&engine.peers[peer], engine.position(peer));
            (record.address, Position::new(at.x, record.height_m, at.z))
        })
    }

    /// The number of its members.
    pub fn size(&self) -> u32 {
        self.engine.spatial.size(self.island)
    }

    /// Its size limit.
    pub fn max_peers(&self) -> u32 {
        self.engine.size_limit(self.island)
    }

    /// The node that hosts its room; `None` while no node is available.
    pub fn transport(&self) -> Option<&'a NodeName> {
        self.engine.registry.name(self.engine.islands[self.island].node)
    }

    /// The mean of its members' positions, in metres, with `y` 0.
    pub fn center(&self) -> Position {
        if self.engine.clusters.is_some() {
            let count = f64::from(self.size());
            let mean = self.members().fold((0.0, 0.0), |(x, z), (_, at)| {
                (x + f64::from(at.x) / count, z + f64::from(at.z) / count)
            });
            return Position::new(mean.0 as f32, 0.0, mean.1 as f32);
        }
        let (x, z) = self.engine.spatial.centre(self.island);
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
        self.engine.peers[self.peer].address
    }

    /// Its last reported position.
    pub fn position(&self) -> Position {
        let at = self.engine.position(self.peer);
        Position::new(at.x, self.engine.peers[self.peer].height_m, at.z)
    }

    /// Its island; `None` before the first flush after it arrived.
    pub fn island(&self) -> Option<IslandView<'a>> {
        let island = self.engine.spatial.island_of(self.peer);
        (island != NONE).then_some(IslandView { engine: self.engine, island })
    }

    /// The island and the node of the last assignment of its client, in its current session.
    pub fn last_assigned(&self) -> Option<(IslandId, &'a NodeName)> {
        let record = &self.engine.peers[self.peer];
        let node = self.engine.registry.name(record.last_assigned_node)?;
        (record.last_assigned != Serial::NONE)
            .then(|| (self.engine.ids.island_id(record.last_assigned), node))
    }

    /// Its session, if any of its messages carried one.
    pub fn session(&self) -> Option<SessionId> {
        self.engine.peers.session(self.peer)
    }

    /// When its last message arrived, to the millisecond.
    pub fn last_seen(&self) -> Duration {
        self.engine.peers[self.peer].last_seen()
    }

    /// Its preferred island, if it has one.
    pub fn desired_room(&self) -> Option<IslandId> {
        self.engine.preferred_island.get(&self.peer).map(|&island| self.engine.ids.island_id(island))
    }
}
