//! Holds assignments to islands on LiveKit servers until their rooms exist.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use archipelago::{AssignedIsland, Input};
use protocol::{Address, IslandId, NodeName};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use transports::livekit::{ApiError, RoomOptions};

use crate::{
    flush_batch::PeerAssignment,
    livekit::{RoomChanges, Server},
};

/// The rooms of assigned islands on LiveKit servers. It holds only assignments to an island whose room does not exist
/// yet.
///
/// A room that the server does not confirm in time is created by the token of its first participant, if the server is
/// configured so. If it is not, the assignments are held, the engine is told that the node does not host the island for
/// a while, and the creation is tried again. An assignment to another node then replaces each held one.
pub(crate) struct RoomGate {
    servers: HashMap<NodeName, Server>,
    rooms: HashMap<IslandId, Room>,
    openings: JoinSet<Opened>,
    /// Inputs for the engine.
    inputs: mpsc::Sender<Input>,
}

/// The room of an island on a LiveKit server.
struct Room {
    node: NodeName,
    state: RoomState,
}

enum RoomState {
    /// It is being created; the assignments wait.
    Opening(Vec<PeerAssignment>),
    /// It exists.
    Open,
    /// It may not exist: tokens carry its options.
    Unconfirmed(Arc<RoomOptions>),
}

/// What to do with an assignment.
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
    /// The number of earlier attempts.
    attempts: u32,
}

/// The longest time for which assignments are held if the server creates rooms by itself.
const OPENING_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for which a node that could not create the room of an island does not host it; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const MAX_RETRY: Duration = Duration::from_secs(300);

impl RoomGate {
    /// A gate for these servers. `inputs` receives what the engine has to know.
    pub(crate) fn new(servers: Vec<Server>, inputs: mpsc::Sender<Input>) -> Self {
        let servers = servers.into_iter().map(|server| (server.node.clone(), server)).collect();
        Self { servers, rooms: HashMap::new(), openings: JoinSet::new(), inputs }
    }

    /// Admits or holds an assignment.
    pub(crate) fn admit(&mut self, assignment: PeerAssignment) -> Admission {
        let AssignedIsland { id, node, .. } = &*assignment.island;
        let Some(server) = self.servers.get(node) else {
            // The island may have been on a LiveKit server before.
            self.rooms.remove(id);
            return Admission::Publish(assignment, None);
        };
        let room = match self.rooms.entry(id.clone()) {
            Entry::Occupied(entry) if entry.get().node == *node => entry.into_mut(),
            entry => {
                let options = Arc::new(server.room_options(id, assignment.island.rule.as_deref()));
                open(&mut self.openings, server, id.clone(), options, 0);
                let room = Room { node: node.clone(), state: RoomState::Opening(Vec::new()) };
                entry.insert_entry(room).into_mut()
            }
        };
        match &mut room.state {
            RoomState::Opening(held) => {
                held.retain(|earlier| earlier.peer != assignment.peer);
                held.push(assignment);
                Admission::Held
            }
            RoomState::Open => Admission::Publish(assignment, None),
            RoomState::Unconfirmed(options) => Admission::Publish(assignment, Some(options.clone())),
        }
    }

    /// The next outcome of an attempt to create a room; waits while there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Opened {
        loop {
            match self.openings.join_next().await {
                Some(Ok(opened)) => return opened,
                // An attempt neither panics nor is cancelled.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Applies an outcome. Returns the assignments that were held for the room, with the options for their tokens.
    pub(crate) fn opened(&mut self, opened: Opened) -> (Vec<PeerAssignment>, Option<Arc<RoomOptions>>) {
        let Opened { island, node, options, result, attempts } = opened;
        let (Some(server), Some(room)) = (self.servers.get(&node), self.rooms.get_mut(&island)) else {
            return Default::default();
        };
        // The island may have moved meanwhile.
        if room.node != node {
            return Default::default();
        }
        let RoomState::Opening(held) = &mut room.state else { return Default::default() };
        match result {
            Some(Ok(())) => {
                let held = std::mem::take(held);
                room.state = RoomState::Open;
                (held, None)
            }
            _ if server.settings.auto_create => {
                let held = std::mem::take(held);
                room.state = RoomState::Unconfirmed(options.clone());
                (held, Some(options))
            }
            _ => {
                let retry_in = FIRST_RETRY.saturating_mul(1 << attempts.min(8)).min(MAX_RETRY);
                tracing::warn!(%island, %node, ?retry_in, "the room could not be opened");
                // If the queue is full, the next attempt reports it again.
                let input = Input::RoomUnavailable { island: island.clone(), node, retry_in };
                let _ = self.inputs.try_send(input);
                open(&mut self.openings, server, island, options, attempts + 1);
                Default::default()
            }
        }
    }

    /// Removes the held assignments of peers that left an island, forgets islands that ended or moved away, and reports
    /// the changes to the servers.
    pub(crate) fn apply(&mut self, changes: RoomChanges) {
        if self.servers.is_empty() || changes.is_empty() {
            return;
        }
        for (island, node, peers) in &changes.ended {
            let Some(room) = self.rooms.get_mut(island) else { continue };
            match node {
                Some(node) if *node == room.node => drop(self.rooms.remove(island)),
                Some(_) => {}
                None => room.release(peers),
            }
        }
        changes.closed.iter().for_each(|island| drop(self.rooms.remove(island)));
        let changes = Arc::new(changes);
        self.servers.values().for_each(|server| server.report(changes.clone()));
    }

    /// Forgets all rooms and held assignments: another director may have led in between.
    pub(crate) fn clear(&mut self) {
        self.rooms.clear();
        self.openings.abort_all();
    }
}

impl Room {
    fn release(&mut self, peers: &[Address]) {
        if let RoomState::Opening(held) = &mut self.state {
            held.retain(|assignment| !peers.contains(&assignment.peer));
        }
    }
}

/// Starts an attempt to create a room, after the backoff of earlier ones.
fn open(
    openings: &mut JoinSet<Opened>,
    server: &Server,
    island: IslandId,
    options: Arc<RoomOptions>,
    attempts: u32,
) {
    let server = server.clone();
    openings.spawn(async move {
        if attempts > 0 {
            sleep(FIRST_RETRY.saturating_mul(1 << (attempts - 1).min(8)).min(MAX_RETRY)).await;
        }
        let creation = server.open_room(island.clone(), (*options).clone());
        let result = timeout(OPENING_TIMEOUT, creation).await.ok();
        Opened { island, node: server.node, options, result, attempts }
    });
}
