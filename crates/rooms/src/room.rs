use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use protocol::{
    Address, Close, RoomName, Ulid,
    rfc5::{WsKicked, WsPeerJoin, WsPeerLeave, WsPeerUpdate, WsWelcome, ws_packet::Message},
};
use tokio::time::Instant;

use crate::{
    batch::{BatchBuilder, Fanout, FrameKind, SlabBytes, is_newer, packet, packet_frame},
    egress::{Load, NodeEgress, RoomEgress},
    send_queue::{PushOutcome, SendQueue},
};

/// One room: who is in it, and what they said since the last tick.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: RoomName,
    node: NodeResources,
    state: Mutex<State>,
}

/// What the rooms of a node share.
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
    /// Waits for a tick.
    dirty: bool,
}

#[derive(Debug)]
struct Member {
    alias: u32,
    address: Address,
    /// Of the token that it entered with, if it did with one.
    minted: Option<Ulid>,
    send_queue: Arc<SendQueue>,
    /// Its join has been sent. Before that, only members that entered after it know of it.
    announced: bool,
}

/// Somebody about to enter.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) address: Address,
    pub(crate) minted: Option<Ulid>,
    /// Its token has expired: it enters only where that token admitted it before.
    pub(crate) expired: bool,
}

/// From this size on a batch does not wait for the tick.
const LARGE_BATCH_BYTES: usize = 256 * 1024;

/// Why somebody does not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// No seat.
    Full,
    /// The address is in the room with a newer token.
    Superseded,
    /// The address has entered this room too often.
    RateLimited,
}

impl Room {
    pub(crate) fn new(name: RoomName, node: NodeResources) -> Self {
        Self { name, node, state: Mutex::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().members.is_empty()
    }

    pub(crate) fn members_count(&self) -> usize {
        self.lock().members.len()
    }

    pub(crate) fn contains(&self, address: Address) -> bool {
        self.lock().members.iter().any(|member| member.address == address)
    }

    /// Lets somebody in: it is welcomed, an older session of its address is kicked, and the others
    /// hear of both at the next flush. `permit` is asked last. Gives whether somebody was replaced.
    pub(crate) fn join(
        &self,
        entrant: &JoinRequest,
        alias: u32,
        outbox: &Arc<SendQueue>,
        max_size: usize,
        permit: impl FnOnce() -> bool,
    ) -> Result<bool, JoinError> {
        let mut state = self.lock();
        let older = state.members.iter().position(|member| member.address == entrant.address);
        match older {
            Some(index) if state.members[index].minted > entrant.minted => return Err(JoinError::Superseded),
            None if state.members.len() >= max_size => return Err(JoinError::Full),
            _ if !permit() => return Err(JoinError::RateLimited),
            _ => {}
        }
        if let Some(index) = older {
            // The older socket receives all that precedes its kick, and the newer all that follows its
            // welcome: a client that enters anew misses nothing.
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
        outbox.push_single(packet_frame(&packet(Message::WelcomeMessage(welcome))));
        // The newcomer hears nothing from before its welcome.
        state.pending.set_newest_alias(alias);
        let JoinRequest { address, minted, .. } = *entrant;
        let join = WsPeerJoin { alias, address: address.to_string() };
        state.pending.push(alias, FrameKind::Reliable, &packet(Message::PeerJoinMessage(join)));
        state.members.push(Member { alias, address, minted, send_queue: outbox.clone(), announced: false });
        Ok(older.is_some())
    }

    /// Takes a member out, if it has not been replaced, and tells the others. Gives whether it was
    /// there.
    pub(crate) fn leave(&self, alias: u32) -> bool {
        let mut state = self.lock();
        let Some(index) = state.members.iter().position(|member| member.alias == alias) else { return false };
        let member = state.members.swap_remove(index);
        state.queue_leave(&member);
        true
    }

    /// Queues what a member said for all others. Whoever has left, or was replaced, says nothing.
    pub(crate) fn broadcast(&self, alias: u32, body: Bytes, unreliable: bool) {
        let update = WsPeerUpdate { from_alias: alias, body, unreliable };
        let mut state = self.lock();
        if !state.members.iter().any(|member| member.alias == alias) {
            return;
        }
        let kind = if unreliable { FrameKind::Unreliable } else { FrameKind::Reliable };
        state.pending.push(alias, kind, &packet(Message::PeerUpdateMessage(update)));
        if state.pending.bytes() >= LARGE_BATCH_BYTES {
            state.queue_batch(&self.node);
        }
    }

    /// Closes the socket of an address, unless it entered with a token minted later.
    pub(crate) fn evict(&self, address: Address, minted_before: Ulid) -> bool {
        let state = self.lock();
        let ended = state.members.iter().find(|member| {
            member.address == address && member.minted.is_some_and(|minted| minted <= minted_before)
        });
        if let Some(member) = ended {
            member.send_queue.close(Close::Moved, Close::Moved.reason());
        }
        ended.is_some()
    }

    /// Closes every socket.
    pub(crate) fn close_all(&self, close: Close) {
        for member in &self.lock().members {
            member.send_queue.close(close, close.reason());
        }
    }

    /// Marks the room as waiting for a tick; gives whether it was not.
    pub(crate) fn mark_dirty(&self) -> bool {
        !std::mem::replace(&mut self.lock().dirty, true)
    }

    /// Sends on what was collected.
    pub(crate) fn flush(&self) {
        let mut state = self.lock();
        state.dirty = false;
        state.queue_batch(&self.node);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Queues the leave of a member that has been taken out.
    ///
    /// If its join has not been sent and it said nothing reliable, neither join nor leave is sent:
    /// the older members never hear of it. Newer ones know it from their welcome.
    fn queue_leave(&mut self, member: &Member) {
        let alias = member.alias;
        let mut kind = FrameKind::Reliable;
        // One reliable frame: its join.
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
        for member in &mut self.members {
            member.announced = true;
            match member.send_queue.push_batch(&fanout) {
                PushOutcome::Whole => {}
                PushOutcome::ReliableOnly => metrics::counter!("atoll_rooms_batches_cut_total").increment(1),
                PushOutcome::Closed => {
                    tracing::debug!(peer = %member.address, "closing, nothing more is queued")
                }
            }
        }
    }

    /// Charges what is about to be sent, and drops the unreliable frames if a budget is spent.
    fn drop_above_budget(&mut self, egress: &NodeEgress) {
        if egress.is_unlimited() {
            return;
        }
        // A frame is for all members but its sender.
        let recipients = self.members.len().saturating_sub(1) as u64;
        let reliable = self.pending.reliable_bytes() as u64;
        let unreliable = self.pending.bytes() as u64 - reliable;
        let load = Load { reliable: reliable * recipients, unreliable: unreliable * recipients };
        if let Some(scope) = egress.charge(&mut self.egress, load, Instant::now())
            && unreliable > 0
        {
            let dropped = self.pending.remove_unreliable();
            let counter = metrics::counter!("atoll_rooms_egress_dropped_total", "scope" => scope.label());
            counter.increment(dropped as u64);
        }
    }
}

/// Tells a member that it must go, in a packet that clients of the field know, and closes it.
pub(crate) fn kick(outbox: &SendQueue, close: Close) {
    metrics::counter!("dcl_ws_rooms_kicks_total").increment(1);
    let kicked = WsKicked { reason: close.reason().to_owned() };
    outbox.push_single(packet_frame(&packet(Message::PeerKicked(kicked))));
    outbox.close(close, close.reason());
}

#[cfg(test)]
mod tests;
