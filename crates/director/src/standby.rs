//! The replica that a standby keeps: enough state to continue when the leader ends.

mod replica_peer;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use archipelago::{EngineSnapshot, Heartbeat, Input, LastAssignment, Transport, TransportKind, rules::Rules};
use protocol::{Address, ConnectionString, IslandId, NodeName, SessionId, Ulid};

use self::replica_peer::ReplicaPeer;
use crate::decode::{BusEvent, RoomLocation};

/// The peers, nodes and assignments, as gateways, nodes and the leader publish them. It processes the same
/// messages as the engine and decides nothing. Times are the engine's.
///
/// It keeps the same peers as the engine: a peer that is silent or gone for too long is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    /// The rules of the realm's owner.
    rules: Arc<Rules>,
    peers: HashMap<Address, ReplicaPeer>,
    nodes: HashMap<NodeName, (Transport, Duration)>,
    /// When a peer was last reassigned from this island to another one, for the last return window.
    left_at: HashMap<IslandId, Duration>,
    /// The newest revocation: tokens minted before this ULID are void.
    latest_minted_before: Ulid,
    /// How many milliseconds the leader's clock is ahead of ours.
    leader_ahead_ms: u64,
}

/// A snapshot for the engine, and the inputs that no engine has processed yet.
pub(crate) struct Handover {
    pub(crate) snapshot: EngineSnapshot,
    /// Inputs for the engine before its first flush: peers that have not sent a heartbeat, and departures
    /// that were not published.
    pub(crate) inputs: Vec<Input>,
    /// All tokens minted later must be later than this.
    pub(crate) minted_after: Ulid,
}

impl Replica {
    /// A replica that knows only the rules of the realm's owner.
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, ..Self::default() }
    }

    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(crate) fn handle(&mut self, event: BusEvent, now: Duration, unix_ms: u64) {
        match event {
            BusEvent::Input(Input::Connected { peer, session, transports, resumes }) => {
                self.connected(peer, session, transports, resumes, now);
            }
            BusEvent::Input(Input::Disconnected { peer, session }) => self.disconnected(peer, session, now),
            BusEvent::Input(Input::Transport(transport)) => {
                self.on_transport(transport, now);
            }
            BusEvent::Input(Input::Cluster { peer, session, cluster }) => {
                self.set_cluster(peer, session, cluster, now);
            }
            BusEvent::Input(Input::TransportGone { node }) => drop(self.nodes.remove(&node)),
            BusEvent::Input(Input::TransportDown { transport, .. }) => {
                drop(self.nodes.remove(&transport.node))
            }
            BusEvent::Input(Input::Rules(rules)) => self.rules = rules,
            BusEvent::Heartbeat { heartbeat, .. } => self.heartbeat(heartbeat, now),
            BusEvent::Assigned { peer, session, island, room } => {
                let node = self.resolve_node(room, &island);
                self.assigned(peer, session, island, node, now);
            }
            BusEvent::MembershipsEnded { island, node, peers, minted_before, taken_over } => {
                self.latest_minted_before = self.latest_minted_before.max(minted_before);
                self.ended(&island, node.as_ref(), &peers, taken_over);
            }
            BusEvent::LeaderDiscovery { unix_ms: leader_unix_ms } => {
                self.leader_ahead_ms = leader_unix_ms.saturating_sub(unix_ms)
            }
            // The time of day is the same in every director.
            BusEvent::Input(_) | BusEvent::PeersWanted => {}
        }
    }

    /// A node announced itself. A newly started process under the same name does not know the members of the
    /// previous one.
    fn on_transport(&mut self, mut transport: Transport, now: Duration) {
        if let Some((known, _)) = self.nodes.get(&transport.node) {
            if transport.started_ms > known.started_ms {
                let is_assigned_here = |peer: &&mut ReplicaPeer| {
                    peer.assignment.as_ref().is_some_and(|assignment| assignment.node == transport.node)
                };
                self.peers.values_mut().filter(is_assigned_here).for_each(|peer| peer.node_restarted = true);
            }
            transport.started_ms = transport.started_ms.max(known.started_ms);
        }
        self.nodes.insert(transport.node.clone(), (transport, now));
    }

    /// Gives all nodes a new timeout.
    pub(crate) fn refresh_nodes(&mut self, now: Duration) {
        self.nodes.values_mut().for_each(|(_, announced_at)| *announced_at = now);
    }

    /// Marks silent peers as departed, as the engine does, and forgets departed peers after the return
    /// window, and nodes that are no longer announced.
    pub(crate) fn expire(&mut self, settings: &archipelago::Settings, now: Duration) {
        self.peers.retain(|_, peer| {
            let silent_at = peer.last_seen + settings.silence;
            if peer.departed_at.is_none() && silent_at <= now {
                peer.departed_at = Some(silent_at);
            }
            peer.departed_at.is_none_or(|departed_at| now < departed_at + settings.return_window)
        });
        self.nodes.retain(|_, (_, announced_at)| now < *announced_at + settings.transport_timeout);
        self.left_at.retain(|_, left| now < *left + settings.return_window);
    }

    /// The state for a director that takes over at `unix_ms`.
    pub(crate) fn hand_over(mut self, minute: u16, unix_ms: u64) -> Handover {
        self.forget_closed_islands();
        let (mut peers, mut inputs) = (Vec::with_capacity(self.peers.len()), Vec::new());
        for (address, peer) in self.peers {
            peer.hand_over(address, &mut peers, &mut inputs);
        }
        let transports = self.nodes.into_values().map(|(transport, _)| transport).collect();
        let leader_time = Ulid::from_parts(unix_ms.saturating_add(self.leader_ahead_ms), 0);
        let snapshot = EngineSnapshot { rules: self.rules, minute: Some(minute), transports, peers };
        Handover { snapshot, inputs, minted_after: leader_time.max(self.latest_minted_before) }
    }

    /// Forgets the islands of departed peers if the last members were reassigned to other islands since:
    /// those islands are closed, and closed ids are not reused.
    fn forget_closed_islands(&mut self) {
        let present = self.peers.values().filter(|peer| peer.departed_at.is_none());
        for assignment in present.filter_map(|peer| peer.assignment.as_ref()) {
            self.left_at.remove(&assignment.island);
        }
        for peer in self.peers.values_mut() {
            if let (Some(departed_at), Some(assignment)) = (peer.departed_at, &peer.assignment)
                && self.left_at.get(&assignment.island).is_some_and(|left| departed_at <= *left)
            {
                peer.assignment = None;
            }
        }
    }

    /// The peer of a message; `None` if the session was replaced.
    fn admit(&mut self, address: Address, session: Option<SessionId>) -> Option<&mut ReplicaPeer> {
        self.admit_resuming(address, session, None)
    }

    /// The same for a message of a session that resumes the older session `resumes`.
    fn admit_resuming(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<&mut ReplicaPeer> {
        let peer = self.peers.entry(address).or_default();
        if session.is_some() && session < peer.session {
            return None;
        }
        if session > peer.session {
            // The same condition as in the engine.
            peer.taken_over |= peer.position.is_some() && (resumes.is_none() || resumes != peer.session);
            (peer.session, peer.transports) = (session, None);
            peer.start_session();
        }
        Some(peer)
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
        peer.transports = transports.map(|names| names.join(","));
        peer.last_seen = now;
        if session.is_none() {
            peer.start_session();
        }
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat, now: Duration) {
        let Heartbeat { peer, session, position, desired_room, client } = heartbeat;
        let resumes = client.as_ref().and_then(|client| client.resumes);
        let Some(peer) = self.admit_resuming(peer, session, resumes) else { return };
        (peer.last_seen, peer.has_heartbeat) = (now, true);
        (peer.departed_at, peer.is_leave_published) = (None, false);
        peer.position = Some(position);
        if desired_room.is_some() {
            peer.desired_room = desired_room.filter(|room| !room.is_empty());
        }
        let Some(client) = client else { return };
        if client.transports.is_some() {
            peer.transports = client.transports;
        }
        if let Some(reported) = client.last_assigned {
            peer.correct_assignment(&reported, now);
        }
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>, now: Duration) {
        // A disconnect must not create a peer.
        let Entry::Occupied(_) = self.peers.entry(address) else { return };
        let Some(peer) = self.admit(address, session) else { return };
        peer.is_informed = false;
        peer.departed_at = Some(now);
    }

    fn set_cluster(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        cluster: Option<String>,
        now: Duration,
    ) {
        let is_new = !self.peers.contains_key(&address);
        let Some(peer) = self.admit(address, session) else { return };
        if is_new {
            peer.last_seen = now;
        }
        peer.cluster = Some(cluster);
    }

    /// The node with this room of an island. If the message does not name it, it is the only node with a
    /// matching address; `None` if there is no such node or more than one.
    fn resolve_node(&self, room: RoomLocation, island: &IslandId) -> Option<NodeName> {
        let connection = match room {
            RoomLocation::Node(node) => return Some(node),
            RoomLocation::Connection(connection) => connection,
            RoomLocation::Unknown => return None,
        };
        let fits = |transport: &Transport| match &connection {
            ConnectionString::WsRoom { url, .. } => {
                transport.kind == TransportKind::WsRoom
                    && url.strip_suffix(island.as_str()).and_then(|url| url.strip_suffix("/rooms/"))
                        == Some(transport.public_url.trim_end_matches('/'))
            }
            ConnectionString::LiveKit { url, .. } => {
                transport.kind == TransportKind::LiveKit && *url == transport.public_url.trim_end_matches('/')
            }
            ConnectionString::P2p { .. } => transport.kind == TransportKind::P2p,
            ConnectionString::External { protocol, .. } => *transport.capability == **protocol,
            _ => false,
        };
        let mut nodes = self.nodes.values().map(|(transport, _)| transport).filter(|node| fits(node));
        let node = nodes.next()?;
        nodes.next().is_none().then(|| node.node.clone())
    }

    /// Its client was sent an assignment. If the node is not known, the next leader sends the assignment
    /// again.
    fn assigned(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        island: IslandId,
        node: Option<NodeName>,
        now: Duration,
    ) {
        let is_new = !self.peers.contains_key(&address);
        let Some(peer) = self.admit(address, session) else { return };
        if is_new {
            // The leader received its heartbeat, so it will arrive here too.
            peer.last_seen = now;
        }
        if peer.departed_at.is_some() {
            return;
        }
        (peer.has_heartbeat, peer.is_informed, peer.node_restarted, peer.assigned_at) =
            (true, true, false, Some(now));
        // A token is minted only after the older session's tokens were revoked.
        peer.taken_over = false;
        let before = std::mem::replace(
            &mut peer.assignment,
            node.map(|node| LastAssignment { island: island.clone(), node }),
        );
        if let Some(left) = before.map(|assignment| assignment.island).filter(|left| *left != island) {
            self.left_at.insert(left, now);
        }
    }

    /// The assignments of these peers are void until they get new ones; or the peers departed, and the
    /// members were sent their leave. After a session takeover the peers are still members.
    fn ended(&mut self, island: &IslandId, node: Option<&NodeName>, peers: &[Address], taken_over: bool) {
        for address in peers {
            let Some(peer) = self.peers.get_mut(address) else { continue };
            peer.taken_over &= !taken_over;
            if let Some(assignment) = &peer.assignment
                && assignment.island == *island
                && node.is_none_or(|node| assignment.node == *node)
            {
                peer.is_informed = false;
                if !taken_over {
                    peer.is_leave_published = peer.departed_at.is_some();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
