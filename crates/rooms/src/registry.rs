use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use admission::{Rate, RateLimiter};
use protocol::{Address, Close, RoomName, Ulid};
use tokio::time::Instant;
use transports::ws_room::TokenRefusal;

use crate::{
    batch::SlabBytes,
    egress::{EgressLimits, NodeEgress},
    reentry::ReentryTokens,
    room::{JoinError, JoinRequest, NodeResources, Room},
    send_queue::{QueueLimits, SendQueue},
};

/// All rooms of a node, who may no longer enter them, and the limits of the whole.
#[derive(Debug)]
pub(crate) struct Registry {
    limits: NodeLimits,
    /// The next alias, which nodes of one process share.
    next_alias: Arc<AtomicU32>,
    node: NodeResources,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeLimits {
    pub(crate) max_room_size: usize,
    pub(crate) max_users: usize,
    pub(crate) queue_limits: QueueLimits,
    /// How long a revocation is remembered: as long as a token admits.
    pub(crate) revocation_ttl: Duration,
    /// How often one address may enter one room.
    pub(crate) entry_rate: Rate,
    pub(crate) egress: EgressLimits,
}

/// Addresses in rooms whose entries are counted at a time. One is forgotten when it may enter as often
/// as one that never did.
const MAX_ENTRY_COUNTS: usize = 65_536;
/// How many memberships without a socket are remembered, for each seat of the node.
const DISCONNECTED_PER_SEAT: usize = 2;

#[derive(Debug)]
struct State {
    rooms: HashMap<RoomName, Arc<Room>>,
    users: usize,
    entry_limiter: RateLimiter<(RoomName, Address)>,
    /// Tokens minted at or before this admit this address to this room no more.
    revoked: HashMap<(RoomName, Address), Ulid>,
    revocation_expiries: VecDeque<(Instant, RoomName, Address, Ulid)>,
    reentry: ReentryTokens,
    draining: bool,
}

/// A place in a room.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: Arc<Room>,
    pub(crate) alias: u32,
    address: Address,
    pub(crate) send_queue: Arc<SendQueue>,
}

impl Registry {
    pub(crate) fn new(limits: NodeLimits, aliases: Arc<AtomicU32>) -> Self {
        let node =
            NodeResources { slabs: SlabBytes::default(), egress: Arc::new(NodeEgress::new(limits.egress)) };
        let state = State {
            rooms: HashMap::new(),
            users: 0,
            entry_limiter: RateLimiter::new(limits.entry_rate, MAX_ENTRY_COUNTS),
            revoked: HashMap::new(),
            revocation_expiries: VecDeque::new(),
            reentry: ReentryTokens::new(limits.max_users.saturating_mul(DISCONNECTED_PER_SEAT)),
            draining: false,
        };
        Self { limits, next_alias: aliases, node, state: Mutex::new(state) }
    }

    /// Lets somebody into a room, which is made if it is not there; all limits are checked and
    /// taken up in one step.
    pub(crate) fn join(&self, name: &RoomName, entrant: &JoinRequest) -> Result<Membership, (Close, String)> {
        let refuse = |close: Close, reason: &str| Err((close, reason.to_owned()));
        let mut state = self.lock();
        if state.draining {
            return refuse(Close::Restarting, Close::Restarting.reason());
        }
        let revoked = state.revoked.get(&(name.clone(), entrant.address));
        if entrant.minted.is_some_and(|minted| revoked.is_some_and(|&before| minted <= before)) {
            return refuse(
                Close::TokenRefused,
                "the access token is from before this address left the island, or signed in again",
            );
        }
        let known = |minted| state.reentry.is_last_token(name, entrant.address, minted, Instant::now());
        if entrant.expired && !entrant.minted.is_some_and(known) {
            return refuse(Close::TokenRefused, &TokenRefusal::Expired.to_string());
        }
        let new_room = || Arc::new(Room::new(name.clone(), self.node.clone()));
        let room = state.rooms.entry(name.clone()).or_insert_with(new_room).clone();
        // Whoever takes over its own seat needs none.
        if state.users >= self.limits.max_users && !room.contains(entrant.address) {
            state.drop_if_empty(&room);
            return refuse(Close::RoomFull, "the server has no seat left");
        }
        let alias = self.next_alias.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(SendQueue::new(self.limits.queue_limits));
        // Only entries that succeed count: a client may ask for a seat in a full room as often as its
        // handshakes are admitted.
        let entry = (name.clone(), entrant.address);
        let permit = || state.entry_limiter.take(entry, Instant::now()).is_ok();
        match room.join(entrant, alias, &outbox, self.limits.max_room_size, permit) {
            Ok(replaced) => state.users += usize::from(!replaced),
            Err(refused) => {
                state.drop_if_empty(&room);
                return match refused {
                    JoinError::Full => refuse(Close::RoomFull, Close::RoomFull.reason()),
                    JoinError::Superseded => {
                        refuse(Close::TokenRefused, "a newer access token is already in use")
                    }
                    JoinError::RateLimited => {
                        refuse(Close::Full, "this address enters the room too often, come back later")
                    }
                };
            }
        }
        state.reentry.record_entry(name, entrant.address, entrant.minted);
        Ok(Membership { room, alias, address: entrant.address, send_queue: outbox })
    }

    /// Whether a token was the last that admitted this address to this room, and no end of that membership is
    /// known. Then it admits it again, although it has expired.
    pub(crate) fn is_last_token(&self, room: &RoomName, address: Address, minted: Ulid) -> bool {
        self.lock().reentry.is_last_token(room, address, minted, Instant::now())
    }

    /// Gives a place back, if it was not taken over.
    pub(crate) fn leave(&self, membership: &Membership) {
        let mut state = self.lock();
        if membership.room.leave(membership.alias) {
            state.users -= 1;
            state.reentry.record_disconnect(&membership.room.name, membership.address, Instant::now());
            state.drop_if_empty(&membership.room);
        }
    }

    /// From now on, older tokens of this address do not admit it to this room.
    pub(crate) fn revoke(&self, room: &RoomName, address: Address, minted_before: Ulid, now: Instant) {
        let mut state = self.lock();
        state.reentry.remove(room, address, minted_before);
        state.revoked.insert((room.clone(), address), minted_before);
        state.revocation_expiries.push_back((
            now + self.limits.revocation_ttl,
            room.clone(),
            address,
            minted_before,
        ));
        while let Some((due, ..)) = state.revocation_expiries.front()
            && *due <= now
        {
            let Some((_, room, address, minted_before)) = state.revocation_expiries.pop_front() else {
                break;
            };
            let key = (room, address);
            // A later revocation of the same address is forgotten in its own time.
            if state.revoked.get(&key) == Some(&minted_before) {
                state.revoked.remove(&key);
            }
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn stop_accepting(&self) {
        self.lock().draining = true;
    }

    /// The same, and closes everybody's socket.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        for room in state.rooms.values() {
            room.close_all(Close::Restarting);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    pub(crate) fn room(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.lock().rooms.get(name).cloned()
    }

    pub(crate) fn users_count(&self) -> usize {
        self.lock().users
    }

    /// Bytes of messages that queues hold.
    pub(crate) fn slab_bytes(&self) -> usize {
        self.node.slabs.get()
    }

    /// Every room and how many are in it.
    pub(crate) fn sizes(&self) -> Vec<(RoomName, usize)> {
        self.lock().rooms.values().map(|room| (room.name.clone(), room.members_count())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_if_empty(&mut self, room: &Room) {
        if room.is_empty() {
            self.rooms.remove(&room.name);
        }
    }
}

#[cfg(test)]
mod tests;
