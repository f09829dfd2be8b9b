use std::collections::{HashMap, HashSet};

use protocol::{Address, IslandId, NodeName, SessionId};

use super::{Bounds, Partition, Violation, history::PreviousFlush};
use crate::{Engine, Input, Output, TransportView};

/// Follows an engine by what goes in and what comes out, and knows what each client was told.
#[derive(Debug, Clone, Default)]
pub struct InvariantChecker {
    ever_opened: HashSet<IslandId>,
    open: HashSet<IslandId>,
    previous: PreviousFlush,
    last_assigned: HashMap<Address, (IslandId, NodeName)>,
    sessions: HashMap<Address, SessionId>,
    /// Signed in, and not yet heard to say where they are.
    awaiting_heartbeat: HashSet<Address>,
    node_accepts: HashMap<NodeName, bool>,
    /// When the latest process of each node began.
    node_started_ms: HashMap<NodeName, u64>,
    /// Nodes that were promised to more than they have seats for: newcomers wait.
    overbooked_nodes: HashSet<NodeName>,
    /// Have disconnected and not been heard since.
    disconnected: HashSet<Address>,
    /// Not in the island that they were told of at the end of some flush since: their places in rooms
    /// ended, so that they must be told again; the engine may have forgotten what they were told.
    needs_assignment: HashSet<Address>,
}

impl InvariantChecker {
    /// Hears an input, before or after the engine does.
    pub fn observe_input(&mut self, input: &Input) {
        match input {
            Input::Connected { peer, session, .. } => {
                if self.is_current(*peer, *session) {
                    self.last_assigned.remove(peer);
                    self.awaiting_heartbeat.insert(*peer);
                }
            }
            Input::Heartbeat { peer, session, .. } => {
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
            Input::ResendAssignment { peer, session, from } => {
                let current = session.is_none() || *session == self.sessions.get(peer).copied();
                if let Some((_, node)) = self.last_assigned.remove(peer).filter(|_| current) {
                    self.needs_assignment.insert(*peer);
                    self.last_assigned
                        .extend(from.iter().map(|island| (*peer, (island.clone(), node.clone()))));
                }
            }
            Input::Cluster { peer, session, .. } => _ = self.is_current(*peer, *session),
            Input::Transport(transport) => {
                let started = self.node_started_ms.entry(transport.node.clone());
                let started = started.or_insert(transport.started_ms);
                if transport.started_ms > *started {
                    *started = transport.started_ms;
                    let told = self.last_assigned.iter().filter(|(_, (_, node))| *node == transport.node);
                    self.needs_assignment.extend(told.map(|(peer, _)| *peer));
                }
                self.node_accepts.insert(transport.node.clone(), !transport.draining);
            }
            Input::TransportGone { node } => {
                self.node_accepts.insert(node.clone(), false);
            }
            Input::Rules(_) | Input::TimeOfDay { .. } => self.previous.rules_changed = true,
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

    /// Hears that another engine takes over, for which members of an island are those who were told
    /// of it. Whoever waited to be told is new to it.
    pub fn observe_takeover(&mut self) {
        let Self { last_assigned: told, needs_assignment: absent, previous: past, .. } = self;
        let knows = |peer: &Address, island: &IslandId| {
            told.get(peer).is_some_and(|(known, _)| known == island) && !absent.contains(peer)
        };
        let (members, waiting) = past.members.drain().partition(|(peer, island)| knows(peer, island));
        let waiting: HashMap<Address, IslandId> = waiting;
        past.members = members;
        past.rules_changed = true;
        absent.extend(waiting.into_keys());
    }

    /// Holds the outputs of a flush against what the engine shows after it, and that against what
    /// must be true of any islands.
    pub fn check_flush(&mut self, engine: &Engine, outputs: &[Output]) -> Result<(), Violation> {
        let picture = Partition::of(engine);
        let placed = picture.islands.iter().map(|island| island.members.len()).sum();
        let present = engine.placeable_count();
        if placed != present {
            return Err(Violation::PeerCountMismatch { present, placed });
        }
        self.overbooked_nodes =
            engine.transports().filter(is_overbooked).map(|view| view.transport.node.clone()).collect();
        if let Some(island) = engine.misplaced_island() {
            return Err(Violation::BadlyPlaced(island));
        }
        self.check_partition(&picture, &Bounds::of(engine), outputs)
    }

    /// The same for whatever shows itself by a picture.
    pub fn check_partition(
        &mut self,
        picture: &Partition,
        bounds: &Bounds,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        picture.check(bounds)?;
        self.previous.check(picture, bounds)?;
        self.check_island_outputs(outputs)?;
        self.check_member_outputs(picture, bounds, outputs)?;
        self.check_assignments(picture, outputs)
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
        picture: &Partition,
        bounds: &Bounds,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        for output in outputs {
            let (island, so) = match output {
                Output::Left { island, peer, .. } => {
                    (island, self.previous.members.remove(peer).as_ref() == Some(island))
                }
                Output::Joined { island, peer, .. } => {
                    (island, self.previous.members.insert(*peer, island.clone()).is_none())
                }
                _ => continue,
            };
            if !so {
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
        for island in &picture.islands {
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

    fn check_assignments(&mut self, picture: &Partition, outputs: &[Output]) -> Result<(), Violation> {
        let mut told_now = HashSet::new();
        for output in outputs {
            let Output::Assigned { peer, island, transport, from, .. } = output else { continue };
            let now = (island.clone(), transport.clone());
            let before = self.last_assigned.insert(*peer, now.clone());
            let absent = self.needs_assignment.remove(peer);
            if !told_now.insert(*peer) || (before.as_ref() == Some(&now) && !absent) {
                return Err(Violation::RedundantAssignment(*peer));
            }
            let forgotten = absent && from.is_none();
            if from.as_ref() != before.as_ref().map(|(island, _)| island) && !forgotten {
                return Err(Violation::WrongFormerIsland(*peer));
            }
            if self.previous.members.get(peer) != Some(island) {
                return Err(Violation::WrongAssignment(*peer, island.clone()));
            }
        }
        let (told, members) = (&self.last_assigned, self.previous.members.iter());
        let elsewhere =
            members.filter(|(peer, island)| told.get(peer).is_some_and(|told| told.0 != **island));
        self.needs_assignment.extend(elsewhere.map(|(peer, _)| *peer));
        for island in &picture.islands {
            let Some(transport) = &island.transport else { continue };
            if self.node_accepts.get(transport) != Some(&true) || self.overbooked_nodes.contains(transport) {
                continue;
            }
            let place = (island.id.clone(), transport.clone());
            let knows = |peer: &Address| {
                self.last_assigned.get(peer) == Some(&place) && !self.needs_assignment.contains(peer)
            };
            let untold = |peer: &Address| !self.awaiting_heartbeat.contains(peer) && !knows(peer);
            if let Some((peer, _)) = island.members.iter().find(|(peer, _)| untold(peer)) {
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
