//! How each [`Input`] updates the world. Decisions are made in a [flush](crate::flush) only.

use std::time::Duration;

use protocol::{Address, IslandId, NodeName, SessionId};

use crate::{
    event::{ClientReport, Heartbeat, Input, ReportedAssignment, RoomFailure},
    ids::PeerIndex,
    point::{Point, is_in_world_bounds},
    transport::Transport,
    world::{Flags, PeerState, RuleChange, World},
};

/// The largest number of assignments that are resent at one flush: the load that caused clients to miss
/// them must not grow because of it.
const MAX_RESENDS_PER_FLUSH: usize = 1_000;

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

/// Handles one input that happened at `now`.
pub(crate) struct InputHandler<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) counters: &'a mut Counters,
    pub(crate) now: Duration,
}

impl InputHandler<'_> {
    pub(crate) fn handle(mut self, input: Input) {
        match input {
            Input::Connected { peer, session, transports, resumes } => {
                self.connected(peer, session, transports, resumes);
            }
            Input::Heartbeat(heartbeat) => self.heartbeat(heartbeat),
            Input::Cluster { peer, session, cluster } => self.cluster(peer, session, cluster.as_deref()),
            Input::Disconnected { peer, session } => self.disconnected(peer, session),
            Input::ReportsOutdated => self.world.peers.assignment_retry.clear(),
            Input::Transport(transport) => self.transport(transport),
            Input::TransportDown { transport, reason } => {
                let known = self.world.nodes.capabilities.count();
                self.world.nodes.set_down(transport, reason, self.now);
                self.update_capabilities_if_new(known);
            }
            Input::TransportGone { node } => self.world.nodes.withdraw(&node),
            Input::RoomUnavailable { island, node, retry_in, failure } => {
                self.room_unavailable(&island, &node, retry_in, failure);
            }
            Input::Rules(rules) => {
                self.world.zones.set_rules(rules);
                self.world.invalidate(RuleChange::Rules);
            }
            Input::TimeOfDay { minute } => {
                if self.world.zones.set_minute(minute) {
                    self.world.invalidate(RuleChange::Rules);
                }
            }
        }
    }

    fn connected(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        transports: Option<Vec<String>>,
        resumes: Option<SessionId>,
    ) {
        let Some(peer) = self.sender_resuming(address, session, resumes) else { return };
        self.world.peers.set_transports(peer, transports);
        self.world.update_capabilities(peer);
        let record = &mut self.world.peers[peer];
        record.set_last_seen(self.now);
        record.clear_assignment();
        record.flags.replace(Flags::AWAITING_HEARTBEAT, true);
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat) {
        let Heartbeat { peer: address, session, position, desired_room, client } = heartbeat;
        if let Some(client) = &client
            && !self.world.peers.knows_session(address, session)
        {
            self.connect_late(address, session, client);
        }
        if !is_in_world_bounds(position) {
            self.reject_position(address, session);
            return;
        }
        let Some(peer) = self.sender(address, session) else {
            if let Some(peer) = self.world.peers.find(address) {
                self.world.peers.stale_heartbeats.insert(peer, self.now);
            }
            return;
        };
        let world = &mut *self.world;
        let record = &mut world.peers[peer];
        record.set_last_seen(self.now);
        record.flags.replace(Flags::AWAITING_HEARTBEAT, false);
        record.flags.replace(Flags::TIMED_OUT, false);
        record.height_m = position.y;
        let (state, unassigned) = (record.state, record.last_assigned.is_none());
        let to = Point::from(position);
        let from = world.set_position(peer, to);
        if state != PeerState::Present {
            world.mark_present(peer);
        }
        if world.spatial.island_of(peer).is_none() {
            world.enter_current_zone(peer);
        } else if from != to && world.zones.is_partitioned() {
            world.update_zone_transition(peer, from, self.now);
        }
        if unassigned && world.island_has_node(peer) {
            world.queue_report(peer);
        }
        if let Some(room) = desired_room {
            world.set_preferred_island(peer, &room);
        }
        if let Some(reported) = client.and_then(|client| client.last_assigned) {
            self.compare_assignment(peer, reported);
        }
    }

    /// The connect of a session was missed; its heartbeats have the same data.
    fn connect_late(&mut self, address: Address, session: Option<SessionId>, client: &ClientReport) {
        let names = client.transports.as_ref().map(|names| names.split(',').map(str::to_owned).collect());
        self.connected(address, session, names, client.resumes);
    }

    /// Compares the last assignment of a present peer with the one that its client received. If they
    /// have differed for too long, the next flush emits an assignment again.
    fn compare_assignment(&mut self, peer: PeerIndex, reported: ReportedAssignment) {
        let world = &mut *self.world;
        if world.changes.missed.len() >= MAX_RESENDS_PER_FLUSH {
            return;
        }
        let record = &world.peers[peer];
        let agrees = match record.last_assigned_node {
            Some(node) if world.island_has_node(peer) => {
                let same_island = |serial| world.islands.ids.matches(serial, &reported.island);
                let same_node = world.nodes.name(node).as_str() == reported.node;
                same_node && record.last_assigned.is_some_and(same_island)
            }
            // No assignment was sent yet, or one is pending.
            _ => true,
        };
        if !world.peers.assignment_retry.observe(peer, agrees, self.now) {
            return;
        }
        let from = world.islands.ids.serial(&reported.island);
        let record = &mut world.peers[peer];
        (record.last_assigned, record.last_assigned_node) = (from, None);
        world.changes.missed.push((peer, reported));
        world.queue_report(peer);
    }

    /// Handles a heartbeat with an invalid position: the peer keeps its last position, and the
    /// heartbeat still counts as a sign of life.
    fn reject_position(&mut self, address: Address, session: Option<SessionId>) {
        self.counters.positions_refused += 1;
        if let Some(peer) = self.known_sender(address, session) {
            self.world.peers[peer].set_last_seen(self.now);
        }
    }

    fn cluster(&mut self, address: Address, session: Option<SessionId>, cluster: Option<&str>) {
        if self.world.clusters.is_none() {
            return;
        }
        let Some(peer) = self.sender(address, session) else { return };
        let record = &mut self.world.peers[peer];
        if record.state == PeerState::Connected {
            // The cluster may be known before the first heartbeat. It counts as a sign of life, so that
            // the peer does not time out before.
            record.set_last_seen(self.now);
        }
        self.world.set_cluster(peer, cluster);
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>) {
        let Some(peer) = self.known_sender(address, session) else { return };
        self.world.peers[peer].clear_assignment();
        self.world.mark_departed(peer);
    }

    fn transport(&mut self, transport: Transport) {
        let nodes = &mut self.world.nodes;
        let known = nodes.capabilities.count();
        let replaced = nodes.replaced_node(&transport);
        let taken = nodes.apply_announcement(transport, self.now);
        self.counters.nodes_refused += u64::from(!taken);
        self.update_capabilities_if_new(known);
        if let Some(node) = replaced {
            self.world.invalidate_assignments(node);
        }
    }

    /// Updates the capabilities of all peers if nodes require more than `known` different ones.
    fn update_capabilities_if_new(&mut self, known: usize) {
        if self.world.nodes.capabilities.count() > known {
            self.world.update_all_capabilities();
        }
    }

    fn room_unavailable(
        &mut self,
        island: &IslandId,
        node: &NodeName,
        retry_in: Duration,
        failure: RoomFailure,
    ) {
        let world = &mut *self.world;
        if let Some(island) = world.islands.find_by_id(island.as_str()) {
            world.nodes.exclude(node, island, self.now.saturating_add(retry_in), failure);
            world.islands.watch_at_once(island);
        }
    }

    /// The peer that sent a message; `None` if the session of the message has been replaced by a newer
    /// one.
    fn sender(&mut self, address: Address, session: Option<SessionId>) -> Option<PeerIndex> {
        self.sender_resuming(address, session, None)
    }

    /// The same; `None` also for an unknown peer, for which [`sender`](Self::sender) creates a record.
    fn known_sender(&mut self, address: Address, session: Option<SessionId>) -> Option<PeerIndex> {
        self.world.peers.find(address)?;
        self.sender(address, session)
    }

    /// The same as [`sender`](Self::sender), for a new session that resumes the older session `resumes`.
    fn sender_resuming(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<PeerIndex> {
        let peer = self.world.sender(address, session, resumes);
        self.counters.stale_messages += u64::from(peer.is_none());
        peer
    }
}
