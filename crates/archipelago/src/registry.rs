use std::{cmp::Reverse, sync::Arc, time::Duration};

use protocol::NodeName;
use rustc_hash::FxHashMap;

/// A node that offers rooms, as it announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Its name, by which it is known from one announcement to the next.
    pub node: NodeName,
    /// What its rooms are.
    pub kind: TransportKind,
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
#[derive(Debug, Default)]
pub(crate) struct Registry {
    nodes: Vec<Node>,
    by_name: FxHashMap<NodeName, NodeIndex>,
    changed: bool,
}

#[derive(Debug)]
struct Node {
    transport: Transport,
    heard: Duration,
    present: bool,
    assigned: u32,
}

impl Node {
    fn available(&self) -> bool {
        self.present && !self.transport.draining && self.transport.max_island_size > 0
    }

    /// Announcements lag behind what was assigned since, and know of users that were not assigned
    /// here: whichever is more counts.
    fn taken(&self) -> u32 {
        self.assigned.max(self.transport.users)
    }

    fn free_seats(&self) -> Option<u32> {
        let seats = self.transport.seats?;
        Some(seats.saturating_add(self.transport.users).saturating_sub(self.taken()))
    }

    fn has_seats(&self, seats: u32) -> bool {
        self.free_seats().is_none_or(|free| free >= seats)
    }
}

impl Registry {
    /// Takes an announcement. Refuses it, with `false`, when the registry is full.
    pub(crate) fn announce(&mut self, transport: Transport, now: Duration) -> bool {
        let Some(&index) = self.by_name.get(&transport.node) else {
            return self.enter(transport, now);
        };
        let node = &mut self.nodes[usize::from(index)];
        let before = (node.available(), node.transport.max_island_size);
        node.transport = transport;
        node.heard = now;
        node.present = true;
        self.changed |= before != (node.available(), node.transport.max_island_size);
        true
    }

    fn enter(&mut self, transport: Transport, now: Duration) -> bool {
        let Some(index) = NodeIndex::try_from(self.nodes.len()).ok().filter(|&index| index != NO_NODE) else {
            return false;
        };
        self.by_name.insert(transport.node.clone(), index);
        self.nodes.push(Node { transport, heard: now, present: true, assigned: 0 });
        self.changed = true;
        true
    }

    /// Takes a node's goodbye.
    pub(crate) fn withdraw(&mut self, node: &NodeName) {
        if let Some(&index) = self.by_name.get(node) {
            let node = &mut self.nodes[usize::from(index)];
            self.changed |= node.present;
            node.present = false;
        }
    }

    /// Counts out the nodes that were not heard for longer than `timeout`. Returns whether any node
    /// came, went, or changed what it offers since the last time.
    pub(crate) fn expire(&mut self, timeout: Duration, now: Duration) -> bool {
        for node in &mut self.nodes {
            if node.present && now.saturating_sub(node.heard) > timeout {
                node.present = false;
                self.changed = true;
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// The size of the largest room on offer, if anything is.
    pub(crate) fn largest_room(&self) -> Option<u32> {
        self.nodes.iter().filter(|node| node.available()).map(|node| node.transport.max_island_size).max()
    }

    /// The node for a new island of `size` peers: of those that hold so many in one room and have
    /// the seats, the one with the most free seats, then with the fewest peers, then by name.
    pub(crate) fn choose(&self, size: u32) -> Option<NodeIndex> {
        let fits =
            |node: &Node| node.available() && node.transport.max_island_size >= size && node.has_seats(size);
        let rank = |node: &Node| (node.free_seats().unwrap_or(u32::MAX), Reverse(node.taken()));
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| fits(node));
        let best = nodes.max_by(|(_, a), (_, b)| {
            rank(a).cmp(&rank(b)).then_with(|| b.transport.node.cmp(&a.transport.node))
        });
        best.and_then(|(index, _)| NodeIndex::try_from(index).ok())
    }

    /// Whether an island of `size` peers may stay where it is: the node is there, its rooms are
    /// large enough, and it has not promised more seats than it has.
    pub(crate) fn holds(&self, node: NodeIndex, size: u32) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| {
            let overbooked = node
                .transport
                .seats
                .is_some_and(|seats| node.assigned > seats.saturating_add(node.transport.users));
            node.available() && node.transport.max_island_size >= size && !overbooked
        })
    }

    /// Whether the node is there at all, even if it is about to leave.
    pub(crate) fn is_present(&self, node: NodeIndex) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(|node| node.present)
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
        self.nodes.iter().map(|node| TransportView {
            transport: &node.transport,
            available: node.available(),
            assigned: node.assigned,
            free_seats: node.free_seats(),
        })
    }
}
