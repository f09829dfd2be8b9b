//! The table of peers: session, last assignment and state of each. Positions are in the [spatial
//! index](crate::spatial).

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use hashbrown::HashTable;
use protocol::{Address, SessionId};
use rustc_hash::FxHasher;

use crate::{
    ids::Serial,
    registry::{NO_NODE, NodeIndex},
    slab::{NONE, Slab},
};

/// Marks a peer without a session. No gateway generates this ULID: its time is the year 1970.
const NO_SESSION: SessionId = SessionId::new(0, 0);

/// All known peers, by number. Numbers are reused after a peer is removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers {
    index: HashTable<u32>,
    records: Slab<Peer>,
    sessions: Vec<SessionId>,
    present_count: usize,
}

/// The state of a peer, except its position and session.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    last_seen_ms: u64,
    /// The island of the assignment that its client was sent last, or `Serial::NONE`.
    pub(crate) last_assigned: Serial,
    pub(crate) address: Address,
    pub(crate) height_m: f32,
    /// The island that it was in at the end of the last flush, or `NONE`: the membership that was
    /// reported.
    pub(crate) reported_island: u32,
    /// The node of the assignment that its client was sent last, or `NO_NODE`.
    pub(crate) last_assigned_node: NodeIndex,
    pub(crate) state: PeerState,
    pub(crate) flags: Flags,
}

/// A bit set of temporary conditions of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// A session began and has not sent a heartbeat: it is sent no assignment yet.
    pub(crate) const AWAITING_HEARTBEAT: u8 = 1;
    /// The peer is queued for the emit phase of the flush.
    pub(crate) const REPORT_QUEUED: u8 = 2;
    /// The peer moved since the last flush.
    pub(crate) const MOVED: u8 = 4;
    /// The peer timed out, and so left.
    pub(crate) const TIMED_OUT: u8 = 8;
    /// A newer session took over without resuming the one before, and the tokens of the old session are
    /// still to be revoked.
    pub(crate) const TAKEN_OVER: u8 = 16;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// Sets or clears a flag. Returns whether it was set.
    pub(crate) fn replace(&mut self, flag: u8, set: bool) -> bool {
        let before = self.has(flag);
        self.0 = if set { self.0 | flag } else { self.0 & !flag };
        before
    }
}

/// How the session of a message relates to the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionCheck {
    /// The session has been replaced: the message is ignored.
    Stale,
    /// The session is the current one from now on.
    Current,
    /// The same, and it did not resume the session before.
    TakenOver,
}

/// Where a peer is in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// The number is free.
    Forgotten,
    /// The peer signed in and has not sent a heartbeat.
    Connected,
    /// The peer is in the world.
    Present,
    /// The peer left, and its island is remembered for the return window.
    Departed,
}

impl Peer {
    fn new(address: Address) -> Self {
        Self {
            last_seen_ms: 0,
            last_assigned: Serial::NONE,
            address,
            height_m: 0.0,
            reported_island: NONE,
            last_assigned_node: NO_NODE,
            state: PeerState::Connected,
            flags: Flags::default(),
        }
    }

    pub(crate) fn last_seen(&self) -> Duration {
        Duration::from_millis(self.last_seen_ms)
    }

    pub(crate) fn set_last_seen(&mut self, now: Duration) {
        self.last_seen_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    }

    /// Clears the last assignment: the client is a new one, or will be, and has none.
    pub(crate) fn clear_assignment(&mut self) {
        self.last_assigned = Serial::NONE;
        self.last_assigned_node = NO_NODE;
    }
}

impl Peers {
    pub(crate) fn find(&self, address: Address) -> Option<u32> {
        self.index.find(hash(address), |&peer| self.records[peer].address == address).copied()
    }

    /// The number of the peer with this address, and whether it is new.
    pub(crate) fn intern(&mut self, address: Address) -> (u32, bool) {
        if let Some(peer) = self.find(address) {
            return (peer, false);
        }
        let peer = self.records.insert(Peer::new(address));
        if peer as usize == self.sessions.len() {
            crate::slab::push_growing_by_eighth(&mut self.sessions, NO_SESSION);
        }
        self.sessions[peer as usize] = NO_SESSION;
        let records = &self.records;
        self.index.insert_unique(hash(address), peer, |&peer| hash(records[peer].address));
        (peer, true)
    }

    /// Removes a peer. Its number is reused.
    pub(crate) fn remove(&mut self, peer: u32) {
        self.set_state(peer, PeerState::Forgotten);
        let address = self.records[peer].address;
        if let Ok(entry) = self.index.find_entry(hash(address), |&other| other == peer) {
            entry.remove();
        }
        self.records.remove(peer);
    }

    /// Checks the session of a message. The greatest session of a wallet wins. A session that was not
    /// seen before makes the client of the peer a new one, and takes over unless it resumes the current
    /// one. A message without a session counts as one of the current session.
    pub(crate) fn check_session(
        &mut self,
        peer: u32,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> SessionCheck {
        let Some(session) = session else { return SessionCheck::Current };
        let before = std::mem::replace(&mut self.sessions[peer as usize], session);
        if session < before {
            self.sessions[peer as usize] = before;
            return SessionCheck::Stale;
        }
        if session == before {
            return SessionCheck::Current;
        }
        let record = &mut self.records[peer];
        record.clear_assignment();
        let had_position = matches!(record.state, PeerState::Present | PeerState::Departed);
        if had_position && resumes != Some(before) {
            return SessionCheck::TakenOver;
        }
        SessionCheck::Current
    }

    /// The current session of a peer, if any of its messages had one.
    pub(crate) fn session(&self, peer: u32) -> Option<SessionId> {
        Some(self.sessions[peer as usize]).filter(|&session| session != NO_SESSION)
    }

    pub(crate) fn set_state(&mut self, peer: u32, state: PeerState) {
        let before = std::mem::replace(&mut self.records[peer].state, state);
        self.present_count -= usize::from(before == PeerState::Present);
        self.present_count += usize::from(state == PeerState::Present);
    }

    /// The number of peers in the world.
    pub(crate) fn present_count(&self) -> usize {
        self.present_count
    }

    /// The numbers of all known peers.
    pub(crate) fn known(&self) -> impl Iterator<Item = u32> {
        (0..self.records.slot_count()).filter(|&peer| self.records[peer].state != PeerState::Forgotten)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.records.bytes()
            + self.sessions.capacity() * size_of::<SessionId>()
    }
}

impl std::ops::Index<u32> for Peers {
    type Output = Peer;

    fn index(&self, peer: u32) -> &Peer {
        &self.records[peer]
    }
}

impl std::ops::IndexMut<u32> for Peers {
    fn index_mut(&mut self, peer: u32) -> &mut Peer {
        &mut self.records[peer]
    }
}

fn hash(address: Address) -> u64 {
    let mut hasher = FxHasher::default();
    address.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_record_fits_in_48_bytes() {
        assert!(size_of::<Peer>() <= 48, "{}", size_of::<Peer>());
    }

    #[test]
    fn greatest_session_wins() {
        let mut peers = Peers::default();
        let (peer, new) = peers.intern(Address::new([7; 20]));
        assert!(new);
        let early = SessionId::new(1, 1);
        assert_eq!(peers.check_session(peer, None, None), SessionCheck::Current);
        assert_eq!(peers.check_session(peer, Some(early.next()), None), SessionCheck::Current);
        assert_eq!(peers.check_session(peer, Some(early), None), SessionCheck::Stale);
        assert_eq!(peers.check_session(peer, None, None), SessionCheck::Current);
        assert_eq!(peers.session(peer), Some(early.next()));
    }

    #[test]
    fn newer_session_takes_over_unless_it_resumes() {
        let mut peers = Peers::default();
        let (peer, _) = peers.intern(Address::new([7; 20]));
        let session = |number| Some(SessionId::new(number, 0));
        assert_eq!(peers.check_session(peer, session(1), None), SessionCheck::Current);
        assert_eq!(
            peers.check_session(peer, session(2), None),
            SessionCheck::Current,
            "the peer had no position yet"
        );
        peers.set_state(peer, PeerState::Present);
        assert_eq!(peers.check_session(peer, session(3), session(2)), SessionCheck::Current);
        assert_eq!(
            peers.check_session(peer, session(3), None),
            SessionCheck::Current,
            "the same session again"
        );
        assert_eq!(
            peers.check_session(peer, session(4), session(2)),
            SessionCheck::TakenOver,
            "it resumes an older session"
        );
        assert_eq!(peers.check_session(peer, session(5), None), SessionCheck::TakenOver);
        assert_eq!(
            peers.check_session(peer, None, None),
            SessionCheck::Current,
            "a message without a session"
        );
    }

    #[test]
    fn removed_peer_number_is_reused() {
        let mut peers = Peers::default();
        let (first, _) = peers.intern(Address::new([1; 20]));
        peers.set_state(first, PeerState::Present);
        peers.remove(first);
        assert_eq!((peers.present_count(), peers.find(Address::new([1; 20]))), (0, None));
        assert_eq!(peers.intern(Address::new([2; 20])), (first, true));
        assert_eq!(peers.known().count(), 1);
    }
}
