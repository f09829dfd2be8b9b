//! The registry of nodes: their announcements, availability and reserved seats, and the choice of a
//! node for an island.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use protocol::NodeName;
use rustc_hash::FxHashMap;

use crate::{
    rules::TransportChoice,
    spatial::{Capabilities, MAX_CAPABILITIES},
};

/// A node that hosts rooms, as it announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Its name, which identifies it across announcements.
    pub node: NodeName,
    /// The kind of its rooms.
    pub kind: TransportKind,
    /// The capability that a client required to join, as clients announce it: the name of the kind, or for
    /// an external transport its protocol.
    pub capability: Arc<str>,
    /// The greatest number of peers in one of its rooms. A node with 0 offers nothing.
    pub max_island_size: u32,
    /// Free seats at the time of the announcement; `None` for no limit.
    pub seats: Option<u32>,
    /// Peers in its rooms at the time of the announcement.
    pub users: u32,
    /// Whether the node drains: it accepts no more peers, and its islands move to other nodes as soon
    /// as they can.
    pub draining: bool,
    /// The URL at which clients reach it. The engine does not interpret it; a change invalidates the
    /// assignments to the node.
    pub public_url: Arc<str>,
    /// When its process started, in milliseconds since the Unix epoch; 0 if not known. A later start
    /// time means another process, which does not accept connection strings that clients were sent
    /// before.
    pub started_ms: u64,
}

/// The kind of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// Rooms over WebSocket.
    WsRoom,
    /// LiveKit rooms.
    LiveKit,
    /// A mesh of direct connections between peers.
    P2p,
    /// Another transport, with a configured connection string.
    External,
}

impl TransportKind {
    /// The name of the kind in rules, announcements and clients' transport lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WsRoom => "ws-room",
            Self::LiveKit => "livekit",
            Self::P2p => "p2p",
            Self::External => "external",
        }
    }
}

impl std::fmt::Display for TransportKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for TransportKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let kinds = [Self::WsRoom, Self::LiveKit, Self::P2p, Self::External];
        kinds.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// A node: its last announcement, and what the engine has assigned to it.
#[derive(Debug, Clone, Copy)]
pub struct TransportView<'a> {
    /// Its last announcement.
    pub transport: &'a Transport,
    /// Whether it may host more islands: announced recently, not draining, and with rooms for at least
    /// one peer.
    pub available: bool,
    /// Members of the islands on the node.
    pub assigned: u32,
    /// Free seats; `None` for no limit.
    pub free_seats: Option<u32>,
}

/// The index of a node in the registry.
pub(crate) type NodeIndex = u16;
/// No node.
pub(crate) const NO_NODE: NodeIndex = NodeIndex::MAX;

/// All nodes ever announced, and the seats reserved on each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    nodes: Vec<Node>,
    by_name: FxHashMap<NodeName, NodeIndex>,
    /// The names of the capabilities; the index of each is its bit in [`Capabilities`].
    capabilities: Vec<Arc<str>>,
    changed: bool,
}

#[derive(Debug, Clone)]
struct Node {
    transport: Transport,
    /// The time of its last announcement; `None` for a node that is known only from assignments that
    /// clients reported.
    announced_at: Option<Duration>,
    present: bool,
    /// Since when it has been available again after an outage, until the settling time has passed.
    recovered_since: Option<Duration>,
    assigned: u32,
    /// The capabilities that a client required to join.
    required: Capabilities,
}

/// Why a node cannot host an island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeRejection {
    /// Its announcements stopped.
    Gone,
    /// It drains.
    Draining,
    /// A member lacks the capability to join it.
    MissingCapability,
    /// Its rooms are too small.
    RoomTooSmall,
    /// It does not have enough free seats.
    Full,
}

impl Node {
    fn view(&self) -> TransportView<'_> {
        TransportView {
            transport: &self.transport,
            available: self.available(),
            assigned: self.assigned,
            free_seats: self.free_seats(),
        }
    }

    fn available(&self) -> bool {
        self.present && !self.transport.draining && self.transport.max_island_size > 0
    }

    /// The number of used seats. Announcements lag behind assignments, and include users that this
    /// engine did not assign, so the greater of both numbers counts.
    fn used_seats(&self) -> u32 {
        self.assigned.max(self.transport.users)
    }

    fn free_seats(&self) -> Option<u32> {
        let seats = self.transport.seats?;
        Some(seats.saturating_add(self.transport.users).saturating_sub(self.used_seats()))
    }

    /// How many more members are assigned to it than it has seats.
    fn overbooked_by(&self) -> u32 {
        let users = self.transport.users;
        self.transport.seats.map_or(0, |seats| self.assigned.saturating_sub(seats.saturating_add(users)))
    }

    fn matches_choice(&self, choice: &TransportChoice) -> bool {
        match choice {
            TransportChoice::Kind(kind) => self.transport.kind == *kind,
            TransportChoice::Node(node) => self.transport.node == *node,
        }
    }

    /// Why a node cannot host an island of `size` members that all have the `capabilities`; `here` if
    /// the island is on the node already.
    fn rejection(&self, size: u32, capabilities: Capabilities, here: bool) -> Option<NodeRejection> {
        let seats = || match here {
            true => self.overbooked_by() == 0,
            false => self.free_seats().is_none_or(|free| free >= size),
        };
        if !self.present {
            Some(NodeRejection::Gone)
        } else if self.transport.draining {
            Some(NodeRejection::Draining)
        } else if !capabilities.contains_all(self.required) {
            Some(NodeRejection::MissingCapability)
        } else if self.transport.max_island_size < size {
            Some(NodeRejection::RoomTooSmall)
        } else if !seats() {
            Some(NodeRejection::Full)
        } else {
            None
        }
    }
}

impl Registry {
    /// The index of an announced node if assignments to it are invalid: its URL changed, or its process
    /// is a later one. Of two processes that announce one name in turn, only the first announcement of
    /// the later one counts.
    pub(crate) fn replaced_node(&self, transport: &Transport) -> Option<NodeIndex> {
        let &index = self.by_name.get(&transport.node)?;
        let known = &self.nodes[usize::from(index)];
        let moved = known.transport.public_url != transport.public_url;
        let restarted = transport.started_ms > known.transport.started_ms;
        (known.announced_at.is_some() && (moved || restarted)).then_some(index)
    }

    /// Applies an announcement. Returns `false` if it was rejected: the registry is full, or it already
    /// has the greatest number of distinct capabilities.
    pub(crate) fn apply_announcement(&mut self, transport: Transport, now: Duration) -> bool {
        let Some(required) = self.find_or_add_capability(&transport.capability) else { return false };
        let Some(&index) = self.by_name.get(&transport.node) else {
            return self.add_announced(transport, required, now);
        };
        let node = &mut self.nodes[usize::from(index)];
        let offer = |node: &Node| {
            (node.available(), node.transport.max_island_size, node.transport.kind, node.required)
        };
        let before = offer(node);
        let started_ms = node.transport.started_ms.max(transport.started_ms);
        node.transport = Transport { started_ms, ..transport };
        node.required = required;
        let known = node.announced_at.replace(now).is_some();
        node.present = true;
        if known && node.available() && !before.0 {
            node.recovered_since = Some(now);
        }
        self.changed |= before != offer(node);
        true
    }

    fn add_announced(&mut self, transport: Transport, required: Capabilities, now: Duration) -> bool {
        let node = Node {
            transport,
            announced_at: Some(now),
            present: true,
            recovered_since: None,
            assigned: 0,
            required,
        };
        self.changed = true;
        self.push(node).is_some()
    }

    fn push(&mut self, node: Node) -> Option<NodeIndex> {
        let index = NodeIndex::try_from(self.nodes.len()).ok().filter(|&index| index != NO_NODE)?;
        self.by_name.insert(node.transport.node.clone(), index);
        self.nodes.push(node);
        Some(index)
    }

    /// The index of the node with this name. A node without an announcement is added as unavailable
    /// until it announces itself. [`NO_NODE`] if the registry is full.
    pub(crate) fn find_or_add(&mut self, name: &NodeName) -> NodeIndex {
        if let Some(&index) = self.by_name.get(name) {
            return index;
        }
        let transport = Transport {
            node: name.clone(),
            kind: TransportKind::WsRoom,
            capability: Arc::default(),
            max_island_size: 0,
            seats: None,
            users: 0,
            draining: false,
            public_url: Arc::default(),
            started_ms: 0,
        };
        let required = Capabilities::default();
        let node = Node {
            transport,
            announced_at: None,
            present: false,
            recovered_since: None,
            assigned: 0,
            required,
        };
        self.push(node).unwrap_or(NO_NODE)
    }

    /// The bit of a capability; a new name gets the next free bit, if there is one.
    fn find_or_add_capability(&mut self, name: &Arc<str>) -> Option<Capabilities> {
        if self.capability(name).is_none() && self.capabilities.len() < MAX_CAPABILITIES {
            self.capabilities.push(name.clone());
        }
        self.capability(name)
    }

    fn capability(&self, name: &str) -> Option<Capabilities> {
        let bit = self.capabilities.iter().position(|known| **known == *name)?;
        Some(Capabilities(1 << bit))
    }

    /// The names of the known capabilities in a set.
    pub(crate) fn capability_names(&self, capabilities: Capabilities) -> impl Iterator<Item = &str> {
        let names = self.capabilities.iter().enumerate();
        names.filter(move |(bit, _)| capabilities.0 >> bit & 1 == 1).map(|(_, name)| &**name)
    }

    /// The number of distinct capabilities.
    pub(crate) fn capabilities_count(&self) -> usize {
        self.capabilities.len()
    }

    /// The capability set of a client that can join these transports. Names that no node requires are
    /// ignored, and unassigned bits are set for all clients.
    pub(crate) fn capabilities(&self, names: &[String]) -> Capabilities {
        let unknown = Capabilities::ALL.0.checked_shl(self.capabilities.len() as u32).unwrap_or(0);
        let bits = names.iter().filter_map(|name| self.capability(name)).map(|capability| capability.0);
        Capabilities(bits.fold(unknown, |bits, bit| bits | bit))
    }

    /// Marks a node as gone because it withdrew its offer.
    pub(crate) fn withdraw(&mut self, node: &NodeName) {
        if let Some(&index) = self.by_name.get(node) {
            let node = &mut self.nodes[usize::from(index)];
            self.changed |= node.present;
            node.present = false;
        }
    }

    /// Marks nodes without an announcement for longer than `timeout` as gone, and ends the probation of
    /// nodes that have been back for the `settling` time. Returns whether any node appeared,
    /// disappeared or changed its offer since the last call.
    pub(crate) fn expire(&mut self, timeout: Duration, settling: Duration, now: Duration) -> bool {
        for node in &mut self.nodes {
            if node.present && node.announced_at.is_none_or(|at| now.saturating_sub(at) > timeout) {
                node.present = false;
                self.changed = true;
            }
            let settled = |since: &mut Duration| now.saturating_sub(*since) >= settling;
            self.changed |= node.recovered_since.take_if(settled).is_some();
        }
        std::mem::take(&mut self.changed)
    }

    /// The size of the largest room that a transport choice offers to clients with these capabilities,
    /// if there is one. A node that returned less than the settling time ago does not count, so that
    /// it does not cause larger islands.
    pub(crate) fn largest_room(&self, choice: &TransportChoice, capabilities: Capabilities) -> Option<u32> {
        let offers = |node: &&Node| {
            let settled = node.available() && node.recovered_since.is_none();
            settled && node.matches_choice(choice) && capabilities.contains_all(node.required)
        };
        self.nodes.iter().filter(offers).map(|node| node.transport.max_island_size).max()
    }

    /// The node for an island of `size` members with these capabilities, for a transport choice: of the
    /// nodes that can host it, the one with the most free seats, then with the fewest used seats, then
    /// the first by name.
    pub(crate) fn choose(
        &self,
        choice: &TransportChoice,
        size: u32,
        capabilities: Capabilities,
    ) -> Option<NodeIndex> {
        let rank = |node: &Node| (node.free_seats().unwrap_or(u32::MAX), Reverse(node.used_seats()));
        let fits =
            |node: &Node| node.matches_choice(choice) && node.rejection(size, capabilities, false).is_none();
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| fits(node));
        let best = nodes.max_by(|(_, a), (_, b)| {
            rank(a).cmp(&rank(b)).then_with(|| b.transport.node.cmp(&a.transport.node))
        });
        best.and_then(|(index, _)| NodeIndex::try_from(index).ok())
    }

    /// Whether an island of `size` members with these capabilities can stay on its node.
    pub(crate) fn can_stay(&self, node: NodeIndex, size: u32, capabilities: Capabilities) -> bool {
        self.nodes
            .get(usize::from(node))
            .is_some_and(|node| node.rejection(size, capabilities, true).is_none())
    }

    /// The same, not considering seats.
    pub(crate) fn can_stay_ignoring_seats(
        &self,
        node: NodeIndex,
        size: u32,
        capabilities: Capabilities,
    ) -> bool {
        let reason = |node: &Node| node.rejection(size, capabilities, true);
        self.nodes
            .get(usize::from(node))
            .is_some_and(|node| matches!(reason(node), None | Some(NodeRejection::Full)))
    }

    /// Whether a transport choice includes the node.
    pub(crate) fn matches_choice(&self, node: NodeIndex, choice: &TransportChoice) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| node.matches_choice(choice))
    }

    /// The nodes that a transport choice includes, each with the reason why it cannot host an island
    /// that is on `present`.
    pub(crate) fn candidates(
        &self,
        choice: &TransportChoice,
        size: u32,
        capabilities: Capabilities,
        present: NodeIndex,
    ) -> impl Iterator<Item = (NodeIndex, Option<NodeRejection>)> {
        let nodes = (0..).zip(&self.nodes).filter(|(_, node)| node.matches_choice(choice));
        nodes.map(move |(index, node)| (index, node.rejection(size, capabilities, index == present)))
    }

    /// Whether more members are assigned to a node than it has seats.
    pub(crate) fn is_overbooked(&self, node: NodeIndex) -> bool {
        self.overbooked_by(node) > 0
    }

    /// How many more members are assigned to a node than it has seats.
    pub(crate) fn overbooked_by(&self, node: NodeIndex) -> u32 {
        self.nodes.get(usize::from(node)).map_or(0, Node::overbooked_by)
    }

    /// Whether a transport choice includes a node that could host an island if it had enough free
    /// seats.
    pub(crate) fn is_short_of_seats_only(
        &self,
        choice: &TransportChoice,
        size: u32,
        capabilities: Capabilities,
    ) -> bool {
        self.candidates(choice, size, capabilities, NO_NODE)
            .any(|(_, rejection)| rejection == Some(NodeRejection::Full))
    }

    /// The last announcement of a node and its time, if there was one.
    pub(crate) fn last_announcement(&self, node: NodeIndex) -> Option<(TransportView<'_>, Duration)> {
        let node = self.nodes.get(usize::from(node))?;
        Some((node.view(), node.announced_at?))
    }

    /// Whether the node is announced, even if it drains.
    pub(crate) fn is_present(&self, node: NodeIndex) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| node.present)
    }

    /// Whether clients with these capabilities can join the node.
    pub(crate) fn can_join(&self, node: NodeIndex, capabilities: Capabilities) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| capabilities.contains_all(node.required))
    }

    /// Whether the node accepts more peers.
    pub(crate) fn is_available(&self, node: NodeIndex) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(Node::available)
    }

    /// Replaces a reservation of `before` seats on a node by one of `after` seats.
    pub(crate) fn reserve(&mut self, node: NodeIndex, before: u32, after: u32) {
        if let Some(node) = self.nodes.get_mut(usize::from(node)) {
            node.assigned = node.assigned.saturating_sub(before).saturating_add(after);
        }
    }

    /// The name of a node.
    pub(crate) fn name(&self, node: NodeIndex) -> Option<&NodeName> {
        self.nodes.get(usize::from(node)).map(|node| &node.transport.node)
    }

    /// All nodes that were ever announced.
    pub(crate) fn views(&self) -> impl Iterator<Item = TransportView<'_>> {
        self.nodes.iter().filter(|node| node.announced_at.is_some()).map(Node::view)
    }
}
