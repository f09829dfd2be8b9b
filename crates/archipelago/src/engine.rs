use std::{collections::VecDeque, sync::Arc, time::Duration};

use protocol::{Address, Position, SessionId};
use rustc_hash::FxHashMap;

use crate::{
    clusters::Clusters,
    event::{Input, Output},
    flush::{self, MoveOrigin, PlacementState},
    ids::{IslandIds, Serial},
    islands::{EmptyIsland, IslandState, Islands},
    peers::{Flags, PeerState, Peers, SessionCheck},
    reconnect_grace::ReconnectGrace,
    registry::{NO_NODE, NodeIndex, Registry},
    settings::{Clustering, Settings, SettingsError},
    slab::{NONE, push_growing_by_eighth},
    spatial::{Capabilities, PeerTraits, Point, SpatialIndex},
    transitions::ZoneTransitions,
    zones::{OPEN_ZONE, Zones},
};

/// Places farther out than this, in metres, are refused: a number of this size still tells half
/// metres apart, and sums of such numbers fit.
pub(crate) const MAX_COORDINATE_M: f32 = 4_000_000.0;

/// The island engine. See the crate's documentation for its contract.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) ids: IslandIds,
    pub(crate) peers: Peers,
    pub(crate) spatial: SpatialIndex,
    /// Who is together, if somebody else says so.
    pub(crate) clusters: Option<Clusters>,
    pub(crate) islands: Islands,
    pub(crate) registry: Registry,
    pub(crate) zones: Zones,
    pub(crate) zone_transitions: ZoneTransitions,
    /// The zones are new ones: islands may hold members who do not belong together.
    pub(crate) zones_rebuilt: bool,
    /// The islands were just taken over from another engine.
    pub(crate) just_resumed: bool,
    /// What clients said that they can join, of those that did.
    pub(crate) client_transports: FxHashMap<u32, Vec<String>>,
    /// When sessions that had been replaced were last heard.
    pub(crate) stale_heartbeats: FxHashMap<u32, Duration>,
    pub(crate) reconnect_grace: ReconnectGrace,
    pub(crate) empty_islands: VecDeque<EmptyIsland>,
    /// Islands to be looked at again though nothing of theirs changes: without a node, on one that
    /// is not the one they should be on, or about to change.
    pub(crate) watched: Vec<u32>,
    /// Islands that changed lately, or are about to.
    pub(crate) placement: FxHashMap<u32, PlacementState>,
    /// Something changed that may concern every island.
    pub(crate) reevaluate_all: bool,
    /// This flush has found it more or less crowded somewhere, for long enough to count.
    pub(crate) crowding_changed: bool,
    /// Who would like to be in which island.
    pub(crate) preferred_island: FxHashMap<u32, Serial>,
    /// Nobody can fall silent before this.
    pub(crate) next_silence_check: Duration,
    pub(crate) pending: Pending,
    pub(crate) scratch: flush::Scratch,
    pub(crate) counters: Counters,
    /// Whether the pieces of crowds are cut by place. Simulations compare with what is without it.
    pub(crate) rebalances: bool,
}

/// What waits for the next flush.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    /// Peers in the world that are in no island yet, in the order of their coming.
    pub(crate) joining: Vec<u32>,
    /// Peers that left and are in an island still.
    pub(crate) leaving: Vec<u32>,
    /// Peers that are in an island and were taken out of their cluster.
    pub(crate) unclustered: Vec<u32>,
    /// Peers for whom something may have to be announced.
    pub(crate) to_report: Vec<u32>,
    /// Peers that moved, and were in an island.
    pub(crate) moved: Vec<u32>,
    /// Where they stood before, as long as they were few in their island.
    pub(crate) move_origins: Vec<MoveOrigin>,
    /// Islands that hold a member which moved, came or left.
    pub(crate) dirty: Vec<u32>,
    /// Islands whose members are not those of the last flush.
    pub(crate) changed: Vec<u32>,
    /// Islands that ended in this flush and had an id.
    pub(crate) closed: Vec<u32>,
    /// How many islands were begun in this flush.
    pub(crate) opened_count: u64,
}

impl Pending {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let people = [&self.joining, &self.leaving, &self.unclustered, &self.to_report, &self.moved];
        let islands = [&self.dirty, &self.changed, &self.closed];
        let lists = people.into_iter().chain(islands);
        lists.map(|list| list.capacity() * size_of::<u32>()).sum::<usize>()
            + self.move_origins.capacity() * size_of::<MoveOrigin>()
    }
}

/// What the engine ignored, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Heartbeats whose position is not a number, or beyond what the engine can work with.
    pub positions_refused: u64,
    /// Messages of a session that is not the wallet's latest.
    pub stale_messages: u64,
    /// Announcements of nodes beyond the 65,535 that the registry can name, or that need a ninth
    /// capability of clients.
    pub nodes_refused: u64,
}

impl Engine {
    /// An engine of empty islands. `started_ms`, in milliseconds since the Unix epoch, is part of
    /// each island's id: no two engines that share an id prefix may be given the same.
    pub fn new(settings: Settings, started_ms: u64) -> Result<Self, SettingsError> {
        settings.validate()?;
        let zones = Zones::new(&settings, Arc::default());
        let mut engine = Self {
            zone_transitions: ZoneTransitions::default(),
            zones_rebuilt: false,
            just_resumed: false,
            client_transports: FxHashMap::default(),
            stale_heartbeats: FxHashMap::default(),
            ids: IslandIds::new(&settings.id_prefix, started_ms),
            spatial: SpatialIndex::new(zones.max_distance_m()),
            clusters: (settings.clustering == Clustering::External).then(Clusters::default),
            settings,
            peers: Peers::default(),
            islands: Islands::default(),
            registry: Registry::default(),
            reconnect_grace: ReconnectGrace::default(),
            empty_islands: VecDeque::new(),
            watched: Vec::new(),
            placement: FxHashMap::default(),
            reevaluate_all: false,
            crowding_changed: false,
            preferred_island: FxHashMap::default(),
            next_silence_check: Duration::ZERO,
            pending: Pending::default(),
            scratch: flush::Scratch::default(),
            counters: Counters::default(),
            rebalances: true,
            zones,
        };
        engine.zones.add_capability_set(Capabilities::ALL);
        engine.spatial.distances.set(OPEN_ZONE, engine.zones.distances(OPEN_ZONE));
        engine.zones.recompute_limits(&engine.registry);
        Ok(engine)
    }

    /// Takes note of what happened. Nothing is decided before the next [`current`](Self::flush).
    pub fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Connected { peer, session, transports, resumes } => {
                self.connected(peer, session, transports, resumes, now);
            }
            Input::Heartbeat { peer, session, position, desired_room } => {
                self.heartbeat(peer, session, position, desired_room.as_deref(), now);
            }
            Input::Cluster { peer, session, cluster } => {
                self.cluster(peer, session, cluster.as_deref(), now);
            }
            Input::Disconnected { peer, session } => self.disconnected(peer, session),
            Input::ResendAssignment { peer, session, from } => {
                self.resend_assignment(peer, session, from.as_ref())
            }
            Input::Transport(transport) => {
                let known = self.registry.capabilities_count();
                let another = self.registry.replaced_node(&transport);
                let taken = self.registry.apply_announcement(transport, now);
                self.counters.nodes_refused += u64::from(!taken);
                if self.registry.capabilities_count() > known {
                    self.recompute_capabilities();
                }
                if let Some(node) = another {
                    self.invalidate_assignments(node);
                }
            }
            Input::TransportGone { node } => self.registry.withdraw(&node),
            Input::Rules(rules) => {
                self.zones.set_rules(rules);
                self.rebuild_zones();
            }
            Input::TimeOfDay { minute } => {
                if self.zones.set_minute(minute) {
                    self.rebuild_zones();
                }
            }
        }
    }

    /// The zones are others: counts everybody to the one that they stand in.
    fn rebuild_zones(&mut self) {
        self.spatial.set_max_distance(self.zones.max_distance_m());
        self.spatial.distances.clear();
        self.spatial.distances.set(OPEN_ZONE, self.zones.distances(OPEN_ZONE));
        self.zones.recompute_limits(&self.registry);
        self.zone_transitions.clear();
        let known: Vec<u32> = self.peers.known().collect();
        known.into_iter().for_each(|peer| self.enter_current_zone(peer));
        self.placement.values_mut().for_each(PlacementState::reset_candidates);
        let islands: Vec<u32> = self.islands.populated().collect();
        islands.into_iter().for_each(|island| self.mark_dirty(island));
        self.islands.forget_rules();
        (self.zones_rebuilt, self.reevaluate_all) = (true, true);
    }

    /// There is something that clients may or may not be able to join that there was not before.
    fn recompute_capabilities(&mut self) {
        let known: Vec<u32> = self.peers.known().collect();
        for peer in known {
            self.set_capabilities(peer);
        }
    }

    /// Has limits worked out for these capabilities, if they are new.
    fn add_capability_set(&mut self, capabilities: Capabilities) {
        if self.zones.add_capability_set(capabilities) {
            self.zones.recompute_limits(&self.registry);
        }
    }

    /// Works out what a peer can join.
    pub(crate) fn set_capabilities(&mut self, peer: u32) {
        let names = self.client_transports.get(&peer).unwrap_or(&self.settings.assumed_transports);
        let capabilities = self.registry.capabilities(names);
        let terms = self.spatial.traits(peer);
        if terms.capabilities() == capabilities {
            return;
        }
        self.add_capability_set(capabilities);
        self.spatial.set_traits(peer, PeerTraits::new(terms.zone(), capabilities));
        let island = self.spatial.island_of(peer);
        if island != NONE {
            self.mark_dirty(island);
            self.mark_changed(island);
        }
    }

    /// Brings the islands in line with all that was handled so far, and adds what changed to
    /// `outputs`.
    pub fn flush(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        flush::run(self, now, outputs);
    }

    fn connected(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        transports: Option<Vec<String>>,
        resumes: Option<SessionId>,
        now: Duration,
    ) {
        let Some(peer) = self.resolve_sender_resuming(address, session, resumes) else { return };
        match transports {
            Some(transports) => drop(self.client_transports.insert(peer, transports)),
            None => drop(self.client_transports.remove(&peer)),
        }
        self.set_capabilities(peer);
        let record = &mut self.peers[peer];
        record.set_last_seen(now);
        record.clear_assignment();
        record.flags.replace(Flags::AWAITING_HEARTBEAT, true);
    }

    fn heartbeat(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        position: Position,
        desired_room: Option<&str>,
        now: Duration,
    ) {
        if !is_in_world_bounds(position) {
            self.reject_position(address, session, now);
            return;
        }
        let Some(peer) = self.resolve_sender(address, session) else {
            if let Some(peer) = self.peers.find(address) {
                self.stale_heartbeats.insert(peer, now);
            }
            return;
        };
        let record = &mut self.peers[peer];
        record.set_last_seen(now);
        record.flags.replace(Flags::AWAITING_HEARTBEAT, false);
        record.flags.replace(Flags::TIMED_OUT, false);
        record.height_m = position.y;
        let (state, untold) = (record.state, record.last_assigned == Serial::NONE);
        let to = Point { x: position.x, z: position.z };
        let from = self.set_position(peer, to);
        if state != PeerState::Present {
            self.mark_present(peer);
        }
        if self.spatial.island_of(peer) == NONE {
            self.enter_current_zone(peer);
        } else if from != to && self.zones.is_partitioned() {
            self.update_zone_transition(peer, from, now);
        }
        if untold && self.island_has_node(peer) {
            self.queue_report(peer);
        }
        if let Some(room) = desired_room {
            self.set_preferred_island(peer, room);
        }
    }

    /// Notes where a peer stands. Returns where it stood before.
    pub(crate) fn set_position(&mut self, peer: u32, to: Point) -> Point {
        if let Some(clusters) = &mut self.clusters {
            return clusters.set_position(peer, to);
        }
        self.set_indexed_position(peer, to)
    }

    /// Where a peer stands.
    pub(crate) fn position(&self, peer: u32) -> Point {
        self.clusters.as_ref().map_or_else(|| self.spatial.position(peer), |clusters| clusters.position(peer))
    }

    /// Puts a peer elsewhere on the ground. Returns where it was before.
    fn set_indexed_position(&mut self, peer: u32, to: Point) -> Point {
        let from = self.spatial.position(peer);
        if from != to {
            self.spatial.set_position(peer, to);
            self.mark_moved(peer, from);
        }
        from
    }

    fn cluster(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        cluster: Option<&str>,
        now: Duration,
    ) {
        if self.clusters.is_none() {
            return;
        }
        let Some(peer) = self.resolve_sender(address, session) else { return };
        if self.peers[peer].state == PeerState::Connected {
            // It may be said before the peer says where it is.
            self.peers[peer].set_last_seen(now);
        }
        self.set_cluster(peer, cluster);
    }

    /// Puts a peer into a cluster, or into none; the next flush does the rest.
    pub(crate) fn set_cluster(&mut self, peer: u32, cluster: Option<&str>) {
        let Some(clusters) = &mut self.clusters else { return };
        if !clusters.set(peer, cluster) {
            return;
        }
        let spot = clusters.anchor(peer);
        let outside = self.spatial.island_of(peer) == NONE;
        if let Some(spot) = spot {
            self.set_indexed_position(peer, spot);
            if outside && self.peers[peer].state == PeerState::Present {
                self.pending.joining.push(peer);
            }
        } else if !outside {
            self.pending.unclustered.push(peer);
        }
    }

    /// Whether a peer is to be in an island.
    pub(crate) fn is_placeable(&self, peer: u32) -> bool {
        self.clusters.as_ref().is_none_or(|clusters| clusters.has_cluster(peer))
    }

    /// A position that cannot be worked with: whoever is in the world stays where it was, and has
    /// been heard.
    fn reject_position(&mut self, address: Address, session: Option<SessionId>, now: Duration) {
        self.counters.positions_refused += 1;
        if self.peers.find(address).is_none() {
            return;
        }
        if let Some(peer) = self.resolve_sender(address, session) {
            self.peers[peer].set_last_seen(now);
        }
    }

    /// A node is where it was not: has everybody told again whose island is there.
    fn invalidate_assignments(&mut self, node: NodeIndex) {
        let known: Vec<u32> = self.peers.known().collect();
        for peer in known {
            if self.peers[peer].last_assigned_node == node {
                self.peers[peer].last_assigned_node = NO_NODE;
                if self.island_has_node(peer) {
                    self.queue_report(peer);
                }
            }
        }
    }

    /// Whether the peer is in an island that has a node. The members of one that gets a node are
    /// looked at then.
    pub(crate) fn island_has_node(&self, peer: u32) -> bool {
        let island = self.spatial.island_of(peer);
        island != NONE && self.islands[island].node != NO_NODE
    }

    /// A peer that was not in the world is.
    fn mark_present(&mut self, peer: u32) {
        self.peers.set_state(peer, PeerState::Present);
        // One that left since the last flush still has its place.
        if self.spatial.island_of(peer) == NONE && self.is_placeable(peer) {
            self.pending.joining.push(peer);
        }
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>) {
        // Nobody need be made known in order to be forgotten.
        if self.peers.find(address).is_none() {
            return;
        }
        let Some(peer) = self.resolve_sender(address, session) else { return };
        self.peers[peer].clear_assignment();
        self.mark_departed(peer);
    }

    /// A peer leaves the world; the next flush takes it out of its island.
    pub(crate) fn mark_departed(&mut self, peer: u32) {
        if self.peers[peer].state == PeerState::Present {
            self.peers.set_state(peer, PeerState::Departed);
            self.pending.leaving.push(peer);
        }
    }

    /// The peer that a message is from, unless it is of a session that has been replaced.
    pub(crate) fn resolve_sender(&mut self, address: Address, session: Option<SessionId>) -> Option<u32> {
        self.resolve_sender_resuming(address, session, None)
    }

    /// The same; a new session resumes this older one.
    fn resolve_sender_resuming(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<u32> {
        let (peer, new) = self.peers.intern(address);
        if new {
            let terms =
                PeerTraits::new(OPEN_ZONE, self.registry.capabilities(&self.settings.assumed_transports));
            self.add_capability_set(terms.capabilities());
            self.spatial.add_peer(peer, terms);
        }
        match self.peers.check_session(peer, session, resumes) {
            SessionCheck::Stale => {
                self.counters.stale_messages += 1;
                None
            }
            SessionCheck::Current => Some(peer),
            SessionCheck::TakenOver => {
                self.mark_taken_over(peer);
                Some(peer)
            }
        }
    }

    /// A newer session of a peer did not resume the one before: the next flush revokes the tokens of
    /// that one, if the peer is in an island by then, or else the flush that puts it into one.
    pub(crate) fn mark_taken_over(&mut self, peer: u32) {
        self.peers[peer].flags.replace(Flags::TAKEN_OVER, true);
        if self.spatial.island_of(peer) != NONE {
            self.queue_report(peer);
        }
    }

    pub(crate) fn set_preferred_island(&mut self, peer: u32, room: &str) {
        // A room that is no island of ours can never be among the candidates.
        let wish = self.ids.serial(room);
        let before = match wish {
            Some(island) => self.preferred_island.insert(peer, island),
            None => self.preferred_island.remove(&peer),
        };
        if before != wish {
            self.mark_dirty(self.spatial.island_of(peer));
        }
    }

    /// Has the next flush look at an island, all of it.
    pub(crate) fn mark_dirty(&mut self, island: u32) {
        if island == NONE {
            return;
        }
        let record = &mut self.islands[island];
        record.movers = u32::MAX;
        if !std::mem::replace(&mut record.dirty, true) {
            self.pending.dirty.push(island);
        }
    }

    /// Has the next flush look at a peer and its island.
    fn mark_moved(&mut self, peer: u32, from: Point) {
        let island = self.spatial.island_of(peer);
        if island == NONE || self.peers[peer].flags.replace(Flags::MOVED, true) {
            return;
        }
        let turn = self.pending.moved.len() as u32;
        self.pending.moved.push(peer);
        let record = &mut self.islands[island];
        record.movers = record.movers.saturating_add(1);
        if flush::are_few_movers(record.movers, self.spatial.size(island)) {
            push_growing_by_eighth(
                &mut self.pending.move_origins,
                MoveOrigin { move_index: turn, island, from },
            );
        }
        if !std::mem::replace(&mut record.dirty, true) {
            self.pending.dirty.push(island);
        }
    }

    /// Has the next flush see whether something is to be told about a peer.
    pub(crate) fn queue_report(&mut self, peer: u32) {
        if !self.peers[peer].flags.replace(Flags::REPORT_QUEUED, true) {
            self.pending.to_report.push(peer);
        }
    }

    /// A new island, still without members and without an id.
    pub(crate) fn open_island(&mut self) -> u32 {
        self.pending.opened_count += 1;
        // Later than all that have a serial, in the order of their making.
        let island = self.islands.add(self.ids.peek_next() + self.pending.opened_count);
        self.spatial.add_island(island);
        island
    }

    /// Ends an island that has no members.
    pub(crate) fn close_island(&mut self, island: u32) {
        self.islands.set_state(island, IslandState::Closed);
        self.placement.remove(&island);
        if self.islands[island].serial == Serial::NONE {
            self.islands.remove(island);
        } else {
            self.pending.closed.push(island);
        }
    }

    /// Puts a peer that stands nowhere into an island.
    pub(crate) fn add_member(&mut self, peer: u32, island: u32) {
        self.spatial.add_member(peer, island);
        self.queue_report(peer);
        self.mark_changed(island);
    }

    /// Notes that an island's members are no longer those of the last flush.
    pub(crate) fn mark_changed(&mut self, island: u32) {
        if !std::mem::replace(&mut self.islands[island].members_changed, true) {
            self.pending.changed.push(island);
        }
    }
}

pub(crate) fn is_in_world_bounds(position: Position) -> bool {
    // Comparisons with NaN are false.
    [position.x, position.y, position.z].iter().all(|metres| metres.abs() <= MAX_COORDINATE_M)
}
