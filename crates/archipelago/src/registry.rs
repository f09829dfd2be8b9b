use std::{cmp::Reverse, sync::Arc, time::Duration};

use protocol::NodeName;
use rustc_hash::FxHashMap;

use crate::{
    rules::TransportChoice,
    spatial::{Capabilities, MAX_CAPABILITIES},
};

/// A node that offers rooms, as it announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Its name, by which it is known from one announcement to the next.
    pub node: NodeName,
    /// What its rooms are.
    pub kind: TransportKind,
    /// What a client must be able to join, as clients spell it: the name of the kind, or for an
    /// external one its protocol.
    pub capability: Arc<str>,
    /// The most peers that one of its rooms holds. A node that holds none offers nothing.
    pub max_island_size: u32,
    /// Seats that were free when it announced itself; `None`: no limit.
    pub seats: Option<u32>,
    /// Peers that were in its rooms when it announced itself.
    pub users: u32,
    /// It is about to leave: it takes no more peers, and its islands go elsewhere when they can.
    pub draining: bool,
    /// Where clients reach it. The engine only hands it on.
    pub public_url: Arc<str>,
    /// When its process began, in milliseconds since the Unix epoch; 0: not known. A later one is another process,
    /// which knows none of the strings that clients were sent before.
    pub started_ms: u64,
}

/// What a transport's rooms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// Rooms over WebSocket.
    WsRoom,
    /// LiveKit rooms.
    LiveKit,
    /// A mesh among the peers themselves.
    P2p,
    /// Something else, reached by a configured connection string.
    External,
}

impl TransportKind {
    /// As rules, announcements and clients spell it.
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

/// A node as the engine sees it.
#[derive(Debug, Clone, Copy)]
pub struct TransportView<'a> {
    /// What it last said of itself.
    pub transport: &'a Transport,
    /// Whether it may be given islands: heard of lately, and not draining.
    pub available: bool,
    /// Peers of the islands that are on it.
    pub assigned: u32,
    /// Seats for more, `None` without limit.
    pub free_seats: Option<u32>,
}

/// Which node, by its place in the registry.
pub(crate) type NodeIndex = u16;
/// No node.
pub(crate) const NO_NODE: NodeIndex = NodeIndex::MAX;

/// Nodes that offer rooms, and how many seats of theirs are taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    nodes: Vec<Node>,
    by_name: FxHashMap<NodeName, NodeIndex>,
    /// Each stands for a bit of [`Capabilities`], in this order.
    capabilities: Vec<Arc<str>>,
    changed: bool,
}

#[derive(Debug, Clone)]
struct Node {
    transport: Transport,
    /// When it last announced itself; `None`: all that is known is that clients were told of it.
    announced_at: Option<Duration>,
    present: bool,
    /// Since when it has been there again after it was not, until that has settled.
    recovered_since: Option<Duration>,
    assigned: u32,
    /// What clients must be able to join.
    required: Capabilities,
}

/// Why a node is not the one for an island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeRejection {
    /// It is not heard any more.
    Gone,
    /// It is about to leave.
    Draining,
    /// A member cannot join it.
    MissingCapability,
    /// Its rooms hold fewer.
    RoomTooSmall,
    /// It has not enough seats.
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

    /// Announcements lag behind what was assigned since, and know of users that were not assigned
    /// here: whichever is more counts.
    fn used_seats(&self) -> u32 {
        self.assigned.max(self.transport.users)
    }

    fn free_seats(&self) -> Option<u32> {
        let seats = self.transport.seats?;
        Some(seats.saturating_add(self.transport.users).saturating_sub(self.used_seats()))
    }

    /// How many more seats it has promised than it has.
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

    /// What keeps an island of `size`, all of whose members have the `capabilities`, from being put
    /// here, or if it is `here` already, from staying.
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
    /// The node that announces itself, if what its clients were told before no longer holds: they reach it
    /// elsewhere, or its process is a later one. Of two processes that announce one name in turn, only
    /// the first announcement of the later one counts.
    pub(crate) fn replaced_node(&self, transport: &Transport) -> Option<NodeIndex> {
        let &index = self.by_name.get(&transport.node)?;
        let known = &self.nodes[usize::from(index)];
        let elsewhere = known.transport.public_url != transport.public_url;
        let restarted = transport.started_ms > known.transport.started_ms;
        (known.announced_at.is_some() && (elsewhere || restarted)).then_some(index)
    }

    /// Takes an announcement. Refuses it, with `false`, when the registry is full, or knows as many
    /// capabilities as it can tell apart.
    pub(crate) fn apply_announcement(&mut self, transport: Transport, now: Duration) -> bool {
        let Some(needs) = self.find_or_add_capability(&transport.capability) else { return false };
        let Some(&index) = self.by_name.get(&transport.node) else {
            return self.add_announced(transport, needs, now);
        };
        let node = &mut self.nodes[usize::from(index)];
        let offer = |node: &Node| {
            (node.available(), node.transport.max_island_size, node.transport.kind, node.required)
        };
        let before = offer(node);
        let started_ms = node.transport.started_ms.max(transport.started_ms);
        node.transport = Transport { started_ms, ..transport };
        node.required = needs;
        let known = node.announced_at.replace(now).is_some();
        node.present = true;
        if known && node.available() && !before.0 {
            node.recovered_since = Some(now);
        }
        self.changed |= before != offer(node);
        true
    }

    fn add_announced(&mut self, transport: Transport, needs: Capabilities, now: Duration) -> bool {
        let node = Node {
            transport,
            announced_at: Some(now),
            present: true,
            recovered_since: None,
            assigned: 0,
            required: needs,
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

    /// The node with this name. One that was not heard is taken to be gone until it is; when the
    /// registry is full, none.
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
        let needs = Capabilities::default();
        let node = Node {
            transport,
            announced_at: None,
            present: false,
            recovered_since: None,
            assigned: 0,
            required: needs,
        };
        self.push(node).unwrap_or(NO_NODE)
    }

    /// The bit of a capability, a new one if need be and there is one.
    fn find_or_add_capability(&mut self, name: &Arc<str>) -> Option<Capabilities> {
        if self.capability(name).is_none() && self.capabilities.len() < MAX_CAPABILITIES {
            self.capabilities.push(name.clone());
        }
        self.capability(name)
    }

    fn capability(&self, name: &str) -> Option<Capabilities> {
        let place = self.capabilities.iter().position(|known| **known == *name)?;
        Some(Capabilities(1 << place))
    }

    /// What the known ones of these are called.
    pub(crate) fn capability_names(&self, capabilities: Capabilities) -> impl Iterator<Item = &str> {
        let names = self.capabilities.iter().enumerate();
        names.filter(move |(place, _)| capabilities.0 >> place & 1 == 1).map(|(_, name)| &**name)
    }

    /// How many capabilities are told apart.
    pub(crate) fn capabilities_count(&self) -> usize {
        self.capabilities.len()
    }

    /// The capabilities of a client that can join these. What no node needs counts for nothing, but
    /// all clients are taken to have it.
    pub(crate) fn capabilities(&self, names: &[String]) -> Capabilities {
        let unknown = Capabilities::ALL.0.checked_shl(self.capabilities.len() as u32).unwrap_or(0);
        let bits = names.iter().filter_map(|name| self.capability(name)).map(|capability| capability.0);
        Capabilities(bits.fold(unknown, |bits, bit| bits | bit))
    }

    /// Takes a node's goodbye.
    pub(crate) fn withdraw(&mut self, node: &NodeName) {
        if let Some(&index) = self.by_name.get(node) {
            let node = &mut self.nodes[usize::from(index)];
            self.changed |= node.present;
            node.present = false;
        }
    }

    /// Counts out the nodes that were not heard for longer than `timeout`, and fully in those that
    /// have been back for the `settling` time. Returns whether any node came, went, or changed what it
    /// offers since the last time.
    pub(crate) fn expire(&mut self, timeout: Duration, settling: Duration, now: Duration) -> bool {
        for node in &mut self.nodes {
            if node.present && node.announced_at.is_none_or(|heard| now.saturating_sub(heard) > timeout) {
                node.present = false;
                self.changed = true;
            }
            let settled = |since: &mut Duration| now.saturating_sub(*since) >= settling;
            self.changed |= node.recovered_since.take_if(settled).is_some();
        }
        std::mem::take(&mut self.changed)
    }

    /// The size of the largest room on offer at a choice to those with the capabilities, if any is.
    /// A node that has only just come back is no reason for larger islands.
    pub(crate) fn largest_room(&self, choice: &TransportChoice, capabilities: Capabilities) -> Option<u32> {
        let offers = |node: &&Node| {
            let settled = node.available() && node.recovered_since.is_none();
            settled && node.matches_choice(choice) && capabilities.contains_all(node.required)
        };
        self.nodes.iter().filter(offers).map(|node| node.transport.max_island_size).max()
    }

    /// The node for an island of `size` peers with these capabilities, at a choice: of those that
    /// hold so many in one room and have the seats, the one with the most free seats, then with the
    /// fewest peers, then by name.
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

    /// Whether an island of `size` peers with these capabilities may stay where it is.
    pub(crate) fn can_stay(&self, node: NodeIndex, size: u32, capabilities: Capabilities) -> bool {
        self.nodes
            .get(usize::from(node))
            .is_some_and(|node| node.rejection(size, capabilities, true).is_none())
    }

    /// The same, but for seats.
    pub(crate) fn can_stay_ignoring_seats(
        &self,
        node: NodeIndex,
        size: u32,
        capabilities: Capabilities,
    ) -> bool {
        let unfit = |node: &Node| node.rejection(size, capabilities, true);
        self.nodes
            .get(usize::from(node))
            .is_some_and(|node| matches!(unfit(node), None | Some(NodeRejection::Full)))
    }

    /// Whether the node is one of those that a choice is about.
    pub(crate) fn matches_choice(&self, node: NodeIndex, choice: &TransportChoice) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| node.matches_choice(choice))
    }

    /// The nodes that a choice is about, and what keeps an island that is on `present` from each.
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

    /// Whether a node was promised to more than it has seats for.
    pub(crate) fn is_overbooked(&self, node: NodeIndex) -> bool {
        self.overbooked_by(node) > 0
    }

    /// To how many more a node was promised than it has seats for.
    pub(crate) fn overbooked_by(&self, node: NodeIndex) -> u32 {
        self.nodes.get(usize::from(node)).map_or(0, Node::overbooked_by)
    }

    /// Whether a choice is about a node that could hold an island if only it had the seats.
    pub(crate) fn is_short_of_seats_only(
        &self,
        choice: &TransportChoice,
        size: u32,
        capabilities: Capabilities,
    ) -> bool {
        self.candidates(choice, size, capabilities, NO_NODE)
            .any(|(_, unfit)| unfit == Some(NodeRejection::Full))
    }

    /// What a node last said, and when, if it ever did.
    pub(crate) fn last_announcement(&self, node: NodeIndex) -> Option<(TransportView<'_>, Duration)> {
        let node = self.nodes.get(usize::from(node))?;
        Some((node.view(), node.announced_at?))
    }

    /// Whether the node is there at all, even if it is about to leave.
    pub(crate) fn is_present(&self, node: NodeIndex) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| node.present)
    }

    /// Whether clients with these capabilities can join the node.
    pub(crate) fn can_join(&self, node: NodeIndex, capabilities: Capabilities) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| capabilities.contains_all(node.required))
    }

    /// Whether more peers may be sent to the node.
    pub(crate) fn is_available(&self, node: NodeIndex) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(Node::available)
    }

    /// Takes seats of a node, or gives them back.
    pub(crate) fn reserve(&mut self, node: NodeIndex, before: u32, after: u32) {
        if let Some(node) = self.nodes.get_mut(usize::from(node)) {
            node.assigned = node.assigned.saturating_sub(before).saturating_add(after);
        }
    }

    /// The name of a node.
    pub(crate) fn name(&self, node: NodeIndex) -> Option<&NodeName> {
        self.nodes.get(usize::from(node)).map(|node| &node.transport.node)
    }

    /// All nodes ever heard of.
    pub(crate) fn views(&self) -> impl Iterator<Item = TransportView<'_>> {
        self.nodes.iter().filter(|node| node.announced_at.is_some()).map(Node::view)
    }
}
