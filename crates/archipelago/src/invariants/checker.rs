//! Follows an engine's inputs and outputs and checks them against its islands.

use std::collections::{HashMap, HashSet};

use protocol::{Address, IslandId, NodeName, SessionId};

use super::{
    bounds::Bounds, history::PreviousFlush, media::MediaRecord, partition::Partition, violation::Violation,
};
use crate::{
    engine::Engine,
    event::{Heartbeat, Input, Output},
    ids::IslandIndex,
    rules::TransportChoice,
    transport::{Transport, TransportView},
    world::{NodeRejection, World},
};

/// Checks the invariants after each flush of an engine. It must observe every input and every output; from
/// these it keeps its own record of the islands and of each client's last assignment.
#[derive(Debug, Clone, Default)]
pub struct InvariantChecker {
    ever_opened: HashSet<IslandId>,
    open: HashSet<IslandId>,
    previous: PreviousFlush,
    media: MediaRecord,
    last_assigned: HashMap<Address, (IslandId, NodeName)>,
    sessions: HashMap<Address, SessionId>,
    /// Peers that signed in and have not sent a heartbeat since: they get no assignment yet.
    awaiting_heartbeat: HashSet<Address>,
    node_accepts: HashMap<NodeName, bool>,
    /// Start of the latest process of each node, in Unix milliseconds.
    node_started_ms: HashMap<NodeName, u64>,
    /// Nodes with more assigned members than seats: new members wait.
    overbooked_nodes: HashSet<NodeName>,
    /// Peers that disconnected and have not sent a heartbeat since.
    disconnected: HashSet<Address>,
    /// Peers that were not in their assigned island at the end of some flush since the assignment. Their
    /// membership of the room ended, so that they need a new assignment, even to the same island; the engine
    /// may have forgotten the last one.
    needs_assignment: HashSet<Address>,
}

impl InvariantChecker {
    /// Records an input, before or after the engine handles it.
    pub fn observe_input(&mut self, input: &Input) {
        match input {
            Input::Connected { peer, session, .. } => {
                if self.is_current(*peer, *session) {
                    self.last_assigned.remove(peer);
                    self.awaiting_heartbeat.insert(*peer);
                }
            }
            Input::Heartbeat(Heartbeat { peer, session, .. }) => {
                if self.is_current(*peer, *session) {
                    self.awaiting_heartbeat.remove(peer);
                    self.disconnected.remove(peer);
                }
            }
            Input::Disconnected { peer, session } => {
                if self.is_current(*peer, *session) {
                    self.last_assigned.remove(peer);
                    self.disconnected.insert(*peer);
                }
            }
            Input::Cluster { peer, session, .. } => _ = self.is_current(*peer, *session),
            Input::Transport(transport) => {
                let started = self.node_started_ms.entry(transport.node.clone());
                let started = started.or_insert(transport.started_ms);
                if transport.started_ms > *started {
                    *started = transport.started_ms;
                    let assigned = self.last_assigned.iter().filter(|(_, (_, node))| *node == transport.node);
                    self.needs_assignment.extend(assigned.map(|(peer, _)| *peer));
                }
                self.node_accepts.insert(transport.node.clone(), !transport.draining);
            }
            Input::TransportGone { node }
            | Input::TransportDown { transport: Transport { node, .. }, .. } => {
                self.node_accepts.insert(node.clone(), false);
            }
            Input::Rules(_) | Input::TimeOfDay { .. } => self.previous.rules_changed = true,
            Input::ReportsOutdated | Input::RoomUnavailable { .. } => {}
        }
    }

    fn is_current(&mut self, peer: Address, session: Option<SessionId>) -> bool {
        let (Some(session), current) = (session, self.sessions.get(&peer).copied()) else { return true };
        if current.is_none_or(|current| session > current) {
            self.sessions.insert(peer, session);
            self.last_assigned.remove(&peer);
        }
        current.is_none_or(|current| session >= current)
    }

    /// Records that another engine takes over. To that engine, the members of an island are the peers with
    /// an assignment to it; peers that waited for an assignment are new.
    pub fn observe_takeover(&mut self) {
        let Self { last_assigned: assigned, needs_assignment, previous, .. } = self;
        let is_assigned = |peer: &Address, island: &IslandId| {
            assigned.get(peer).is_some_and(|(island_assigned, _)| island_assigned == island)
                && !needs_assignment.contains(peer)
        };
        let (members, waiting) =
            previous.members.drain().partition(|(peer, island)| is_assigned(peer, island));
        let waiting: HashMap<Address, IslandId> = waiting;
        previous.members = members;
        previous.rules_changed = true;
        self.media.clear();
        needs_assignment.extend(waiting.into_keys());
    }

    /// Checks the outputs of a flush against the engine's islands after it, and those against the
    /// invariants.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check_flush(&mut self, engine: &Engine, outputs: &[Output]) -> Result<(), Violation> {
        let partition = Partition::of(engine);
        let placed = partition.islands.iter().map(|island| island.members.len()).sum();
        let world = &engine.world;
        let present = world.peers.present().filter(|&peer| world.is_placeable(peer)).count();
        if placed != present {
            return Err(Violation::PeerCountMismatch { present, placed });
        }
        self.overbooked_nodes =
            engine.transports().filter(is_overbooked).map(|view| view.transport.node.clone()).collect();
        if let Some(island) = misplaced_island(engine) {
            return Err(Violation::BadlyPlaced(island));
        }
        self.media.check(engine.islands().map(|island| (island.id(), island.media())), outputs)?;
        self.check_partition(&partition, &Bounds::of(engine), outputs)
    }

    /// The same for any engine of which only the partition is known.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check_partition(
        &mut self,
        partition: &Partition,
        bounds: &Bounds,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        partition.check(bounds)?;
        self.previous.check(partition, bounds)?;
        self.check_island_outputs(outputs)?;
        self.check_member_outputs(partition, bounds, outputs)?;
        self.check_assignments(partition, outputs)
    }

    fn check_island_outputs(&mut self, outputs: &[Output]) -> Result<(), Violation> {
        for output in outputs {
            if let Output::Opened { island } = output {
                if !self.ever_opened.insert(island.clone()) {
                    return Err(Violation::ReusedId(island.clone()));
                }
                self.open.insert(island.clone());
                self.previous.ages.insert(island.clone(), self.ever_opened.len());
            }
            if let Output::Closed { island } = output
                && !self.open.remove(island)
            {
                return Err(Violation::OutputMismatch(island.clone()));
            }
        }
        Ok(())
    }

    fn check_member_outputs(
        &mut self,
        partition: &Partition,
        bounds: &Bounds,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        for output in outputs {
            let (island, consistent) = match output {
                Output::Left { island, peer, .. } => {
                    (island, self.previous.members.remove(peer).as_ref() == Some(island))
                }
                Output::Joined { island, peer, .. } => {
                    (island, self.previous.members.insert(*peer, island.clone()).is_none())
                }
                _ => continue,
            };
            if !consistent {
                return Err(Violation::OutputMismatch(island.clone()));
            }
        }
        for output in outputs {
            if let Output::TakenOver { island, peer } = output
                && self.previous.members.get(peer) != Some(island)
            {
                return Err(Violation::OutputMismatch(island.clone()));
            }
        }
        self.previous.ever_placed.extend(self.previous.members.keys());
        let enclosures =
            self.previous.ever_placed.iter().filter_map(|&peer| Some((peer, bounds.enclosure(peer)?)));
        self.previous.enclosures = enclosures.collect();
        self.previous.rules_changed = false;
        let mut placed = 0;
        for island in &partition.islands {
            if let Some((peer, _)) = island.members.iter().find(|(peer, _)| self.disconnected.contains(peer))
            {
                return Err(Violation::StaleMember(*peer));
            }
            placed += island.members.len();
            let open = self.open.contains(&island.id);
            if !open
                || island.members.iter().any(|(peer, _)| self.previous.members.get(peer) != Some(&island.id))
            {
                return Err(Violation::OutputMismatch(island.id.clone()));
            }
        }
        let left = outputs.iter().filter_map(|output| match output {
            Output::Left { peer, .. } => Some(*peer),
            _ => None,
        });
        self.needs_assignment.extend(left.filter(|peer| !self.previous.members.contains_key(peer)));
        match self.previous.members.values().next() {
            Some(island) if placed != self.previous.members.len() => {
                Err(Violation::OutputMismatch(island.clone()))
            }
            _ => Ok(()),
        }
    }

    fn check_assignments(&mut self, partition: &Partition, outputs: &[Output]) -> Result<(), Violation> {
        let mut assigned_now = HashSet::new();
        for output in outputs {
            if let Output::AssignmentMissed { peer, reported } = output
                && let Some((_, node)) = self.last_assigned.remove(peer)
            {
                self.needs_assignment.insert(*peer);
                let received = reported.island.parse().ok().map(|island| (*peer, (island, node)));
                self.last_assigned.extend(received);
            }
            let Output::Assigned { peer, island, from, .. } = output else { continue };
            let now = (island.id.clone(), island.node.clone());
            let before = self.last_assigned.insert(*peer, now.clone());
            let needs_assignment = self.needs_assignment.remove(peer);
            if !assigned_now.insert(*peer) || (before.as_ref() == Some(&now) && !needs_assignment) {
                return Err(Violation::RedundantAssignment(*peer));
            }
            let forgotten = needs_assignment && from.is_none();
            if from.as_ref() != before.as_ref().map(|(island, _)| island) && !forgotten {
                return Err(Violation::WrongFormerIsland(*peer));
            }
            if self.previous.members.get(peer) != Some(&island.id) {
                return Err(Violation::WrongAssignment(*peer, island.id.clone()));
            }
        }
        let (assigned, members) = (&self.last_assigned, self.previous.members.iter());
        let moved = members
            .filter(|(peer, island)| assigned.get(peer).is_some_and(|assigned| assigned.0 != **island));
        self.needs_assignment.extend(moved.map(|(peer, _)| *peer));
        for island in &partition.islands {
            let Some(transport) = &island.transport else { continue };
            if self.node_accepts.get(transport) != Some(&true) || self.overbooked_nodes.contains(transport) {
                continue;
            }
            let assignment = (island.id.clone(), transport.clone());
            let is_assigned = |peer: &Address| {
                self.last_assigned.get(peer) == Some(&assignment) && !self.needs_assignment.contains(peer)
            };
            let is_missing = |peer: &Address| !self.awaiting_heartbeat.contains(peer) && !is_assigned(peer);
            if let Some((peer, _)) = island.members.iter().find(|(peer, _)| is_missing(peer)) {
                return Err(Violation::MissingAssignment(*peer));
            }
        }
        Ok(())
    }
}

fn is_overbooked(view: &TransportView<'_>) -> bool {
    let seats = view.transport.seats.map(|seats| seats.saturating_add(view.transport.users));
    seats.is_some_and(|seats| view.assigned > seats)
}

/// An island that should have another node: its node is gone, drains, has too small a room or cannot be
/// joined by all members, or it has none, while another node of its rule could host it. Nodes with a seat
/// count are not considered: seats may have become free after the island was evaluated.
fn misplaced_island(engine: &Engine) -> Option<IslandId> {
    let World { islands, nodes, zones, .. } = &engine.world;
    let badly = |&island: &IslandIndex| {
        let (demand, zone) = (engine.world.demand(island), engine.world.majority_zone(island));
        let present = islands[island].node;
        let can_stay = present.is_some_and(|node| {
            let choice = TransportChoice::Node(nodes.name(node).clone());
            let mut rejections = nodes.candidates(&choice, demand, present);
            rejections.any(|(_, rejection)| matches!(rejection, None | Some(NodeRejection::Full)))
        });
        let could_host = |choice: &TransportChoice| {
            let node = nodes.choose(choice, &demand);
            let last = node.and_then(|node| nodes.last_announcement(node));
            last.is_some_and(|(view, _)| view.free_seats.is_none())
        };
        !can_stay && zones.choices(zones.rule_for(zone, demand.size)).any(could_host)
    };
    islands.id(islands.populated().find(badly)?)
}
