//! Holds assignments to islands on LiveKit servers until their rooms exist.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use archipelago::{AssignedIsland, Input, RoomFailure};
use protocol::{Address, IslandId, NodeName};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use transports::livekit::{ApiError, RoomOptions};

use crate::{
    flush_batch::PeerAssignment,
    livekit::{RoomChanges, Server},
};

/// The rooms of assigned islands on LiveKit servers. It holds an assignment only while the room of its island does
/// not exist.
///
/// A room that the server does not confirm in time is created by the token of its first participant, if the server is
/// configured so. If it is not, the assignments are held, the node does not host the island for a while, and the creation
/// is tried again. An assignment to another node then replaces each held one.
pub(crate) struct RoomGate {
    servers: HashMap<NodeName, Server>,
    rooms: HashMap<IslandId, Room>,
    openings: JoinSet<Opened>,
    /// Peers with a last assignment that was not published, and the island that their clients were sent before.
    unsent: HashMap<Address, Option<IslandId>>,
    /// Peers that left an island in the current batch.
    departed: Vec<Address>,
    /// How often in a row a node could not open the room of an island, until it did or the island closed.
    failures: HashMap<IslandId, HashMap<NodeName, u32>>,
    /// Reports of unavailable rooms to the engine.
    inputs: mpsc::Sender<Input>,
}

/// The room of an island on a LiveKit server.
struct Room {
    node: NodeName,
    state: RoomState,
}

enum RoomState {
    /// It is being created; the assignments wait.
    Opening(Opening),
    /// It exists.
    Open,
    /// It may not exist: tokens carry its options.
    Unconfirmed(Arc<RoomOptions>),
}

/// A room that is being created. Dropping it ends the attempt.
struct Opening {
    attempt: AbortHandle,
    held: Vec<PeerAssignment>,
    /// The island as of the last flush that assigned it, without members that left since.
    island: Arc<AssignedIsland>,
}

/// The decision about an assignment.
pub(crate) enum Admission {
    /// Publish it, with a token that carries these options.
    Publish(PeerAssignment, Option<Arc<RoomOptions>>),
    /// It is held.
    Held,
}

/// The outcome of an attempt to create a room.
pub(crate) struct Opened {
    island: IslandId,
    node: NodeName,
    options: Arc<RoomOptions>,
    /// `None`: no reply in time.
    result: Option<Result<(), ApiError>>,
}

/// The longest time for which assignments are held if the server creates rooms by itself.
const OPENING_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for which a node that could not open the room of an island does not host it; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const MAX_RETRY: Duration = Duration::from_secs(300);

impl RoomGate {
    /// A gate for these servers. `inputs` receives reports of unavailable rooms.
    pub(crate) fn new(servers: Vec<Server>, inputs: mpsc::Sender<Input>) -> Self {
        let servers = servers.into_iter().map(|server| (server.node.clone(), server)).collect();
        Self {
            servers,
            rooms: HashMap::new(),
            openings: JoinSet::new(),
            unsent: HashMap::new(),
            departed: Vec::new(),
            failures: HashMap::new(),
            inputs,
        }
    }

    /// The participants in the room of an island, if its node is one of these servers.
    pub(crate) fn participants(&self, node: &NodeName, island: &IslandId) -> Option<u32> {
        let count = self.servers.get(node)?.room_count(island);
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Admits or holds an assignment.
    pub(crate) fn admit(&mut self, mut assignment: PeerAssignment) -> Admission {
        // The engine counts a held assignment as sent.
        if let Some(from) = self.unsent.remove(&assignment.peer) {
            assignment.from = from;
            self.rooms.values_mut().for_each(|room| room.drop_held(&[assignment.peer]));
        }
        let AssignedIsland { id, node, .. } = &*assignment.island;
        if !self.servers.contains_key(node) {
            // The island may have been on a LiveKit server before.
            self.rooms.remove(id);
            return Admission::Publish(assignment, None);
        }
        if self.rooms.get(id).is_none_or(|room| room.node != *node) {
            self.open(&assignment.island);
        }
        let Some(room) = self.rooms.get_mut(id) else { return Admission::Publish(assignment, None) };
        match &mut room.state {
            RoomState::Opening(opening) => {
                opening.island = assignment.island.clone();
                self.unsent.insert(assignment.peer, assignment.from.clone());
                opening.held.push(assignment);
                Admission::Held
            }
            RoomState::Open => Admission::Publish(assignment, None),
            RoomState::Unconfirmed(options) => Admission::Publish(assignment, Some(options.clone())),
        }
    }

    /// Ends a batch: forgets peers that left without a new assignment.
    pub(crate) fn finish_batch(&mut self) {
        let held: HashSet<Address> = self.rooms.values().flat_map(Room::held_peers).collect();
        for peer in self.departed.drain(..).filter(|peer| !held.contains(peer)) {
            self.unsent.remove(&peer);
        }
    }

    /// The next outcome of an attempt to create a room; waits while there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Opened {
        loop {
            match self.openings.join_next().await {
                Some(Ok(opened)) => return opened,
                // The island has moved or ended.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Applies an outcome. Returns the assignments that were held for the room, with the options for their tokens.
    pub(crate) fn opened(&mut self, opened: Opened) -> (Vec<PeerAssignment>, Option<Arc<RoomOptions>>) {
        let Opened { island, node, options, result } = opened;
        let (Some(server), Some(room)) = (self.servers.get(&node), self.rooms.get_mut(&island)) else {
            return Default::default();
        };
        // The island may have moved while this outcome was on its way.
        if room.node != node || !matches!(room.state, RoomState::Opening(_)) {
            return Default::default();
        }
        let next_state = match result {
            Some(Ok(())) => {
                self.failures.remove(&island);
                RoomState::Open
            }
            _ if server.settings.auto_create => RoomState::Unconfirmed(options.clone()),
            _ => {
                self.retry(&island, node, options);
                return Default::default();
            }
        };
        let in_token = matches!(next_state, RoomState::Unconfirmed(_)).then_some(options);
        let RoomState::Opening(mut opening) = std::mem::replace(&mut room.state, next_state) else {
            return Default::default();
        };
        let mut held = std::mem::take(&mut opening.held);
        for assignment in &mut held {
            assignment.island = opening.island.clone();
            self.unsent.remove(&assignment.peer);
        }
        (held, in_token)
    }

    /// Removes the held assignments of peers that left an island, forgets islands that ended or moved away, and
    /// reports the changes to the servers.
    pub(crate) fn apply(&mut self, changes: RoomChanges) {
        if self.servers.is_empty() || changes.is_empty() {
            return;
        }
        for (island, node, peers) in &changes.ended {
            self.departed.extend(peers.iter().filter(|peer| self.unsent.contains_key(*peer)));
            let Some(room) = self.rooms.get_mut(island) else { continue };
            match node {
                Some(node) if *node == room.node => drop(self.rooms.remove(island)),
                Some(_) => {}
                None => room.remove_members(peers),
            }
        }
        for island in &changes.closed {
            self.rooms.remove(island);
            self.failures.remove(island);
        }
        let changes = Arc::new(changes);
        self.servers.values().for_each(|server| server.report(changes.clone()));
    }

    /// Forgets all rooms and held assignments: another engine decides.
    pub(crate) fn clear(&mut self) {
        self.rooms.clear();
        self.unsent.clear();
        self.departed.clear();
        self.failures.clear();
    }

    /// Starts to create the room of an island.
    fn open(&mut self, island: &Arc<AssignedIsland>) {
        let AssignedIsland { id, node, rule, .. } = &**island;
        let Some(server) = self.servers.get(node) else { return };
        let options = Arc::new(server.room_options(id, rule.as_deref()));
        let attempt = attempt(&mut self.openings, server, id.clone(), options, Duration::ZERO);
        let opening = Opening { attempt, held: Vec::new(), island: island.clone() };
        self.rooms.insert(id.clone(), Room { node: node.clone(), state: RoomState::Opening(opening) });
    }

    /// Excludes the node for the island for a while, and tries again after it.
    fn retry(&mut self, island: &IslandId, node: NodeName, options: Arc<RoomOptions>) {
        let failures = self.failures.entry(island.clone()).or_default().entry(node.clone()).or_default();
        let retry_in = FIRST_RETRY.saturating_mul(1 << (*failures).min(8)).min(MAX_RETRY);
        *failures = failures.saturating_add(1);
        tracing::warn!(%island, %node, ?retry_in, "the room could not be opened");
        if let (Some(server), Some(room)) = (self.servers.get(&node), self.rooms.get_mut(island))
            && let RoomState::Opening(opening) = &mut room.state
        {
            opening.attempt = attempt(&mut self.openings, server, island.clone(), options, retry_in);
        }
        // If the queue is full, the next attempt reports it again.
        let (island, failure) = (island.clone(), RoomFailure::NotOpened);
        let _ = self.inputs.try_send(Input::RoomUnavailable { island, node, retry_in, failure });
    }
}

impl Room {
    fn held_peers(&self) -> impl Iterator<Item = Address> {
        let held = match &self.state {
            RoomState::Opening(opening) => &opening.held[..],
            _ => &[],
        };
        held.iter().map(|assignment| assignment.peer)
    }

    fn drop_held(&mut self, peers: &[Address]) {
        if let RoomState::Opening(opening) = &mut self.state {
            opening.held.retain(|assignment| !peers.contains(&assignment.peer));
        }
    }

    /// Removes peers that left the island.
    fn remove_members(&mut self, peers: &[Address]) {
        self.drop_held(peers);
        if let RoomState::Opening(Opening { island, .. }) = &mut self.state {
            let AssignedIsland { id, node, node_url, rule, media, members } = &**island;
            let members = members.iter().filter(|(member, _)| !peers.contains(member)).copied().collect();
            *island = Arc::new(AssignedIsland {
                id: id.clone(),
                node: node.clone(),
                node_url: node_url.clone(),
                rule: rule.clone(),
                media: *media,
                members,
            });
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.attempt.abort();
    }
}

/// Starts an attempt to create a room, after this delay.
fn attempt(
    openings: &mut JoinSet<Opened>,
    server: &Server,
    island: IslandId,
    options: Arc<RoomOptions>,
    delay: Duration,
) -> AbortHandle {
    let server = server.clone();
    openings.spawn(async move {
        sleep(delay).await;
        let creation = server.open_room(island.clone(), (*options).clone());
        let result = timeout(OPENING_TIMEOUT, creation).await.ok();
        Opened { island, node: server.node, options, result }
    })
}
