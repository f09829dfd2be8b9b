//! What a director knows that stands by: enough to go on where the one that leads ends.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use archipelago::{Input, Resident, Takeover, Told, Transport, TransportKind, rules::Rules};
use protocol::{Address, ConnectionString, IslandId, NodeName, Position, SessionId, Ulid, atoll_bus};

use crate::inbound::{Heard, Heartbeat, Room, joinable};

/// Who is there and what each was told, as gateways, nodes and the director that leads say. Takes
/// what the engine takes, and decides nothing. Times are the engine's.
///
/// It holds whom the engine would: who is silent or gone for too long is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    peers: HashMap<Address, Peer>,
    nodes: HashMap<NodeName, (Transport, Duration)>,
    /// When somebody last went from this island to another one, of late.
    left_at: HashMap<IslandId, Duration>,
    /// The newest time that a token of before is void by.
    minted_before: Ulid,
    /// By how many milliseconds the clock of the director that leads is ahead of ours.
    ahead_ms: u64,
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Peer {
    session: Option<SessionId>,
    /// What its client can join, as it said it.
    transports: Option<String>,
    /// Where it stands, once it has said so.
    position: Option<Position>,
    desired_room: Option<String>,
    /// Whom another service puts it together with, or nobody, which it says once; `None`: not known.
    cluster: Option<Option<String>>,
    /// What a client of this peer was last told. It keeps its place by this.
    told: Option<Told>,
    /// Whether its present session has said where it stands.
    said: bool,
    /// Whether its present client was told that, and what it was told still admits it.
    knows: bool,
    /// The node that it was assigned to has restarted since, so that it needs a new string.
    restarted: bool,
    /// When that came from the director, if it did.
    told_at: Option<Duration>,
    heard: Duration,
    departed: Option<Duration>,
    /// Whether those of its island heard that it departed.
    missed: bool,
    /// Whether its present session took over from one that it did not resume, and the director that
    /// leads has not revoked that one's tokens yet, as far as is known.
    taken_over: bool,
}

/// For how long what a director tells a client is on its way to its gateway and back: until then a
/// heartbeat may say what was before.
pub(crate) const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// A takeover, and what happened that no engine was told yet.
pub(crate) struct Succession {
    pub(crate) takeover: Takeover,
    /// For the engine, before its first flush: of those whose clients know nothing yet.
    pub(crate) since: Vec<Input>,
    /// Whatever is minted has to be later than this.
    pub(crate) minted_after: Ulid,
}

impl Replica {
    pub(crate) fn hear(&mut self, heard: Heard, now: Duration, unix_ms: u64) {
        match heard {
            Heard::Input(Input::Connected { peer, session, transports, resumes }) => {
                self.connected(peer, session, transports, resumes, now);
            }
            Heard::Input(Input::Disconnected { peer, session }) => self.disconnected(peer, session, now),
            Heard::Input(Input::Transport(transport)) => {
                self.announced(transport, now);
            }
            Heard::Input(Input::Cluster { peer, session, cluster }) => {
                self.put_together(peer, session, cluster, now);
            }
            Heard::Input(Input::TransportGone { node }) => drop(self.nodes.remove(&node)),
            Heard::Heartbeat(heartbeat) => self.heartbeat(heartbeat, now),
            Heard::Assigned { peer, session, island, room } => {
                let node = self.node_of(room, &island);
                self.assigned(peer, session, island, node, now);
            }
            Heard::Ended { island, node, peers, minted_before, taken_over } => {
                self.minted_before = self.minted_before.max(minted_before);
                self.ended(&island, node.as_ref(), &peers, taken_over);
            }
            Heard::Leads { unix_ms: theirs } => self.ahead_ms = theirs.saturating_sub(unix_ms),
            // Rules and the time of day are the same here as there.
            Heard::Input(_) | Heard::Wanted => {}
        }
    }

    /// A node announced itself. A later process under its name knows no member of the earlier one.
    fn announced(&mut self, mut transport: Transport, now: Duration) {
        if let Some((known, _)) = self.nodes.get(&transport.node) {
            if transport.started_ms > known.started_ms {
                let told_of =
                    |peer: &&mut Peer| peer.told.as_ref().is_some_and(|told| told.node == transport.node);
                self.peers.values_mut().filter(told_of).for_each(|peer| peer.restarted = true);
            }
            transport.started_ms = transport.started_ms.max(known.started_ms);
        }
        self.nodes.insert(transport.node.clone(), (transport, now));
    }

    /// Takes nodes for heard just now.
    pub(crate) fn hear_nodes_again(&mut self, now: Duration) {
        self.nodes.values_mut().for_each(|(_, heard)| *heard = now);
    }

    /// Takes for gone whom the engine takes for gone, and forgets who has been for as long as the
    /// engine remembers them, and nodes that are not heard any more.
    pub(crate) fn tidy(&mut self, settings: &archipelago::Settings, now: Duration) {
        self.peers.retain(|_, peer| {
            let gone = peer.heard + settings.silence;
            if peer.departed.is_none() && gone <= now {
                peer.departed = Some(gone);
            }
            peer.departed.is_none_or(|departed| now < departed + settings.return_window)
        });
        self.nodes.retain(|_, (_, heard)| now < *heard + settings.transport_timeout);
        self.left_at.retain(|_, left| now < *left + settings.return_window);
    }

    /// What somebody who takes over at `unix_ms` is told.
    pub(crate) fn hand_over(mut self, rules: Arc<Rules>, minute: u16, unix_ms: u64) -> Succession {
        self.forget_places();
        let (mut residents, mut since) = (Vec::with_capacity(self.peers.len()), Vec::new());
        for (address, peer) in self.peers {
            peer.hand_over(address, &mut residents, &mut since);
        }
        let transports = self.nodes.into_values().map(|(transport, _)| transport).collect();
        let theirs = Ulid::from_parts(unix_ms.saturating_add(self.ahead_ms), 0);
        let takeover = Takeover { rules, minute: Some(minute), transports, residents };
        Succession { takeover, since, minted_after: theirs.max(self.minted_before) }
    }

    /// Forgets the places of those who departed from islands whose last members then went elsewhere:
    /// those have ended, and their ids do not come back.
    fn forget_places(&mut self) {
        let here = self.peers.values().filter(|peer| peer.departed.is_none());
        for told in here.filter_map(|peer| peer.told.as_ref()) {
            self.left_at.remove(&told.island);
        }
        for peer in self.peers.values_mut() {
            if let (Some(departed), Some(told)) = (peer.departed, &peer.told)
                && self.left_at.get(&told.island).is_some_and(|left| departed <= *left)
            {
                peer.told = None;
            }
        }
    }

    /// The peer that a message is from, unless it is of a session that has been replaced.
    fn admit(&mut self, address: Address, session: Option<SessionId>) -> Option<&mut Peer> {
        self.admit_resuming(address, session, None)
    }

    /// The same; a new session resumes this older one.
    fn admit_resuming(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<&mut Peer> {
        let peer = self.peers.entry(address).or_default();
        if session.is_some() && session < peer.session {
            return None;
        }
        if session > peer.session {
            // As the engine has it.
            peer.taken_over |= peer.position.is_some() && (resumes.is_none() || resumes != peer.session);
            (peer.session, peer.transports) = (session, None);
            peer.begin();
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
        peer.heard = now;
        if session.is_none() {
            peer.begin();
        }
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat, now: Duration) {
        let Heartbeat { peer, session, position, desired_room, told, transports, resumes } = heartbeat;
        let Some(peer) = self.admit_resuming(peer, session, resumes) else { return };
        (peer.heard, peer.said) = (now, true);
        (peer.departed, peer.missed) = (None, false);
        peer.position = Some(position);
        if desired_room.is_some() {
            peer.desired_room = desired_room.filter(|room| !room.is_empty());
        }
        if transports.is_some() {
            peer.transports = transports;
        }
        if let Some(told) = told {
            peer.corrected(&told, now);
        }
    }

    fn disconnected(&mut self, address: Address, session: Option<SessionId>, now: Duration) {
        // Nobody need be made known in order to be forgotten.
        let Entry::Occupied(_) = self.peers.entry(address) else { return };
        let Some(peer) = self.admit(address, session) else { return };
        peer.knows = false;
        peer.departed = Some(now);
    }

    fn put_together(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        cluster: Option<String>,
        now: Duration,
    ) {
        let new = !self.peers.contains_key(&address);
        let Some(peer) = self.admit(address, session) else { return };
        if new {
            peer.heard = now;
        }
        peer.cluster = Some(cluster);
    }

    /// The node that has this room of an island. Where it is not named, it is the one that announces
    /// the place, if that is clear.
    fn node_of(&self, room: Room, island: &IslandId) -> Option<NodeName> {
        let connection = match room {
            Room::On(node) => return Some(node),
            Room::At(connection) => connection,
            Room::Unknown => return None,
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
            peer.heard = now;
        }
        if peer.departed.is_some() {
            return;
        }
        (peer.said, peer.knows, peer.restarted, peer.told_at) = (true, true, false, Some(now));
        // A token is minted after those of before were revoked.
        peer.taken_over = false;
        let before =
            std::mem::replace(&mut peer.told, node.map(|node| Told { island: island.clone(), node }));
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
            if let Some(told) = &peer.told
                && told.island == *island
                && node.is_none_or(|node| told.node == *node)
            {
                peer.knows = false;
                if !taken_over {
                    peer.missed = peer.departed.is_some();
                }
            }
        }
    }
}

impl Peer {
    /// Its client is a new one.
    fn begin(&mut self) {
        (self.said, self.knows, self.restarted, self.told_at) = (false, false, false, None);
    }

    /// Its gateway says what its client was told.
    fn corrected(&mut self, said: &atoll_bus::Told, now: Duration) {
        // Its present session was told an island, so the tokens of before were revoked.
        self.taken_over &= said.island.is_empty();
        if self.told_at.is_some_and(|at| now < at + ON_ITS_WAY) {
            return;
        }
        self.told_at = None;
        let same = |told: &Told| told.island.as_str() == said.island && told.node.as_str() == said.node;
        self.knows = self.told.as_ref().is_some_and(same);
        // Where it knows of none, or not of which node, it keeps its place and is told.
        if !self.knows
            && let (Ok(island), Ok(node)) = (said.island.parse(), said.node.parse())
        {
            (self.told, self.knows) = (Some(Told { island, node }), true);
        }
    }

    fn hand_over(self, peer: Address, residents: &mut Vec<Resident>, since: &mut Vec<Input>) {
        let Self { session, position, desired_room, heard, departed, taken_over, .. } = self;
        // Who is to be with nobody is in no island, whatever its client was told before.
        let told = self.told.filter(|_| self.cluster != Some(None));
        let cluster = self.cluster.flatten();
        let transports = self.transports.as_deref().and_then(joinable);
        if !self.said {
            since.push(Input::Connected { peer, session, transports: transports.clone(), resumes: None });
        } else if departed.is_some() && !self.missed {
            since.push(Input::Disconnected { peer, session });
        } else if departed.is_none() && told.is_some() && (!self.knows || self.restarted) {
            since.push(Input::Tell { peer, session, from: None });
        }
        let departed = departed.filter(|_| self.missed);
        let Some(position) = position else {
            return since.extend(cluster.map(|cluster| Input::Cluster {
                peer,
                session,
                cluster: Some(cluster),
            }));
        };
        residents.push(Resident {
            peer,
            session,
            transports,
            position,
            desired_room,
            cluster,
            told,
            heard,
            departed,
            taken_over,
        });
    }
}

#[cfg(test)]
mod tests;
