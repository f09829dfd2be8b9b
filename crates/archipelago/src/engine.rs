//! The [`Engine`]: its state, and how each [`Input`] updates that state. Decisions are made in a
//! [flush](crate::flush) only.

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

/// The largest absolute coordinate that a heartbeat may carry, in metres; a position beyond it is
/// refused. An `f32` of this size still resolves half a metre, and sums of such coordinates do not
/// overflow.
pub(crate) const MAX_COORDINATE_M: f32 = 4_000_000.0;

/// The island engine. See the crate's documentation for its contract.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) ids: IslandIds,
    pub(crate) peers: Peers,
    pub(crate) spatial: SpatialIndex,
    /// The cluster of each peer; `None` unless [`Clustering::External`] is set.
    pub(crate) clusters: Option<Clusters>,
    pub(crate) islands: Islands,
    pub(crate) registry: Registry,
    pub(crate) zones: Zones,
    pub(crate) zone_transitions: ZoneTransitions,
    /// The zones were rebuilt since the last flush: islands may hold members of different enclosures.
    pub(crate) zones_rebuilt: bool,
    /// The engine was resumed from a snapshot and has not flushed since.
    pub(crate) just_resumed: bool,
    /// The transports that a client announced, by peer. A peer without an entry has the
    /// [`assumed_transports`](Settings::assumed_transports).
    pub(crate) client_transports: FxHashMap<u32, Vec<String>>,
    /// When a replaced session last sent a heartbeat, by peer. Only [`Engine::explain`] reads it.
    pub(crate) stale_heartbeats: FxHashMap<u32, Duration>,
    pub(crate) reconnect_grace: ReconnectGrace,
    pub(crate) empty_islands: VecDeque<EmptyIsland>,
    /// Islands that are evaluated again although none of their members changes: without a node, on a
    /// node that is not the preferred one, or with a change pending.
    pub(crate) watched: Vec<u32>,
    /// Islands that moved recently or have a change pending.
    pub(crate) placement: FxHashMap<u32, PlacementState>,
    /// Rules, nodes or crowding changed: the next flush evaluates the placement of every island.
    pub(crate) reevaluate_all: bool,
    /// In this flush a crowding condition of a rule changed, after the settling time.
    pub(crate) crowding_changed: bool,
    /// The island that a peer prefers, by peer.
    pub(crate) preferred_island: FxHashMap<u32, Serial>,
    /// No peer can time out before this time.
    pub(crate) next_silence_check: Duration,
    pub(crate) pending: Pending,
    pub(crate) scratch: flush::Scratch,
    pub(crate) counters: Counters,
    /// Whether members of crowds are exchanged so that neighbours share an island. Simulations switch
    /// it off to compare.
    pub(crate) rebalances: bool,
}

/// Changes that the next flush processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    /// Peers in the world that are in no island yet, in the order in which they arrived.
    pub(crate) joining: Vec<u32>,
    /// Peers that left the world and have not been removed from their island.
    pub(crate) leaving: Vec<u32>,
    /// Members of an island that were removed from their cluster.
    pub(crate) unclustered: Vec<u32>,
    /// Peers with a possible change of membership or assignment. The flush emits an output only for a
    /// real one.
    pub(crate) to_report: Vec<u32>,
    /// Members of islands that moved.
    pub(crate) moved: Vec<u32>,
    /// Their positions before the move, recorded only while an island has few movers (see
    /// [`are_few_movers`](flush::are_few_movers)).
    pub(crate) move_origins: Vec<MoveOrigin>,
    /// Islands with a member that moved, joined or left.
    pub(crate) dirty: Vec<u32>,
    /// Islands with other members than after the last flush.
    pub(crate) changed: Vec<u32>,
    /// Islands that were closed in this flush and had an id.
    pub(crate) closed: Vec<u32>,
    /// The number of islands created in this flush.
    pub(crate) opened_count: u64,
}

impl Pending {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let peers = [&self.joining, &self.leaving, &self.unclustered, &self.to_report, &self.moved];
        let islands = [&self.dirty, &self.changed, &self.closed];
        let lists = peers.into_iter().chain(islands);
        lists.map(|list| list.capacity() * size_of::<u32>()).sum::<usize>()
            + self.move_origins.capacity() * size_of::<MoveOrigin>()
    }
}

/// Inputs that the engine has ignored since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Heartbeats with a position that is not a number, or farther than 4,000 km from the origin on an
    /// axis.
    pub positions_refused: u64,
    /// Messages of a session that is not the wallet's latest.
    pub stale_messages: u64,
    /// Announcements of nodes beyond the 65,535 that the registry can index, or that require a ninth
    /// distinct capability of clients.
    pub nodes_refused: u64,
}

impl Engine {
    /// An engine without peers or islands. `started_ms`, in milliseconds since the Unix epoch, is part
    /// of each island id: two engines that share an id prefix must not be given the same value.
    ///
    /// # Errors
    ///
    /// A value of `settings` is out of its bounds.
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

    /// Records an event that happened at `now`. Nothing is decided before the next
    /// [`flush`](Self::flush).
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

    /// Recomputes everything that depends on zones after the set of rules in force changed, and assigns
    /// every peer to the zone at its position, without waiting for the settling time.
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

    /// A node announced a capability that was not known before: recomputes the capabilities of every
    /// peer.
    fn recompute_capabilities(&mut self) {
        let known: Vec<u32> = self.peers.known().collect();
        for peer in known {
            self.set_capabilities(peer);
        }
    }

    /// Computes the size limits for a set of capabilities, if it is new.
    fn add_capability_set(&mut self, capabilities: Capabilities) {
        if self.zones.add_capability_set(capabilities) {
            self.zones.recompute_limits(&self.registry);
        }
    }

    /// Recomputes the capabilities of a peer from its announced or assumed transports.
    pub(crate) fn set_capabilities(&mut self, peer: u32) {
        let names = self.client_transports.get(&peer).unwrap_or(&self.settings.assumed_transports);
        let capabilities = self.registry.capabilities(names);
        let traits = self.spatial.traits(peer);
        if traits.capabilities() == capabilities {
            return;
        }
        self.add_capability_set(capabilities);
        self.spatial.set_traits(peer, PeerTraits::new(traits.zone(), capabilities));
        let island = self.spatial.island_of(peer);
        if island != NONE {
            self.mark_dirty(island);
            self.mark_changed(island);
        }
    }

    /// Evaluates all events handled so far, updates the islands, and appends the difference to the
    /// state after the flush before to `outputs`.
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
        let (state, unassigned) = (record.state, record.last_assigned == Serial::NONE);
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
        if unassigned && self.island_has_node(peer) {
            self.queue_report(peer);
        }
        if let Some(room) = desired_room {
            self.set_preferred_island(peer, room);
        }
    }

    /// Records the position of a peer. Returns the position before.
    pub(crate) fn set_position(&mut self, peer: u32, to: Point) -> Point {
        if let Some(clusters) = &mut self.clusters {
            return clusters.set_position(peer, to);
        }
        self.set_indexed_position(peer, to)
    }

    /// The position of a peer as it last reported it. With external clustering the spatial index holds
    /// the anchor of the peer's cluster instead.
    pub(crate) fn position(&self, peer: u32) -> Point {
        self.clusters.as_ref().map_or_else(|| self.spatial.position(peer), |clusters| clusters.position(peer))
    }

    /// Sets the point of a peer in the spatial index. Returns the point before.
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
            // The cluster may be known before the first heartbeat. It counts as a sign of life, so that
            // the peer does not time out before.
            self.peers[peer].set_last_seen(now);
        }
        self.set_cluster(peer, cluster);
    }

    /// Sets or clears the cluster of a peer. The next flush moves the peer to another island.
    pub(crate) fn set_cluster(&mut self, peer: u32, cluster: Option<&str>) {
        let Some(clusters) = &mut self.clusters else { return };
        if !clusters.set(peer, cluster) {
            return;
        }
        let anchor = clusters.anchor(peer);
        let outside = self.spatial.island_of(peer) == NONE;
        if let Some(anchor) = anchor {
            self.set_indexed_position(peer, anchor);
            if outside && self.peers[peer].state == PeerState::Present {
                self.pending.joining.push(peer);
            }
        } else if !outside {
            self.pending.unclustered.push(peer);
        }
    }

    /// Whether a peer may be in an island: always, unless clusters are external and the peer has none.
    pub(crate) fn is_placeable(&self, peer: u32) -> bool {
        self.clusters.as_ref().is_none_or(|clusters| clusters.has_cluster(peer))
    }

    /// Handles a heartbeat with an invalid position: the peer keeps its last position, and the
    /// heartbeat still counts as a sign of life.
    fn reject_position(&mut self, address: Address, session: Option<SessionId>, now: Duration) {
        self.counters.positions_refused += 1;
        if self.peers.find(address).is_none() {
            return;
        }
        if let Some(peer) = self.resolve_sender(address, session) {
            self.peers[peer].set_last_seen(now);
        }
    }

    /// A node has another URL or a restarted process: its clients need a new connection string, so
    /// every peer that was assigned to it gets a new assignment at the next flush.
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

    /// Whether the peer is in an island that has a node. When an island without one gets a node, all
    /// its members are queued for a report.
    pub(crate) fn island_has_node(&self, peer: u32) -> bool {
        let island = self.spatial.island_of(peer);
        island != NONE && self.islands[island].node != NO_NODE
    }

    /// Marks a peer as present in the world.
    fn mark_present(&mut self, peer: u32) {
        self.peers.set_state(peer, PeerState::Present);
        // A peer that left since the last flush is still a member of its island.
        if self.spatial.island_of(peer) == NONE && self.is_placeable(peer) {
            self.pending.joining.push(peer);
        }
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>) {
        // Without this check a message from an unknown peer would create a record.
        if self.peers.find(address).is_none() {
            return;
        }
        let Some(peer) = self.resolve_sender(address, session) else { return };
        self.peers[peer].clear_assignment();
        self.mark_departed(peer);
    }

    /// Marks a peer as departed; the next flush removes it from its island.
    pub(crate) fn mark_departed(&mut self, peer: u32) {
        if self.peers[peer].state == PeerState::Present {
            self.peers.set_state(peer, PeerState::Departed);
            self.pending.leaving.push(peer);
        }
    }

    /// The number of the peer that sent a message; `None` if the session of the message has been
    /// replaced by a newer one.
    pub(crate) fn resolve_sender(&mut self, address: Address, session: Option<SessionId>) -> Option<u32> {
        self.resolve_sender_resuming(address, session, None)
    }

    /// The same, for a new session that resumes the older session `resumes`.
    fn resolve_sender_resuming(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<u32> {
        let (peer, new) = self.peers.intern(address);
        if new {
            let traits =
                PeerTraits::new(OPEN_ZONE, self.registry.capabilities(&self.settings.assumed_transports));
            self.add_capability_set(traits.capabilities());
            self.spatial.add_peer(peer, traits);
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

    /// Notes that a newer session of a peer did not resume the one before. The tokens of the old
    /// session are revoked by the next flush if the peer is in an island by then, otherwise by the
    /// flush that adds it to one.
    pub(crate) fn mark_taken_over(&mut self, peer: u32) {
        self.peers[peer].flags.replace(Flags::TAKEN_OVER, true);
        if self.spatial.island_of(peer) != NONE {
            self.queue_report(peer);
        }
    }

    /// Sets the preferred island of a peer; an id that is not an island of this engine clears it.
    pub(crate) fn set_preferred_island(&mut self, peer: u32, room: &str) {
        // An id that this engine neither restored nor can have assigned is never a merge candidate.
        let preferred = self.ids.serial(room);
        let before = match preferred {
            Some(island) => self.preferred_island.insert(peer, island),
            None => self.preferred_island.remove(&peer),
        };
        if before != preferred {
            self.mark_dirty(self.spatial.island_of(peer));
        }
    }

    /// Marks an island so that the next flush evaluates it completely.
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

    /// Marks a member that moved, and its island.
    fn mark_moved(&mut self, peer: u32, from: Point) {
        let island = self.spatial.island_of(peer);
        if island == NONE || self.peers[peer].flags.replace(Flags::MOVED, true) {
            return;
        }
        let move_index = self.pending.moved.len() as u32;
        self.pending.moved.push(peer);
        let record = &mut self.islands[island];
        record.movers = record.movers.saturating_add(1);
        if flush::are_few_movers(record.movers, self.spatial.size(island)) {
            push_growing_by_eighth(&mut self.pending.move_origins, MoveOrigin { move_index, island, from });
        }
        if !std::mem::replace(&mut record.dirty, true) {
            self.pending.dirty.push(island);
        }
    }

    /// Queues a peer so that the next flush checks whether its membership or assignment changed.
    pub(crate) fn queue_report(&mut self, peer: u32) {
        if !self.peers[peer].flags.replace(Flags::REPORT_QUEUED, true) {
            self.pending.to_report.push(peer);
        }
    }

    /// Creates an island without members and without an id.
    pub(crate) fn open_island(&mut self) -> u32 {
        self.pending.opened_count += 1;
        // Younger than every island that has a serial; islands of one flush in the order of creation.
        let island = self.islands.add(self.ids.peek_next() + self.pending.opened_count);
        self.spatial.add_island(island);
        island
    }

    /// Closes an island that has no members.
    pub(crate) fn close_island(&mut self, island: u32) {
        self.islands.set_state(island, IslandState::Closed);
        self.placement.remove(&island);
        if self.islands[island].serial == Serial::NONE {
            self.islands.remove(island);
        } else {
            self.pending.closed.push(island);
        }
    }

    /// Adds a peer that is in no island to an island.
    pub(crate) fn add_member(&mut self, peer: u32, island: u32) {
        self.spatial.add_member(peer, island);
        self.queue_report(peer);
        self.mark_changed(island);
    }

    /// Marks an island with other members than after the last flush.
    pub(crate) fn mark_changed(&mut self, island: u32) {
        if !std::mem::replace(&mut self.islands[island].members_changed, true) {
            self.pending.changed.push(island);
        }
    }
}

/// Whether the engine accepts a position: each coordinate is a number of at most 4,000 km.
pub(crate) fn is_in_world_bounds(position: Position) -> bool {
    // A comparison with NaN is false, so NaN is rejected.
    [position.x, position.y, position.z].iter().all(|metres| metres.abs() <= MAX_COORDINATE_M)
}
