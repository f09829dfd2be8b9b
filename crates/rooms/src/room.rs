use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use protocol::{
    Address, Close, IslandId, Ulid,
    rfc5::{WsKicked, WsPeerJoin, WsPeerLeave, WsPeerUpdate, WsWelcome, ws_packet::Message},
};

use crate::{
    batch::{BatchBuilder, packet, packet_frame},
    outbox::{Outbox, Queued},
};

/// One room: who is in it, and what they said since the last tick.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: IslandId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    pending: BatchBuilder,
    /// Waits for a tick.
    dirty: bool,
}

#[derive(Debug)]
struct Member {
    alias: u32,
    address: Address,
    /// Of the token that it entered with, if it did with one.
    minted: Option<Ulid>,
    outbox: Arc<Outbox>,
}

/// Somebody about to enter.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    pub(crate) address: Address,
    pub(crate) minted: Option<Ulid>,
}

/// From this size on a batch does not wait for the tick.
const LARGE_BATCH_BYTES: usize = 256 * 1024;

/// Why somebody does not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No seat.
    Full,
    /// The address is in the room with a newer token.
    Superseded,
}

impl Room {
    pub(crate) fn new(name: IslandId) -> Self {
        Self { name, state: Mutex::default() }
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
    /// hear of both. Gives whether somebody was replaced.
    pub(crate) fn join(
        &self,
        entrant: &Entrant,
        alias: u32,
        outbox: &Arc<Outbox>,
        max_size: usize,
    ) -> Result<bool, Refused> {
        let mut state = self.lock();
        let older = state.members.iter().position(|member| member.address == entrant.address);
        match older {
            Some(index) if state.members[index].minted > entrant.minted => return Err(Refused::Superseded),
            None if state.members.len() >= max_size => return Err(Refused::Full),
            _ => {}
        }
        if let Some(index) = older {
            let member = state.members.swap_remove(index);
            kick(&member.outbox, Close::NewSession);
            state.leave(member.alias);
        }
        // The newcomer hears nothing from before its welcome.
        state.flush();
        let peer_identities =
            state.members.iter().map(|member| (member.alias, member.address.to_string())).collect();
        let welcome = WsWelcome { alias, peer_identities };
        outbox.push_own(packet_frame(&packet(Message::WelcomeMessage(welcome))));
        let Entrant { address, minted } = *entrant;
        let join = WsPeerJoin { alias, address: address.to_string() };
        state.pending.push(alias, true, &packet(Message::PeerJoinMessage(join)));
        state.members.push(Member { alias, address, minted, outbox: outbox.clone() });
        Ok(older.is_some())
    }

    /// Takes a member out, if it has not been replaced, and tells the others. Gives whether it was
    /// there.
    pub(crate) fn leave(&self, alias: u32) -> bool {
        let mut state = self.lock();
        let Some(index) = state.members.iter().position(|member| member.alias == alias) else { return false };
        state.members.swap_remove(index);
        state.leave(alias);
        true
    }

    /// Queues what a member said for all others. Whoever has left, or was replaced, says nothing.
    pub(crate) fn say(&self, alias: u32, body: Bytes, unreliable: bool) {
        let update = WsPeerUpdate { from_alias: alias, body, unreliable };
        let mut state = self.lock();
        if !state.members.iter().any(|member| member.alias == alias) {
            return;
        }
        state.pending.push(alias, !unreliable, &packet(Message::PeerUpdateMessage(update)));
        if state.pending.bytes() >= LARGE_BATCH_BYTES {
            state.flush();
        }
    }

    /// Closes the socket of an address, unless it entered with a token minted later.
    pub(crate) fn end(&self, address: Address, minted_before: Ulid) -> bool {
        let state = self.lock();
        let ended = state.members.iter().find(|member| {
            member.address == address && member.minted.is_some_and(|minted| minted <= minted_before)
        });
        if let Some(member) = ended {
            member.outbox.close(Close::Moved, Close::Moved.reason());
        }
        ended.is_some()
    }

    /// Closes every socket.
    pub(crate) fn close(&self, close: Close) {
        for member in &self.lock().members {
            member.outbox.close(close, close.reason());
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
        state.flush();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave(&mut self, alias: u32) {
        self.pending.push(alias, true, &packet(Message::PeerLeaveMessage(WsPeerLeave { alias })));
    }

    fn flush(&mut self) {
        let Some(batch) = self.pending.take().map(Arc::new) else { return };
        for member in &self.members {
            match member.outbox.push_batch(&batch) {
                Queued::Whole => {}
                Queued::Cut => metrics::counter!("atoll_rooms_batches_cut_total").increment(1),
                Queued::Closed => tracing::debug!(peer = %member.address, "closing, nothing more is queued"),
            }
        }
    }
}

/// Tells a member that it must go, in a packet that clients of the field know, and closes it.
pub(crate) fn kick(outbox: &Outbox, close: Close) {
    metrics::counter!("dcl_ws_rooms_kicks_total").increment(1);
    let kicked = WsKicked { reason: close.reason().to_owned() };
    outbox.push_own(packet_frame(&packet(Message::PeerKicked(kicked))));
    outbox.close(close, close.reason());
}
