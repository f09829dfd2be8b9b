use std::collections::{HashMap, HashSet};

use protocol::{Address, IslandId, NodeName, SessionId};

use super::{Bounds, Picture, Violation, history::Past};
use crate::{Engine, Input, Output, TransportView};

/// Follows an engine by what goes in and what comes out, and knows what each client was told.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    ever: HashSet<IslandId>,
    open: HashSet<IslandId>,
    past: Past,
    told: HashMap<Address, (IslandId, NodeName)>,
    sessions: HashMap<Address, SessionId>,
    /// Signed in, and not yet heard to say where they are.
    mute: HashSet<Address>,
    nodes_taking: HashMap<NodeName, bool>,
    /// When the latest process of each node began.
    nodes_started: HashMap<NodeName, u64>,
    /// Nodes that were promised to more than they have seats for: newcomers wait.
    full: HashSet<NodeName>,
    /// Have disconnected and not been heard since.
    gone: HashSet<Address>,
    /// Not in the island that they were told of at the end of some flush since: their places in rooms
    /// ended, so that they must be told again; the engine may have forgotten what they were told.
    absent: HashSet<Address>,
}

impl Witness {
    /// Hears an input, before or after the engine does.
    pub fn hear(&mut self, input: &Input) {
        match input {
            Input::Connected { peer, session, .. } => {
                if self.is_current(*peer, *session) {
                    self.told.remove(peer);
                    self.mute.insert(*peer);
                }
            }
            Input::Heartbeat { peer, session, .. } => {
                if self.is_current(*peer, *session) {
                    self.mute.remove(peer);
                    self.gone.remove(peer);
                }
            }
            Input::Disconnected { peer, session } => {
                if self.is_current(*peer, *session) {
                    self.told.remove(peer);
                    self.gone.insert(*peer);
                }
            }
            Input::Tell { peer, session, from } => {
                let current = session.is_none() || *session == self.sessions.get(peer).copied();
                if let Some((_, node)) = self.told.remove(peer).filter(|_| current) {
                    self.absent.insert(*peer);
                    self.told.extend(from.iter().map(|island| (*peer, (island.clone(), node.clone()))));
                }
            }
            Input::Cluster { peer, session, .. } => _ = self.is_current(*peer, *session),
            Input::Transport(transport) => {
                let started = self.nodes_started.entry(transport.node.clone());
                let started = started.or_insert(transport.started_ms);
                if transport.started_ms > *started {
                    *started = transport.started_ms;
                    let told = self.told.iter().filter(|(_, (_, node))| *node == transport.node);
                    self.absent.extend(told.map(|(peer, _)| *peer));
                }
                self.nodes_taking.insert(transport.node.clone(), !transport.draining);
            }
            Input::TransportGone { node } => {
                self.nodes_taking.insert(node.clone(), false);
            }
            Input::Rules(_) | Input::TimeOfDay { .. } => self.past.relaid = true,
        }
    }

    fn is_current(&mut self, peer: Address, session: Option<SessionId>) -> bool {
        let (Some(session), current) = (session, self.sessions.get(&peer).copied()) else { return true };
        if current.is_none_or(|current| session > current) {
            self.sessions.insert(peer, session);
            self.told.remove(&peer);
        }
        current.is_none_or(|current| session >= current)
    }

    /// Hears that another engine takes over, for which members of an island are those who were told
    /// of it. Whoever waited to be told is new to it.
    pub fn take_over(&mut self) {
        let Self { told, absent, past, .. } = self;
        let knows = |peer: &Address, island: &IslandId| {
            told.get(peer).is_some_and(|(known, _)| known == island) && !absent.contains(peer)
        };
        let (members, waiting) = past.members.drain().partition(|(peer, island)| knows(peer, island));
        let waiting: HashMap<Address, IslandId> = waiting;
        past.members = members;
        past.relaid = true;
        absent.extend(waiting.into_keys());
    }

    /// Holds the outputs of a flush against what the engine shows after it, and that against what
    /// must be true of any islands.
    pub fn see(&mut self, engine: &Engine, outputs: &[Output]) -> Result<(), Violation> {
        let picture = Picture::of(engine);
        let placed = picture.islands.iter().map(|island| island.members.len()).sum();
        let present = engine.placeable();
        if placed != present {
            return Err(Violation::Misplaced { present, placed });
        }
        self.full =
            engine.transports().filter(is_overbooked).map(|view| view.transport.node.clone()).collect();
        if let Some(island) = engine.badly_placed() {
            return Err(Violation::BadlyPlaced(island));
        }
        self.see_picture(&picture, &Bounds::of(engine), outputs)
    }

    /// The same for whatever shows itself by a picture.
    pub fn see_picture(
        &mut self,
        picture: &Picture,
        bounds: &Bounds,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        picture.check(bounds)?;
        self.past.check(picture, bounds)?;
        self.follow_islands(outputs)?;
        self.follow_members(picture, bounds, outputs)?;
        self.follow_told(picture, outputs)
    }

    fn follow_islands(&mut self, outputs: &[Output]) -> Result<(), Violation> {
        for output in outputs {
            if let Output::Opened { island } = output {
                if !self.ever.insert(island.clone()) {
                    return Err(Violation::Reused(island.clone()));
                }
                self.open.insert(island.clone());
                self.past.ages.insert(island.clone(), self.ever.len());
            }
            if let Output::Closed { island } = output
                && !self.open.remove(island)
            {
                return Err(Violation::Untrue(island.clone()));
            }
        }
        Ok(())
    }

    fn follow_members(
        &mut self,
        picture: &Picture,
        bounds: &Bounds,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        for output in outputs {
            let (island, so) = match output {
                Output::Left { island, peer, .. } => {
                    (island, self.past.members.remove(peer).as_ref() == Some(island))
                }
                Output::Joined { island, peer, .. } => {
                    (island, self.past.members.insert(*peer, island.clone()).is_none())
                }
                _ => continue,
            };
            if !so {
                return Err(Violation::Untrue(island.clone()));
            }
        }
        for output in outputs {
            if let Output::TakenOver { island, peer } = output
                && self.past.members.get(peer) != Some(island)
            {
                return Err(Violation::Untrue(island.clone()));
            }
        }
        self.past.known.extend(self.past.members.keys());
        let enclosures = self.past.known.iter().filter_map(|&peer| Some((peer, bounds.enclosure(peer)?)));
        self.past.enclosures = enclosures.collect();
        self.past.relaid = false;
        let mut placed = 0;
        for island in &picture.islands {
            if let Some((peer, _)) = island.members.iter().find(|(peer, _)| self.gone.contains(peer)) {
                return Err(Violation::Stale(*peer));
            }
            placed += island.members.len();
            let open = self.open.contains(&island.id);
            if !open || island.members.iter().any(|(peer, _)| self.past.members.get(peer) != Some(&island.id))
            {
                return Err(Violation::Untrue(island.id.clone()));
            }
        }
        let left = outputs.iter().filter_map(|output| match output {
            Output::Left { peer, .. } => Some(*peer),
            _ => None,
        });
        self.absent.extend(left.filter(|peer| !self.past.members.contains_key(peer)));
        match self.past.members.values().next() {
            Some(island) if placed != self.past.members.len() => Err(Violation::Untrue(island.clone())),
            _ => Ok(()),
        }
    }

    fn follow_told(&mut self, picture: &Picture, outputs: &[Output]) -> Result<(), Violation> {
        let mut told_now = HashSet::new();
        for output in outputs {
            let Output::Assigned { peer, island, transport, from, .. } = output else { continue };
            let now = (island.clone(), transport.clone());
            let before = self.told.insert(*peer, now.clone());
            let absent = self.absent.remove(peer);
            if !told_now.insert(*peer) || (before.as_ref() == Some(&now) && !absent) {
                return Err(Violation::ToldForNothing(*peer));
            }
            let forgotten = absent && from.is_none();
            if from.as_ref() != before.as_ref().map(|(island, _)| island) && !forgotten {
                return Err(Violation::WrongFormer(*peer));
            }
            if self.past.members.get(peer) != Some(island) {
                return Err(Violation::ToldWrong(*peer, island.clone()));
            }
        }
        let (told, members) = (&self.told, self.past.members.iter());
        let elsewhere =
            members.filter(|(peer, island)| told.get(peer).is_some_and(|told| told.0 != **island));
        self.absent.extend(elsewhere.map(|(peer, _)| *peer));
        for island in &picture.islands {
            let Some(transport) = &island.transport else { continue };
            if self.nodes_taking.get(transport) != Some(&true) || self.full.contains(transport) {
                continue;
            }
            let place = (island.id.clone(), transport.clone());
            let knows = |peer: &Address| self.told.get(peer) == Some(&place) && !self.absent.contains(peer);
            let untold = |peer: &Address| !self.mute.contains(peer) && !knows(peer);
            if let Some((peer, _)) = island.members.iter().find(|(peer, _)| untold(peer)) {
                return Err(Violation::NotTold(*peer));
            }
        }
        Ok(())
    }
}

fn is_overbooked(view: &TransportView<'_>) -> bool {
    let seats = view.transport.seats.map(|seats| seats.saturating_add(view.transport.users));
    seats.is_some_and(|seats| view.assigned > seats)
}
