//! One room: its members, and the batch of messages since the last flush.

use std::{mem, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use protocol::{
    Address, Close, RoomName, Ulid,
    rfc5::{WsKicked, WsPeerJoin, WsPeerLeave, WsPeerUpdate, WsWelcome, ws_packet::Message},
};
use tokio::time::Instant;

use crate::{
    batch::{BatchBuilder, Fanout, FrameKind, SlabBytes, is_newer, packet, packet_frame},
    egress::{Load, NodeEgress, RoomEgress},
    metrics,
    send_queue::{PushOutcome, SendQueue},
    shard_handle::{Flush, ShardHandle},
};

/// One room: its members, and the messages since the last flush.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: RoomName,
    node: NodeResources,
    /// The shard that serves all members of the room.
    pub(crate) shard: Arc<ShardHandle>,
    state: Mutex<State>,
}

/// Resources that the rooms of a node share.
#[derive(Debug, Clone)]
pub(crate) struct NodeResources {
    pub(crate) slabs: SlabBytes,
    pub(crate) egress: Arc<NodeEgress>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    pending: BatchBuilder,
    egress: RoomEgress,
    /// The flush of the room has been reported to its shard, or is about to be.
    flush_scheduled: bool,
}

#[derive(Debug)]
struct Member {
    alias: u32,
    address: Address,
    /// The ULID of the token that the member entered with; `None` if it signed a challenge.
    minted: Option<Ulid>,
    send_queue: Arc<SendQueue>,
    /// Whether its join has been sent. Until then only members that entered after it know it, from their
    /// welcome.
    announced: bool,
}

/// An authenticated peer that enters a room.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) address: Address,
    /// The ULID of its token; `None` if it signed a challenge.
    pub(crate) minted: Option<Ulid>,
    /// Whether the token has expired. The peer then enters only if this token admitted it before.
    pub(crate) expired: bool,
}

/// A batch of this size or more is flushed at once.
const LARGE_BATCH_BYTES: usize = 256 * 1024;

/// The reason why a peer cannot enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// The room has no free seat.
    Full,
    /// The address is in the room with a newer token.
    Superseded,
    /// The address has entered this room too often.
    RateLimited,
}

impl Room {
    pub(crate) fn new(name: RoomName, node: NodeResources, shard: Arc<ShardHandle>) -> Self {
        Self { name, node, shard, state: Mutex::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().members.is_empty()
    }

    pub(crate) fn members_count(&self) -> usize {
        self.state.lock().members.len()
    }

    pub(crate) fn contains(&self, address: Address) -> bool {
        self.state.lock().members.iter().any(|member| member.address == address)
    }

    /// Adds a member. It is sent a welcome, an older session of its address is kicked, and the other members
    /// are sent both changes with the next flush. `permit` is called last, so that it counts only successful
    /// entries. Returns whether an older session was replaced.
    pub(crate) fn join(
        self: &Arc<Self>,
        request: &JoinRequest,
        alias: u32,
        send_queue: &Arc<SendQueue>,
        max_size: usize,
        permit: impl FnOnce() -> bool,
    ) -> Result<bool, JoinError> {
        let mut state = self.state.lock();
        let older = state.members.iter().position(|member| member.address == request.address);
        match older {
            Some(index) if state.members[index].minted > request.minted => return Err(JoinError::Superseded),
            None if state.members.len() >= max_size => return Err(JoinError::Full),
            _ if !permit() => return Err(JoinError::RateLimited),
            _ => {}
        }
        if let Some(index) = older {
            // The older socket receives all messages before its kick, and the newer one all messages after
            // its welcome: a client that reconnects misses none.
            if state.members[index].announced {
                state.queue_batch(&self.node);
            }
            let member = state.members.swap_remove(index);
            kick(&member.send_queue, Close::NewSession);
            state.queue_leave(&member);
        }
        let peer_identities =
            state.members.iter().map(|member| (member.alias, member.address.to_string())).collect();
        let welcome = WsWelcome { alias, peer_identities };
        send_queue.push_single(packet_frame(&packet(Message::WelcomeMessage(welcome))));
        // The new member receives no message from before its welcome.
        state.pending.set_newest_alias(alias);
        let JoinRequest { address, minted, .. } = *request;
        let join = WsPeerJoin { alias, address: address.to_string() };
        state.pending.push(alias, FrameKind::Reliable, &packet(Message::PeerJoinMessage(join)));
        state.members.push(Member {
            alias,
            address,
            minted,
            send_queue: send_queue.clone(),
            announced: false,
        });
        self.schedule_flush(state);
        Ok(older.is_some())
    }

    /// Removes a member, unless a newer session has replaced it, and queues its leave for the others. Returns
    /// whether the member was present.
    pub(crate) fn leave(self: &Arc<Self>, alias: u32) -> bool {
        let mut state = self.state.lock();
        let Some(index) = state.members.iter().position(|member| member.alias == alias) else { return false };
        let member = state.members.swap_remove(index);
        state.queue_leave(&member);
        self.schedule_flush(state);
        true
    }

    /// Queues a message of a member for all others. A message of a member that has left or was replaced is
    /// dropped.
    pub(crate) fn broadcast(self: &Arc<Self>, alias: u32, body: Bytes, unreliable: bool) {
        let update = WsPeerUpdate { from_alias: alias, body, unreliable };
        let mut state = self.state.lock();
        if !state.members.iter().any(|member| member.alias == alias) {
            return;
        }
        let kind = if unreliable { FrameKind::Unreliable } else { FrameKind::Reliable };
        state.pending.push(alias, kind, &packet(Message::PeerUpdateMessage(update)));
        if state.pending.bytes() >= LARGE_BATCH_BYTES {
            state.queue_batch(&self.node);
        }
        self.schedule_flush(state);
    }

    /// Closes the socket of an address, unless it entered with a token minted after `minted_before` or with a
    /// signature. Returns whether it was closed.
    pub(crate) fn evict(&self, address: Address, minted_before: Ulid) -> bool {
        let state = self.state.lock();
        let evicted = state.members.iter().find(|member| {
            member.address == address && member.minted.is_some_and(|minted| minted <= minted_before)
        });
        if let Some(member) = evicted {
            member.send_queue.close(Close::Moved, Close::Moved.reason());
        }
        evicted.is_some()
    }

    /// Closes all sockets with one close code.
    pub(crate) fn close_all(&self, close: Close) {
        for member in &self.state.lock().members {
            member.send_queue.close(close, close.reason());
        }
    }

    /// Schedules the flush of the room, unless it is scheduled already. Releases the lock first, so that the
    /// shard does not wait for it.
    fn schedule_flush(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let was_scheduled = mem::replace(&mut state.flush_scheduled, true);
        drop(state);
        if !was_scheduled {
            self.shard.schedule_flush(self.clone());
        }
    }
}

impl Flush for Room {
    fn flush(&self) {
        let mut state = self.state.lock();
        state.flush_scheduled = false;
        state.queue_batch(&self.node);
    }
}

impl State {
    /// Adds the leave of a removed member to the batch.
    ///
    /// If its join has not been sent and it sent no reliable message, neither join nor leave is sent to the
    /// older members, so they never learn of it. Newer members know it from their welcome and are sent the
    /// leave.
    fn queue_leave(&mut self, member: &Member) {
        let alias = member.alias;
        let mut kind = FrameKind::Reliable;
        // The one reliable frame is its join.
        if !member.announced && self.pending.reliable_count(alias) == 1 {
            self.pending.remove(alias);
            if !self.members.iter().any(|other| is_newer(other.alias, alias)) {
                return;
            }
            kind = FrameKind::NewerOnly;
        }
        self.pending.push(alias, kind, &packet(Message::PeerLeaveMessage(WsPeerLeave { alias })));
    }

    fn queue_batch(&mut self, node: &NodeResources) {
        self.drop_above_budget(&node.egress);
        let Some(batch) = self.pending.take(&node.slabs) else { return };
        let fanout = Fanout::new(batch, &node.slabs);
        let mut cut = 0;
        for member in &mut self.members {
            member.announced = true;
            match member.send_queue.push_batch(&fanout) {
                PushOutcome::Whole => {}
                PushOutcome::ReliableOnly => cut += 1,
                PushOutcome::Closed => {
                    tracing::debug!(peer = %member.address, "the member is closing: the batch was not queued")
                }
            }
        }
        if cut > 0 {
            metrics::batches_cut().increment(cut);
        }
    }

    /// Charges the batch to the egress budgets, and drops its unreliable frames if a budget is spent.
    fn drop_above_budget(&mut self, egress: &NodeEgress) {
        if egress.is_unlimited() {
            return;
        }
        // Each frame is sent to all members but its sender.
        let recipients = self.members.len().saturating_sub(1) as u64;
        let reliable = self.pending.reliable_bytes() as u64;
        let unreliable = self.pending.bytes() as u64 - reliable;
        let load = Load { reliable: reliable * recipients, unreliable: unreliable * recipients };
        if let Some(scope) = egress.charge(&mut self.egress, load, Instant::now())
            && unreliable > 0
        {
            let dropped = self.pending.remove_unreliable();
            metrics::egress_dropped(scope.label()).increment(dropped as u64);
        }
    }
}

/// Kicks a member: sends the `WsKicked` packet, which clients of RFC-5 know, and closes the socket.
pub(crate) fn kick(send_queue: &SendQueue, close: Close) {
    metrics::kicks().increment(1);
    send_queue.push_single(kicked_frame(close.reason()));
    send_queue.close(close, close.reason());
}

/// A frame with the `WsKicked` packet.
pub(crate) fn kicked_frame(reason: &str) -> Bytes {
    packet_frame(&packet(Message::PeerKicked(WsKicked { reason: reason.to_owned() })))
}

#[cfg(test)]
mod tests;
