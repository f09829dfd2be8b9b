//! What a director knows that stands by: enough to go on where the one that leads ends.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use archipelago::{
    EngineSnapshot, Input, LastAssignment, PeerSnapshot, Transport, TransportKind, rules::Rules,
};
use protocol::{Address, ConnectionString, IslandId, NodeName, Position, SessionId, Ulid, atoll_bus};

use crate::decode::{BusEvent, Heartbeat, RoomLocation, parse_transports};

/// Who is there and what each was told, as gateways, nodes and the director that leads say. Takes
/// what the engine takes, and decides nothing. Times are the engine's.
///
/// It holds whom the engine would: who is silent or gone for too long is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    peers: HashMap<Address, ReplicaPeer>,
    nodes: HashMap<NodeName, (Transport, Duration)>,
    /// When somebody last went from this island to another one, of late.
    left_at: HashMap<IslandId, Duration>,
    /// The newest time that a token of before is void by.
    latest_minted_before: Ulid,
    /// By how many milliseconds the clock of the director that leads is ahead of ours.
    leader_ahead_ms: u64,
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct ReplicaPeer {
    session: Option<SessionId>,
    /// What its client can join, as it said it.
    transports: Option<String>,
    /// Where it stands, once it has said so.
    position: Option<Position>,
    desired_room: Option<String>,
    /// Whom another service puts it together with, or nobody, which it says once; `None`: not known.
    cluster: Option<Option<String>>,
    /// What a client of this peer was last told. It keeps its place by this.
    assignment: Option<LastAssignment>,
    /// Whether its present session has said where it stands.
    has_heartbeat: bool,
    /// Whether its present client was told that, and what it was told still admits it.
    is_informed: bool,
    /// The node that it was assigned to has restarted since, so that it needs a new string.
    node_restarted: bool,
    /// When that came from the director, if it did.
    assigned_at: Option<Duration>,
    last_seen: Duration,
    departed_at: Option<Duration>,
    /// Whether those of its island heard that it departed.
    is_leave_published: bool,
    /// Whether its present session took over from one that it did not resume, and the director that
    /// leads has not revoked that one's tokens yet, as far as is known.
    taken_over: bool,
}

/// For how long what a director tells a client is on its way to its gateway and back: until then a
/// heartbeat may say what was before.
pub(crate) const ASSIGNMENT_ROUND_TRIP: Duration = Duration::from_secs(1);

/// A takeover, and what happened that no engine was told yet.
pub(crate) struct Handover {
    pub(crate) snapshot: EngineSnapshot,
    /// For the engine, before its first flush: of those whose clients know nothing yet.
    pub(crate) inputs: Vec<Input>,
    /// Whatever is minted has to be later than this.
    pub(crate) minted_after: Ulid,
}

impl Replica {
    pub(crate) fn handle(&mut self, heard: BusEvent, now: Duration, unix_ms: u64) {
        match heard {
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
            BusEvent::Heartbeat(heartbeat) => self.heartbeat(heartbeat, now),
            BusEvent::Assigned { peer, session, island, room } => {
                let node = self.resolve_node(room, &island);
                self.assigned(peer, session, island, node, now);
            }
            BusEvent::MembershipsEnded { island, node, peers, minted_before, taken_over } => {
                self.latest_minted_before = self.latest_minted_before.max(minted_before);
                self.ended(&island, node.as_ref(), &peers, taken_over);
            }
            BusEvent::LeaderDiscovery { unix_ms: theirs } => {
                self.leader_ahead_ms = theirs.saturating_sub(unix_ms)
            }
            // Rules and the time of day are the same here as there.
            BusEvent::Input(_) | BusEvent::PeersWanted => {}
        }
    }

    /// A node announced itself. A later process under its name knows no member of the earlier one.
    fn on_transport(&mut self, mut transport: Transport, now: Duration) {
        if let Some((known, _)) = self.nodes.get(&transport.node) {
            if transport.started_ms > known.started_ms {
                let told_of = |peer: &&mut ReplicaPeer| {
                    peer.assignment.as_ref().is_some_and(|told| told.node == transport.node)
                };
                self.peers.values_mut().filter(told_of).for_each(|peer| peer.node_restarted = true);
            }
            transport.started_ms = transport.started_ms.max(known.started_ms);
        }
        self.nodes.insert(transport.node.clone(), (transport, now));
    }

    /// Takes nodes for heard just now.
    pub(crate) fn refresh_nodes(&mut self, now: Duration) {
        self.nodes.values_mut().for_each(|(_, heard)| *heard = now);
    }

    /// Takes for gone whom the engine takes for gone, and forgets who has been for as long as the
    /// engine remembers them, and nodes that are not heard any more.
    pub(crate) fn expire(&mut self, settings: &archipelago::Settings, now: Duration) {
        self.peers.retain(|_, peer| {
            let gone = peer.last_seen + settings.silence;
            if peer.departed_at.is_none() && gone <= now {
                peer.departed_at = Some(gone);
            }
            peer.departed_at.is_none_or(|departed| now < departed + settings.return_window)
        });
        self.nodes.retain(|_, (_, heard)| now < *heard + settings.transport_timeout);
        self.left_at.retain(|_, left| now < *left + settings.return_window);
    }

    /// What somebody who takes over at `unix_ms` is told.
    pub(crate) fn hand_over(mut self, rules: Arc<Rules>, minute: u16, unix_ms: u64) -> Handover {
        self.forget_closed_islands();
        let (mut residents, mut since) = (Vec::with_capacity(self.peers.len()), Vec::new());
        for (address, peer) in self.peers {
            peer.hand_over(address, &mut residents, &mut since);
        }
        let transports = self.nodes.into_values().map(|(transport, _)| transport).collect();
        let theirs = Ulid::from_parts(unix_ms.saturating_add(self.leader_ahead_ms), 0);
        let takeover = EngineSnapshot { rules, minute: Some(minute), transports, peers: residents };
        Handover { snapshot: takeover, inputs: since, minted_after: theirs.max(self.latest_minted_before) }
    }

    /// Forgets the places of those who departed from islands whose last members then went elsewhere:
    /// those have ended, and their ids do not come back.
    fn forget_closed_islands(&mut self) {
        let here = self.peers.values().filter(|peer| peer.departed_at.is_none());
        for told in here.filter_map(|peer| peer.assignment.as_ref()) {
            self.left_at.remove(&told.island);
        }
        for peer in self.peers.values_mut() {
            if let (Some(departed), Some(told)) = (peer.departed_at, &peer.assignment)
                && self.left_at.get(&told.island).is_some_and(|left| departed <= *left)
            {
                peer.assignment = None;
            }
        }
    }

    /// The peer that a message is from, unless it is of a session that has been replaced.
    fn admit(&mut self, address: Address, session: Option<SessionId>) -> Option<&mut ReplicaPeer> {
        self.admit_resuming(address, session, None)
    }

    /// The same; a new session resumes this older one.
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
            // As the engine has it.
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
        let Heartbeat { peer, session, position, desired_room, assignment: told, transports, resumes } =
            heartbeat;
        let Some(peer) = self.admit_resuming(peer, session, resumes) else { return };
        (peer.last_seen, peer.has_heartbeat) = (now, true);
        (peer.departed_at, peer.is_leave_published) = (None, false);
        peer.position = Some(position);
        if desired_room.is_some() {
            peer.desired_room = desired_room.filter(|room| !room.is_empty());
        }
        if transports.is_some() {
            peer.transports = transports;
        }
        if let Some(told) = told {
            peer.correct_assignment(&told, now);
        }
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>, now: Duration) {
        // Nobody need be made known in order to be forgotten.
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
        let new = !self.peers.contains_key(&address);
        let Some(peer) = self.admit(address, session) else { return };
        if new {
            peer.last_seen = now;
        }
        peer.cluster = Some(cluster);
    }

    /// The node that has this room of an island. Where it is not named, it is the one that announces
    /// the place, if that is clear.
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

    /// Its client is told. One whose node is not known may know it, and is told again by whoever
    /// takes over.
    fn assigned(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        island: IslandId,
        node: Option<NodeName>,
        now: Duration,
    ) {
        let new = !self.peers.contains_key(&address);
        let Some(peer) = self.admit(address, session) else { return };
        if new {
            // The one that leads heard it: its heartbeat is on its way here.
            peer.last_seen = now;
        }
        if peer.departed_at.is_some() {
            return;
        }
        (peer.has_heartbeat, peer.is_informed, peer.node_restarted, peer.assigned_at) =
            (true, true, false, Some(now));
        // A token is minted after those of before were revoked.
        peer.taken_over = false;
        let before = std::mem::replace(
            &mut peer.assignment,
            node.map(|node| LastAssignment { island: island.clone(), node }),
        );
        if let Some(left) = before.map(|told| told.island).filter(|left| *left != island) {
            self.left_at.insert(left, now);
        }
    }

    /// What these were told holds no more, until they are told anew: or they have departed, and the
    /// others have heard. Where a newer session took over, they are members still.
    fn ended(&mut self, island: &IslandId, node: Option<&NodeName>, peers: &[Address], taken_over: bool) {
        for address in peers {
            let Some(peer) = self.peers.get_mut(address) else { continue };
            peer.taken_over &= !taken_over;
            if let Some(told) = &peer.assignment
                && told.island == *island
                && node.is_none_or(|node| told.node == *node)
            {
                peer.is_informed = false;
                if !taken_over {
                    peer.is_leave_published = peer.departed_at.is_some();
                }
            }
        }
    }
}

impl ReplicaPeer {
    /// Its client is a new one.
    fn start_session(&mut self) {
        (self.has_heartbeat, self.is_informed, self.node_restarted, self.assigned_at) =
            (false, false, false, None);
    }

    /// Its gateway says what its client was told.
    fn correct_assignment(&mut self, said: &atoll_bus::Told, now: Duration) {
        // Its present session was told an island, so the tokens of before were revoked.
        self.taken_over &= said.island.is_empty();
        if self.assigned_at.is_some_and(|at| now < at + ASSIGNMENT_ROUND_TRIP) {
            return;
        }
        self.assigned_at = None;
        let same =
            |told: &LastAssignment| told.island.as_str() == said.island && told.node.as_str() == said.node;
        self.is_informed = self.assignment.as_ref().is_some_and(same);
        // Where it knows of none, or not of which node, it keeps its place and is told.
        if !self.is_informed
            && let (Ok(island), Ok(node)) = (said.island.parse(), said.node.parse())
        {
            (self.assignment, self.is_informed) = (Some(LastAssignment { island, node }), true);
        }
    }

    fn hand_over(self, peer: Address, residents: &mut Vec<PeerSnapshot>, since: &mut Vec<Input>) {
        let Self {
            session, position, desired_room, last_seen: heard, departed_at: departed, taken_over, ..
        } = self;
        // Who is to be with nobody is in no island, whatever its client was told before.
        let told = self.assignment.filter(|_| self.cluster != Some(None));
        let cluster = self.cluster.flatten();
        let transports = self.transports.as_deref().and_then(parse_transports);
        if !self.has_heartbeat {
            since.push(Input::Connected { peer, session, transports: transports.clone(), resumes: None });
        } else if departed.is_some() && !self.is_leave_published {
            since.push(Input::Disconnected { peer, session });
        } else if departed.is_none() && told.is_some() && (!self.is_informed || self.node_restarted) {
            since.push(Input::ResendAssignment { peer, session, from: None });
        }
        let departed = departed.filter(|_| self.is_leave_published);
        let Some(position) = position else {
            return since.extend(cluster.map(|cluster| Input::Cluster {
                peer,
                session,
                cluster: Some(cluster),
            }));
        };
        residents.push(PeerSnapshot {
            peer,
            session,
            transports,
            position,
            desired_room,
            cluster,
            last_assigned: told,
            last_seen: heard,
            departed_at: departed,
            taken_over,
        });
    }
}

#[cfg(test)]
mod tests;
