//! The registry of nodes: their announcements, availability and reserved seats, and the choice of a
//! node for an island.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use protocol::NodeName;
use rustc_hash::FxHashMap;

use super::{
    capabilities::{Capabilities, CapabilityNames},
    node::{Demand, Node, NodeRejection},
};
use crate::{
    event::RoomFailure,
    ids::{IslandIndex, NodeIndex, TableIndex},
    index_vec::IndexVec,
    rules::TransportChoice,
    transport::{Transport, TransportKind, TransportView},
};

/// All nodes ever announced, and the seats reserved on each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    nodes: IndexVec<NodeIndex, Node>,
    by_name: FxHashMap<NodeName, NodeIndex>,
    /// The capabilities that nodes require.
    pub(crate) capabilities: CapabilityNames,
    changed: bool,
}

impl Nodes {
    /// The index of an announced node if assignments to it are invalid: its URL changed, or its process
    /// is a later one. Of two processes that announce one name in turn, only the first announcement of
    /// the later one counts.
    pub(crate) fn replaced_node(&self, transport: &Transport) -> Option<NodeIndex> {
        let &index = self.by_name.get(&transport.node)?;
        let known = &self.nodes[index];
        let moved = known.transport.public_url != transport.public_url;
        let restarted = transport.started_ms > known.transport.started_ms;
        (known.announced_at.is_some() && (moved || restarted)).then_some(index)
    }

    /// Applies an announcement. Returns `false` if it was rejected: the registry is full, or it already
    /// has the greatest number of distinct capabilities.
    pub(crate) fn apply_announcement(&mut self, transport: Transport, now: Duration) -> bool {
        let Some(required) = self.capabilities.find_or_add(&transport.capability) else { return false };
        let Some(&index) = self.by_name.get(&transport.node) else {
            return self.add_announced(transport, required, now);
        };
        let node = &mut self.nodes[index];
        let offer = |node: &Node| {
            (node.available(), node.transport.max_island_size, node.transport.kind, node.required)
        };
        let before = offer(node);
        let started_ms = node.transport.started_ms.max(transport.started_ms);
        node.transport = Transport { started_ms, ..transport };
        node.required = required;
        let known = node.announced_at.replace(now).is_some();
        (node.present, node.down_reason) = (true, None);
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
            room_failures: FxHashMap::default(),
            down_reason: None,
        };
        self.changed = true;
        self.push(node).is_some()
    }

    fn push(&mut self, node: Node) -> Option<NodeIndex> {
        let index = NodeIndex::try_new(self.nodes.len())?;
        self.by_name.insert(node.transport.node.clone(), index);
        self.nodes.push(node);
        Some(index)
    }

    /// The index of the node with this name. A node without an announcement is added as unavailable
    /// until it announces itself. `None` if the registry is full.
    pub(crate) fn find_or_add(&mut self, name: &NodeName) -> Option<NodeIndex> {
        if let Some(&index) = self.by_name.get(name) {
            return Some(index);
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
            note: None,
        };
        let required = Capabilities::default();
        let node = Node {
            transport,
            announced_at: None,
            present: false,
            recovered_since: None,
            assigned: 0,
            required,
            room_failures: FxHashMap::default(),
            down_reason: None,
        };
        self.push(node)
    }

    /// Marks a node as gone because it withdrew its offer.
    pub(crate) fn withdraw(&mut self, node: &NodeName) {
        if let Some(&index) = self.by_name.get(node) {
            let node = &mut self.nodes[index];
            self.changed |= node.present;
            node.present = false;
        }
    }

    /// Marks a node as gone because it is down, for this reason. A node that was never announced is added, so that
    /// explanations name it.
    pub(crate) fn set_down(&mut self, transport: Transport, reason: Arc<str>, now: Duration) {
        let name = transport.node.clone();
        if !self.by_name.contains_key(&name) {
            let Some(required) = self.capabilities.find_or_add(&transport.capability) else { return };
            self.add_announced(transport, required, now);
        }
        self.withdraw(&name);
        if let Some(&index) = self.by_name.get(&name) {
            self.nodes[index].down_reason = Some(reason);
        }
    }

    /// Marks nodes without an announcement for longer than `timeout` as gone, and ends the probation of
    /// nodes that have been back for the `settling` time. Returns whether any node appeared,
    /// disappeared or changed its offer since the last call.
    pub(crate) fn expire(&mut self, timeout: Duration, settling: Duration, now: Duration) -> bool {
        for node in self.nodes.iter_mut() {
            if node.present && node.announced_at.is_none_or(|at| now.saturating_sub(at) > timeout) {
                node.present = false;
                self.changed = true;
            }
            let settled = |since: &mut Duration| now.saturating_sub(*since) >= settling;
            self.changed |= node.recovered_since.take_if(settled).is_some();
            let failures = node.room_failures.len();
            node.room_failures.retain(|_, (retry_at, _)| *retry_at > now);
            self.changed |= node.room_failures.len() < failures;
        }
        std::mem::take(&mut self.changed)
    }

    /// The size of the largest room that a transport choice offers to clients with these capabilities,
    /// if there is one. A node that returned less than the settling time ago does not count, so that
    /// it does not cause larger islands.
    pub(crate) fn largest_room(
        &self,
        choice: &TransportChoice,
        capabilities: Capabilities,
        max_mesh_size: u32,
    ) -> Option<u32> {
        let offers = |node: &&Node| {
            let settled = node.available() && node.recovered_since.is_none();
            settled && node.matches_choice(choice) && capabilities.contains_all(node.required)
        };
        self.nodes.iter().filter(offers).map(|node| node.max_room_size(max_mesh_size)).max()
    }

    /// Excludes a node for an island until `retry_at`.
    pub(crate) fn exclude(
        &mut self,
        node: &NodeName,
        island: IslandIndex,
        retry_at: Duration,
        failure: RoomFailure,
    ) {
        if let Some(&index) = self.by_name.get(node) {
            self.nodes[index].room_failures.insert(island, (retry_at, failure));
        }
    }

    /// Forgets which nodes could not host a closed island.
    pub(crate) fn forget_island(&mut self, island: IslandIndex) {
        for node in self.nodes.iter_mut() {
            node.room_failures.remove(&island);
        }
    }

    /// The node for an island, for a transport choice: of the nodes that can host it, the one with the most
    /// free seats, then with the fewest used seats, then the first by name.
    pub(crate) fn choose(&self, choice: &TransportChoice, demand: &Demand) -> Option<NodeIndex> {
        let rank = |node: &Node| (node.free_seats().unwrap_or(u32::MAX), Reverse(node.used_seats()));
        let fits = |node: &Node| node.matches_choice(choice) && node.rejection(demand, false).is_none();
        let nodes = self.nodes.enumerate().filter(|(_, node)| fits(node));
        let best = nodes.max_by(|(_, a), (_, b)| {
            rank(a).cmp(&rank(b)).then_with(|| b.transport.node.cmp(&a.transport.node))
        });
        best.map(|(index, _)| index)
    }

    /// Whether an island can stay on its node.
    pub(crate) fn can_stay(&self, node: NodeIndex, demand: &Demand) -> bool {
        self.nodes[node].rejection(demand, true).is_none()
    }

    /// Whether a transport choice includes the node.
    pub(crate) fn matches_choice(&self, node: NodeIndex, choice: &TransportChoice) -> bool {
        self.nodes[node].matches_choice(choice)
    }

    /// The nodes that a transport choice includes, each with the reason why it cannot host an island
    /// that is on `present`.
    pub(crate) fn candidates(
        &self,
        choice: &TransportChoice,
        demand: Demand,
        present: Option<NodeIndex>,
    ) -> impl Iterator<Item = (NodeIndex, Option<NodeRejection>)> {
        let nodes = self.nodes.enumerate().filter(|(_, node)| node.matches_choice(choice));
        nodes.map(move |(index, node)| (index, node.rejection(&demand, Some(index) == present)))
    }

    /// Whether more members are assigned to a node than it has seats.
    pub(crate) fn is_overbooked(&self, node: NodeIndex) -> bool {
        self.overbooked_by(node) > 0
    }

    /// How many more members are assigned to a node than it has seats.
    pub(crate) fn overbooked_by(&self, node: NodeIndex) -> u32 {
        self.nodes[node].overbooked_by()
    }

    /// Whether a transport choice includes a node that could host an island if it had enough free
    /// seats.
    pub(crate) fn is_short_of_seats_only(&self, choice: &TransportChoice, demand: &Demand) -> bool {
        self.candidates(choice, *demand, None).any(|(_, rejection)| rejection == Some(NodeRejection::Full))
    }

    /// The last announcement of a node and its time, if there was one.
    pub(crate) fn last_announcement(&self, node: NodeIndex) -> Option<(TransportView<'_>, Duration)> {
        let node = &self.nodes[node];
        Some((node.view(), node.announced_at?))
    }

    /// Why the node is down, if it reported that.
    pub(crate) fn down_reason(&self, node: NodeIndex) -> Option<&str> {
        self.nodes[node].down_reason.as_deref()
    }

    /// Whether the node is announced, even if it drains.
    pub(crate) fn is_present(&self, node: NodeIndex) -> bool {
        self.nodes[node].present
    }

    /// Whether clients with these capabilities can join the node.
    pub(crate) fn can_join(&self, node: NodeIndex, capabilities: Capabilities) -> bool {
        capabilities.contains_all(self.nodes[node].required)
    }

    /// Whether the node accepts more peers.
    pub(crate) fn is_available(&self, node: NodeIndex) -> bool {
        self.nodes[node].available()
    }

    /// Replaces a reservation of `before` seats on a node by one of `after` seats.
    pub(crate) fn reserve(&mut self, node: NodeIndex, before: u32, after: u32) {
        let node = &mut self.nodes[node];
        node.assigned = node.assigned.saturating_sub(before).saturating_add(after);
    }

    /// The last announcement of a node.
    pub(crate) fn transport(&self, node: NodeIndex) -> &Transport {
        &self.nodes[node].transport
    }

    /// The name of a node.
    pub(crate) fn name(&self, node: NodeIndex) -> &NodeName {
        &self.transport(node).node
    }

    /// All nodes that were ever announced.
    pub(crate) fn views(&self) -> impl Iterator<Item = TransportView<'_>> {
        self.nodes.iter().filter(|node| node.announced_at.is_some()).map(Node::view)
    }
}
