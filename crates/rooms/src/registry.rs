//! The rooms of a node: entry and its limits, and the revocation of tokens.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use admission::{Rate, RateLimiter};
use parking_lot::Mutex;
use protocol::{Address, Close, RoomName, Ulid};
use tokio::time::Instant;
use transports::ws_room::TokenRefusal;

use crate::{
    batch::SlabBytes,
    egress::{EgressLimits, NodeEgress},
    reentry::ReentryTokens,
    room::{JoinError, JoinRequest, NodeResources, Room},
    send_queue::{QueueLimits, SendQueue},
    shard_handle::{MemberWaker, ShardHandle},
};

/// All rooms of a node, the revoked tokens, and the limits of the node.
#[derive(Debug)]
pub(crate) struct Registry {
    limits: NodeLimits,
    /// The next alias, shared by the nodes of a process.
    next_alias: Arc<AtomicU32>,
    node: NodeResources,
    shards: Vec<Arc<ShardHandle>>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeLimits {
    pub(crate) max_room_size: usize,
    pub(crate) max_users: usize,
    pub(crate) queue_limits: QueueLimits,
    /// How long a revocation is kept: as long as a token is valid.
    pub(crate) revocation_ttl: Duration,
    /// The rate at which one address may enter one room.
    pub(crate) entry_rate: Rate,
    pub(crate) egress: EgressLimits,
}

/// Pairs of room and address with counted entries. When the table is full, pairs with a full bucket are
/// removed: they may enter as often as a new pair.
const MAX_ENTRY_COUNTS: usize = 65_536;
/// Disconnected tokens that are kept for re-entry, for each seat of the node.
const DISCONNECTED_PER_SEAT: usize = 2;

#[derive(Debug)]
struct State {
    rooms: HashMap<RoomName, Arc<Room>>,
    users: usize,
    entry_limiter: RateLimiter<(RoomName, Address)>,
    /// Tokens minted at or before this ULID no longer admit this address to this room.
    revoked: HashMap<(RoomName, Address), Ulid>,
    revocation_expiries: VecDeque<(Instant, RoomName, Address, Ulid)>,
    reentry: ReentryTokens,
    draining: bool,
}

/// A membership of a room with an open socket.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: Arc<Room>,
    pub(crate) alias: u32,
    pub(crate) address: Address,
    pub(crate) send_queue: Arc<SendQueue>,
    pub(crate) waker: Arc<MemberWaker>,
}

impl Registry {
    /// A registry without rooms. `shards` serve their members; there must be at least one.
    pub(crate) fn new(limits: NodeLimits, next_alias: Arc<AtomicU32>, shards: Vec<Arc<ShardHandle>>) -> Self {
        let egress = Arc::new(NodeEgress::new(limits.egress));
        let node = NodeResources { slabs: SlabBytes::default(), egress };
        let state = State {
            rooms: HashMap::new(),
            users: 0,
            entry_limiter: RateLimiter::new(limits.entry_rate, MAX_ENTRY_COUNTS),
            revoked: HashMap::new(),
            revocation_expiries: VecDeque::new(),
            reentry: ReentryTokens::new(limits.max_users.saturating_mul(DISCONNECTED_PER_SEAT)),
            draining: false,
        };
        Self { limits, next_alias, node, shards, state: Mutex::new(state) }
    }

    /// Adds a peer to a room, which is created if it does not exist. All limits are checked and applied under
    /// one lock.
    ///
    /// # Errors
    ///
    /// The close code and the reason for the client.
    pub(crate) fn join(&self, name: &RoomName, request: &JoinRequest) -> Result<Membership, (Close, String)> {
        let reject = |close: Close, reason: &str| Err((close, reason.to_owned()));
        let mut state = self.state.lock();
        if state.draining {
            return reject(Close::Restarting, Close::Restarting.reason());
        }
        let revoked = state.revoked.get(&(name.clone(), request.address));
        if request.minted.is_some_and(|minted| revoked.is_some_and(|&before| minted <= before)) {
            return reject(
                Close::TokenRefused,
                "the access token is from before this address left the island, or signed in again",
            );
        }
        let is_last = |minted| state.reentry.is_last_token(name, request.address, minted, Instant::now());
        if request.expired && !request.minted.is_some_and(is_last) {
            return reject(Close::TokenRefused, &TokenRefusal::Expired.to_string());
        }
        let new_room = || Arc::new(Room::new(name.clone(), self.node.clone(), self.emptiest_shard()));
        let room = state.rooms.entry(name.clone()).or_insert_with(new_room).clone();
        // A session that replaces an older one of the same address needs no further seat.
        if state.users >= self.limits.max_users && !room.contains(request.address) {
            state.drop_if_empty(&room);
            return reject(Close::RoomFull, "the server has no seat left");
        }
        let alias = self.next_alias.fetch_add(1, Ordering::Relaxed);
        let waker = MemberWaker::new(alias, room.shard.clone());
        let send_queue = Arc::new(SendQueue::new(self.limits.queue_limits, waker.clone().into()));
        // Only successful entries count against the rate: a client may retry a full room as often as its
        // handshakes are admitted.
        let entry = (name.clone(), request.address);
        let permit = || state.entry_limiter.take(entry, Instant::now()).is_ok();
        match room.join(request, alias, &send_queue, self.limits.max_room_size, permit) {
            Ok(replaced) => {
                let added = usize::from(!replaced);
                state.users += added;
                room.shard.members.fetch_add(added, Ordering::Relaxed);
            }
            Err(error) => {
                state.drop_if_empty(&room);
                return match error {
                    JoinError::Full => reject(Close::RoomFull, Close::RoomFull.reason()),
                    JoinError::Superseded => {
                        reject(Close::TokenRefused, "a newer access token is already in use")
                    }
                    JoinError::RateLimited => {
                        reject(Close::Full, "this address enters the room too often, come back later")
                    }
                };
            }
        }
        state.reentry.record_entry(name, request.address, request.minted);
        Ok(Membership { room, alias, address: request.address, send_queue, waker })
    }

    /// The shard with the fewest members.
    fn emptiest_shard(&self) -> Arc<ShardHandle> {
        let members = |shard: &&Arc<ShardHandle>| shard.members.load(Ordering::Relaxed);
        self.shards.iter().min_by_key(members).cloned().unwrap_or_default()
    }

    /// The shards of the node.
    pub(crate) fn shards(&self) -> &[Arc<ShardHandle>] {
        &self.shards
    }

    /// Whether a token was the last one that admitted this address to this room, and the membership is not
    /// known to have ended. Such a token admits the address again, although it has expired.
    pub(crate) fn is_last_token(&self, room: &RoomName, address: Address, minted: Ulid) -> bool {
        self.state.lock().reentry.is_last_token(room, address, minted, Instant::now())
    }

    /// Removes a membership and frees its seat, unless a newer session has replaced it.
    pub(crate) fn leave(&self, membership: &Membership) {
        let mut state = self.state.lock();
        if membership.room.leave(membership.alias) {
            state.users -= 1;
            membership.room.shard.members.fetch_sub(1, Ordering::Relaxed);
            state.reentry.record_disconnect(&membership.room.name, membership.address, Instant::now());
            state.drop_if_empty(&membership.room);
        }
    }

    /// Revokes the tokens of this address for this room that were minted at or before `minted_before`.
    pub(crate) fn revoke(&self, room: &RoomName, address: Address, minted_before: Ulid, now: Instant) {
        let mut state = self.state.lock();
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
            // A later revocation of the same address expires by its own entry.
            if state.revoked.get(&key) == Some(&minted_before) {
                state.revoked.remove(&key);
            }
        }
    }

    /// Rejects new members. Existing ones stay.
    pub(crate) fn stop_accepting(&self) {
        self.state.lock().draining = true;
    }

    /// Rejects new members and closes all sockets.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        for room in state.rooms.values() {
            room.close_all(Close::Restarting);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining
    }

    pub(crate) fn room(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.state.lock().rooms.get(name).cloned()
    }

    pub(crate) fn users_count(&self) -> usize {
        self.state.lock().users
    }

    /// Bytes of message slabs that are still referenced, by queues or by writes in progress.
    pub(crate) fn slab_bytes(&self) -> usize {
        self.node.slabs.get()
    }

    /// The number of members of each room.
    pub(crate) fn sizes(&self) -> Vec<(RoomName, usize)> {
        self.state.lock().rooms.values().map(|room| (room.name.clone(), room.members_count())).collect()
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
