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

/// An island, as of the last flush. Members stand where they last said, which may be later.
#[derive(Clone, Copy)]
pub struct IslandView<'a> {
    engine: &'a Engine,
    island: u32,
}

/// A peer.
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

    /// A peer that is in the world: it has said where it is, and has not left.
    pub fn peer(&self, peer: Address) -> Option<PeerView<'_>> {
        let peer = self.peers.find(peer)?;
        (self.peers[peer].state == PeerState::Present).then_some(PeerView { engine: self, peer })
    }

    /// Whether anything was heard of this session of a peer, or of a later one, and is not forgotten;
    /// without a session, of the peer.
    pub fn knows_session(&self, peer: Address, session: Option<SessionId>) -> bool {
        let Some(peer) = self.peers.find(peer) else { return false };
        session.is_none_or(|session| Some(session) <= self.peers.session(peer))
    }

    /// All peers in the world.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        let present = self.peers.known().filter(|&peer| self.peers[peer].state == PeerState::Present);
        present.map(|peer| PeerView { engine: self, peer })
    }

    /// How many peers are in the world.
    pub fn peers_count(&self) -> usize {
        self.peers.present_count()
    }

    /// How many peers are in the world and to be in an island.
    pub(crate) fn placeable_count(&self) -> usize {
        let present = self.peers.known().filter(|&peer| self.peers[peer].state == PeerState::Present);
        present.filter(|&peer| self.is_placeable(peer)).count()
    }

    /// Who is in which island and where on the ground, which is where they stand unless somebody else
    /// says who is together.
    pub(crate) fn spatial_members(&self) -> impl Iterator<Item = (IslandView<'_>, Vec<(Address, Position)>)> {
        self.islands().map(|view| {
            let members = self.spatial.members(view.island);
            let member = |Member { peer, at, .. }| (self.peers[peer].address, Position::new(at.x, 0.0, at.z));
            (view, members.map(member).collect())
        })
    }

    /// How many islands wait for a transport, and one of them.
    pub fn islands_without_transport(&self) -> (usize, Option<IslandView<'_>>) {
        let waits =
            |&&island: &&u32| self.islands.is_populated(island) && self.islands[island].node == NO_NODE;
        let mut waiting = self.watched.iter().filter(waits);
        let first = waiting.next().map(|&island| IslandView { engine: self, island });
        (waiting.count() + usize::from(first.is_some()), first)
    }

    /// How many islands have members.
    pub fn islands_count(&self) -> usize {
        self.islands.populated_count()
    }

    /// The nodes ever announced.
    pub fn transports(&self) -> impl Iterator<Item = TransportView<'_>> {
        self.registry.views()
    }

    /// The most members that an island of clients that can join anything may have at present where
    /// no rule is about the place: the setting, or less where no node offers rooms so large. While
    /// nothing is on offer, what it was before.
    pub fn open_zone_limit(&self) -> u32 {
        self.zones.size_limit(OPEN_ZONE, Capabilities::ALL)
    }

    /// What holds for whom, if not the same holds for all.
    pub(crate) fn per_peer_bounds(&self) -> Option<PerPeerBounds> {
        let Settings { join_distance_m, leave_distance_m, .. } = self.settings;
        let open = self.zones.distances(OPEN_ZONE);
        let plain = (open.join_m, open.leave_m) == (join_distance_m, leave_distance_m);
        if plain && !self.zones.is_partitioned() && self.zones.uniform_limit().is_some() {
            return None;
        }
        let peers = self.peers.known().map(|peer| {
            let terms = self.spatial.traits(peer);
            let ZoneDistances { enclosure, join_m, leave_m } = self.zones.distances(terms.zone());
            let (zone, capabilities) = (terms.zone(), terms.capabilities().0);
            (self.peers[peer].address, PeerBounds { zone, enclosure, capabilities, join_m, leave_m })
        });
        Some(PerPeerBounds { peers: peers.collect(), limits: self.zones.limits().collect() })
    }

    /// The owners' rules.
    pub fn rules(&self) -> &Rules {
        &self.zones.rules
    }

    /// An island on a node that is gone, drains, has rooms too small or is not for all members, or on
    /// none at all, while another that is named by the rule for its place and size could hold it. Not
    /// one that counts its seats: they may have been given back after the island was judged.
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

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was ignored so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes that the engine holds for its peers and islands, by the capacity of its tables.
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

    /// Its members and where they stand, in no order that means anything.
    pub fn members(&self) -> impl Iterator<Item = (Address, Position)> + use<'a> {
        let engine = self.engine;
        engine.spatial.members(self.island).map(|Member { peer, .. }| {
            let (record, at) = (&engine.peers[peer], engine.position(peer));
            (record.address, Position::new(at.x, record.height_m, at.z))
        })
    }

    /// How many members it has.
    pub fn size(&self) -> u32 {
        self.engine.spatial.size(self.island)
    }

    /// The most members that it may have.
    pub fn max_peers(&self) -> u32 {
        self.engine.size_limit(self.island)
    }

    /// The node that holds its room; `None` while no node is to be had.
    pub fn transport(&self) -> Option<&'a NodeName> {
        self.engine.registry.name(self.engine.islands[self.island].node)
    }

    /// The mean of its members' places, in metres, with `y` 0.
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

    /// How far from the centre its farthest member stands, in metres on the ground.
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

    /// Where it last said it stands.
    pub fn position(&self) -> Position {
        let at = self.engine.position(self.peer);
        Position::new(at.x, self.engine.peers[self.peer].height_m, at.z)
    }

    /// The island that it is in; `None` before the first flush after it came.
    pub fn island(&self) -> Option<IslandView<'a>> {
        let island = self.engine.spatial.island_of(self.peer);
        (island != NONE).then_some(IslandView { engine: self.engine, island })
    }

    /// The island and the node that its client was last told of, in its present session.
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

    /// When it was last heard, to the millisecond.
    pub fn last_seen(&self) -> Duration {
        self.engine.peers[self.peer].last_seen()
    }

    /// The island that it would like to be in, if it said so.
    pub fn desired_room(&self) -> Option<IslandId> {
        self.engine.preferred_island.get(&self.peer).map(|&island| self.engine.ids.island_id(island))
    }
}
