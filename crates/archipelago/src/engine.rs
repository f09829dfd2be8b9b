use std::{collections::VecDeque, sync::Arc, time::Duration};

use protocol::{Address, Position, SessionId};
use rustc_hash::FxHashMap;

use crate::{
    clusters::Clusters,
    crossing::Crossings,
    event::{Input, Output},
    flush::{self, Pace, Step},
    ground::{Capabilities, Ground, Point, Terms},
    ids::{Ids, Serial},
    islands::{Desertion, IslandState, Islands},
    peers::{Admitted, Flags, Peers, State},
    registry::{NO_NODE, NodeIndex, Registry},
    returns::Returns,
    settings::{Clustering, Settings, SettingsError},
    slab::{NONE, push_tight},
    zones::{OPEN, Zones},
};

/// Places farther out than this, in metres, are refused: a number of this size still tells half
/// metres apart, and sums of such numbers fit.
pub(crate) const WORLD_EDGE_M: f32 = 4_000_000.0;

/// The island engine. See the crate's documentation for its contract.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) ids: Ids,
    pub(crate) peers: Peers,
    pub(crate) ground: Ground,
    /// Who is together, if somebody else says so.
    pub(crate) clusters: Option<Clusters>,
    pub(crate) islands: Islands,
    pub(crate) registry: Registry,
    pub(crate) zones: Zones,
    pub(crate) crossings: Crossings,
    /// The zones are new ones: islands may hold members who do not belong together.
    pub(crate) relaid: bool,
    /// The islands were just taken over from another engine.
    pub(crate) taken_over: bool,
    /// What clients said that they can join, of those that did.
    pub(crate) announced: FxHashMap<u32, Vec<String>>,
    /// When sessions that had been replaced were last heard.
    pub(crate) replaced: FxHashMap<u32, Duration>,
    pub(crate) returns: Returns,
    pub(crate) deserted: VecDeque<Desertion>,
    /// Islands to be looked at again though nothing of theirs changes: without a node, on one that
    /// is not the one they should be on, or about to change.
    pub(crate) watched: Vec<u32>,
    /// Islands that changed lately, or are about to.
    pub(crate) paces: FxHashMap<u32, Pace>,
    /// Something changed that may concern every island.
    pub(crate) judge_all: bool,
    /// This flush has found it more or less crowded somewhere, for long enough to count.
    pub(crate) crowding_changed: bool,
    /// Who would like to be in which island.
    pub(crate) wishes: FxHashMap<u32, Serial>,
    /// Nobody can fall silent before this.
    pub(crate) silence_due: Duration,
    pub(crate) pending: Pending,
    pub(crate) scratch: flush::Scratch,
    pub(crate) counters: Counters,
    /// Whether the pieces of crowds are cut by place. Simulations compare with what is without it.
    pub(crate) refines: bool,
}

/// What waits for the next flush.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    /// Peers in the world that are in no island yet, in the order of their coming.
    pub(crate) arrivals: Vec<u32>,
    /// Peers that left and are in an island still.
    pub(crate) leaving: Vec<u32>,
    /// Peers that are in an island and were taken out of their cluster.
    pub(crate) unclustered: Vec<u32>,
    /// Peers for whom something may have to be announced.
    pub(crate) listed: Vec<u32>,
    /// Peers that moved, and were in an island.
    pub(crate) moved: Vec<u32>,
    /// Where they stood before, as long as they were few in their island.
    pub(crate) steps: Vec<Step>,
    /// Islands that hold a member which moved, came or left.
    pub(crate) dirty: Vec<u32>,
    /// Islands whose members are not those of the last flush.
    pub(crate) changed: Vec<u32>,
    /// Islands that ended in this flush and had an id.
    pub(crate) closed: Vec<u32>,
    /// How many islands were begun in this flush.
    pub(crate) opened: u64,
}

impl Pending {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let people = [&self.arrivals, &self.leaving, &self.unclustered, &self.listed, &self.moved];
        let islands = [&self.dirty, &self.changed, &self.closed];
        let lists = people.into_iter().chain(islands);
        lists.map(|list| list.capacity() * size_of::<u32>()).sum::<usize>()
            + self.steps.capacity() * size_of::<Step>()
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
        settings.check()?;
        let zones = Zones::new(&settings, Arc::default());
        let mut engine = Self {
            crossings: Crossings::default(),
            relaid: false,
            taken_over: false,
            announced: FxHashMap::default(),
            replaced: FxHashMap::default(),
            ids: Ids::new(&settings.id_prefix, started_ms),
            ground: Ground::new(zones.farthest_m()),
            clusters: (settings.clustering == Clustering::Given).then(Clusters::default),
            settings,
            peers: Peers::default(),
            islands: Islands::default(),
            registry: Registry::default(),
            returns: Returns::default(),
            deserted: VecDeque::new(),
            watched: Vec::new(),
            paces: FxHashMap::default(),
            judge_all: false,
            crowding_changed: false,
            wishes: FxHashMap::default(),
            silence_due: Duration::ZERO,
            pending: Pending::default(),
            scratch: flush::Scratch::default(),
            counters: Counters::default(),
            refines: true,
            zones,
        };
        engine.zones.learn(Capabilities::ALL);
        engine.ground.reaches.set(OPEN, engine.zones.reach(OPEN));
        engine.zones.limit_anew(&engine.registry);
        Ok(engine)
    }

    /// Takes note of what happened. Nothing is decided before the next [`flush`](Self::flush).
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
            Input::Tell { peer, session, from } => self.tell_again(peer, session, from.as_ref()),
            Input::Transport(transport) => {
                let known = self.registry.capabilities_count();
                let another = self.registry.is_another(&transport);
                let taken = self.registry.announce(transport, now);
                self.counters.nodes_refused += u64::from(!taken);
                if self.registry.capabilities_count() > known {
                    self.tell_capabilities_apart();
                }
                if let Some(node) = another {
                    self.tell_of(node);
                }
            }
            Input::TransportGone { node } => self.registry.withdraw(&node),
            Input::Rules(rules) => {
                self.zones.set_rules(rules);
                self.lay_zones();
            }
            Input::TimeOfDay { minute } => {
                if self.zones.set_minute(minute) {
                    self.lay_zones();
                }
            }
        }
    }

    /// The zones are others: counts everybody to the one that they stand in.
    fn lay_zones(&mut self) {
        self.ground.set_reach(self.zones.farthest_m());
        self.ground.reaches.clear();
        self.ground.reaches.set(OPEN, self.zones.reach(OPEN));
        self.zones.limit_anew(&self.registry);
        self.crossings.clear();
        let known: Vec<u32> = self.peers.known().collect();
        known.into_iter().for_each(|peer| self.arrive_in_zone(peer));
        self.paces.values_mut().for_each(Pace::forget_changes);
        let islands: Vec<u32> = self.islands.numbers().collect();
        islands.into_iter().for_each(|island| self.mark_dirty(island));
        self.islands.forget_rules();
        (self.relaid, self.judge_all) = (true, true);
    }

    /// There is something that clients may or may not be able to join that there was not before.
    fn tell_capabilities_apart(&mut self) {
        let known: Vec<u32> = self.peers.known().collect();
        for peer in known {
            self.set_capabilities(peer);
        }
    }

    /// Has limits worked out for these capabilities, if they are new.
    fn learn(&mut self, capabilities: Capabilities) {
        if self.zones.learn(capabilities) {
            self.zones.limit_anew(&self.registry);
        }
    }

    /// Works out what a peer can join.
    pub(crate) fn set_capabilities(&mut self, peer: u32) {
        let names = self.announced.get(&peer).unwrap_or(&self.settings.assumed_transports);
        let capabilities = self.registry.capabilities(names);
        let terms = self.ground.terms(peer);
        if terms.capabilities() == capabilities {
            return;
        }
        self.learn(capabilities);
        self.ground.set_terms(peer, Terms::new(terms.zone(), capabilities));
        let island = self.ground.island_of(peer);
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
        let Some(peer) = self.admit_resuming(address, session, resumes) else { return };
        match transports {
            Some(transports) => drop(self.announced.insert(peer, transports)),
            None => drop(self.announced.remove(&peer)),
        }
        self.set_capabilities(peer);
        let record = &mut self.peers[peer];
        record.hear(now);
        record.forget_told();
        record.flags.replace(Flags::MUTE, true);
    }

    fn heartbeat(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        position: Position,
        desired_room: Option<&str>,
        now: Duration,
    ) {
        if !is_on_the_map(position) {
            self.refuse(address, session, now);
            return;
        }
        let Some(peer) = self.admit(address, session) else {
            if let Some(peer) = self.peers.find(address) {
                self.replaced.insert(peer, now);
            }
            return;
        };
        let record = &mut self.peers[peer];
        record.hear(now);
        record.flags.replace(Flags::MUTE, false);
        record.flags.replace(Flags::SILENT, false);
        record.height_m = position.y;
        let (state, untold) = (record.state, record.told == Serial::NONE);
        let to = Point { x: position.x, z: position.z };
        let from = self.stand(peer, to);
        if state != State::Present {
            self.enter(peer);
        }
        if self.ground.island_of(peer) == NONE {
            self.arrive_in_zone(peer);
        } else if from != to && self.zones.are_many() {
            self.note_crossing(peer, from, now);
        }
        if untold && self.has_node(peer) {
            self.list(peer);
        }
        if let Some(room) = desired_room {
            self.wish(peer, room);
        }
    }

    /// Notes where a peer stands. Returns where it stood before.
    pub(crate) fn stand(&mut self, peer: u32, to: Point) -> Point {
        if let Some(clusters) = &mut self.clusters {
            return clusters.stand(peer, to);
        }
        self.shift(peer, to)
    }

    /// Where a peer stands.
    pub(crate) fn place(&self, peer: u32) -> Point {
        self.clusters.as_ref().map_or_else(|| self.ground.spot(peer), |clusters| clusters.place(peer))
    }

    /// Puts a peer elsewhere on the ground. Returns where it was before.
    fn shift(&mut self, peer: u32, to: Point) -> Point {
        let from = self.ground.spot(peer);
        if from != to {
            self.ground.shift(peer, to);
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
        let Some(peer) = self.admit(address, session) else { return };
        if self.peers[peer].state == State::Known {
            // It may be said before the peer says where it is.
            self.peers[peer].hear(now);
        }
        self.set_cluster(peer, cluster);
    }

    /// Puts a peer into a cluster, or into none; the next flush does the rest.
    pub(crate) fn set_cluster(&mut self, peer: u32, cluster: Option<&str>) {
        let Some(clusters) = &mut self.clusters else { return };
        if !clusters.set(peer, cluster) {
            return;
        }
        let spot = clusters.spot(peer);
        let outside = self.ground.island_of(peer) == NONE;
        if let Some(spot) = spot {
            self.shift(peer, spot);
            if outside && self.peers[peer].state == State::Present {
                self.pending.arrivals.push(peer);
            }
        } else if !outside {
            self.pending.unclustered.push(peer);
        }
    }

    /// Whether a peer is to be in an island.
    pub(crate) fn belongs(&self, peer: u32) -> bool {
        self.clusters.as_ref().is_none_or(|clusters| clusters.has(peer))
    }

    /// A position that cannot be worked with: whoever is in the world stays where it was, and has
    /// been heard.
    fn refuse(&mut self, address: Address, session: Option<SessionId>, now: Duration) {
        self.counters.positions_refused += 1;
        if self.peers.find(address).is_none() {
            return;
        }
        if let Some(peer) = self.admit(address, session) {
            self.peers[peer].hear(now);
        }
    }

    /// A node is where it was not: has everybody told again whose island is there.
    fn tell_of(&mut self, node: NodeIndex) {
        let known: Vec<u32> = self.peers.known().collect();
        for peer in known {
            if self.peers[peer].told_node == node {
                self.peers[peer].told_node = NO_NODE;
                if self.has_node(peer) {
                    self.list(peer);
                }
            }
        }
    }

    /// Whether the peer is in an island that has a node. The members of one that gets a node are
    /// looked at then.
    pub(crate) fn has_node(&self, peer: u32) -> bool {
        let island = self.ground.island_of(peer);
        island != NONE && self.islands[island].node != NO_NODE
    }

    /// A peer that was not in the world is.
    fn enter(&mut self, peer: u32) {
        self.peers.set_state(peer, State::Present);
        // One that left since the last flush still has its place.
        if self.ground.island_of(peer) == NONE && self.belongs(peer) {
            self.pending.arrivals.push(peer);
        }
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>) {
        // Nobody need be made known in order to be forgotten.
        if self.peers.find(address).is_none() {
            return;
        }
        let Some(peer) = self.admit(address, session) else { return };
        self.peers[peer].forget_told();
        self.depart(peer);
    }

    /// A peer leaves the world; the next flush takes it out of its island.
    pub(crate) fn depart(&mut self, peer: u32) {
        if self.peers[peer].state == State::Present {
            self.peers.set_state(peer, State::Departed);
            self.pending.leaving.push(peer);
        }
    }

    /// The peer that a message is from, unless it is of a session that has been replaced.
    pub(crate) fn admit(&mut self, address: Address, session: Option<SessionId>) -> Option<u32> {
        self.admit_resuming(address, session, None)
    }

    /// The same; a new session resumes this older one.
    fn admit_resuming(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<u32> {
        let (peer, new) = self.peers.intern(address);
        if new {
            let terms = Terms::new(OPEN, self.registry.capabilities(&self.settings.assumed_transports));
            self.learn(terms.capabilities());
            self.ground.admit_peer(peer, terms);
        }
        match self.peers.admit(peer, session, resumes) {
            Admitted::Stale => {
                self.counters.stale_messages += 1;
                None
            }
            Admitted::Present => Some(peer),
            Admitted::TookOver => {
                self.take_over(peer);
                Some(peer)
            }
        }
    }

    /// A newer session of a peer did not resume the one before: the next flush revokes the tokens of
    /// that one, if the peer is in an island by then, or else the flush that puts it into one.
    pub(crate) fn take_over(&mut self, peer: u32) {
        self.peers[peer].flags.replace(Flags::TAKEN_OVER, true);
        if self.ground.island_of(peer) != NONE {
            self.list(peer);
        }
    }

    pub(crate) fn wish(&mut self, peer: u32, room: &str) {
        // A room that is no island of ours can never be among the candidates.
        let wish = self.ids.serial(room);
        let before = match wish {
            Some(island) => self.wishes.insert(peer, island),
            None => self.wishes.remove(&peer),
        };
        if before != wish {
            self.mark_dirty(self.ground.island_of(peer));
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
        let island = self.ground.island_of(peer);
        if island == NONE || self.peers[peer].flags.replace(Flags::MOVED, true) {
            return;
        }
        let turn = self.pending.moved.len() as u32;
        self.pending.moved.push(peer);
        let record = &mut self.islands[island];
        record.movers = record.movers.saturating_add(1);
        if flush::is_few(record.movers, self.ground.size(island)) {
            push_tight(&mut self.pending.steps, Step { turn, island, from });
        }
        if !std::mem::replace(&mut record.dirty, true) {
            self.pending.dirty.push(island);
        }
    }

    /// Has the next flush see whether something is to be told about a peer.
    pub(crate) fn list(&mut self, peer: u32) {
        if !self.peers[peer].flags.replace(Flags::LISTED, true) {
            self.pending.listed.push(peer);
        }
    }

    /// A new island, still without members and without an id.
    pub(crate) fn open_island(&mut self) -> u32 {
        self.pending.opened += 1;
        // Later than all that have a serial, in the order of their making.
        let island = self.islands.add(self.ids.upcoming() + self.pending.opened);
        self.ground.admit_island(island);
        island
    }

    /// Ends an island that has no members.
    pub(crate) fn close_island(&mut self, island: u32) {
        self.islands.set_state(island, IslandState::Closed);
        self.paces.remove(&island);
        if self.islands[island].serial == Serial::NONE {
            self.islands.remove(island);
        } else {
            self.pending.closed.push(island);
        }
    }

    /// Puts a peer that stands nowhere into an island.
    pub(crate) fn put(&mut self, peer: u32, island: u32) {
        self.ground.put(peer, island);
        self.list(peer);
        self.mark_changed(island);
    }

    /// Notes that an island's members are no longer those of the last flush.
    pub(crate) fn mark_changed(&mut self, island: u32) {
        if !std::mem::replace(&mut self.islands[island].changed, true) {
            self.pending.changed.push(island);
        }
    }
}

pub(crate) fn is_on_the_map(position: Position) -> bool {
    // Comparisons with NaN are false.
    [position.x, position.y, position.z].iter().all(|metres| metres.abs() <= WORLD_EDGE_M)
}
