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

/// Stands for no session. No gateway mints it: it would have begun in 1970.
const NO_SESSION: SessionId = SessionId::new(0, 0);

/// Everybody that the engine knows, by number. Where they stand is in the ground.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers {
    index: HashTable<u32>,
    records: Slab<Peer>,
    sessions: Vec<SessionId>,
    present_count: usize,
}

/// What is known of a peer, besides where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    last_seen_ms: u64,
    /// The island that its client was last told of, if any.
    pub(crate) last_assigned: Serial,
    pub(crate) address: Address,
    pub(crate) height_m: f32,
    /// The island that it was in at the end of the last flush, or `NONE`.
    pub(crate) reported_island: u32,
    /// The node that its client was last told of.
    pub(crate) last_assigned_node: NodeIndex,
    pub(crate) state: PeerState,
    pub(crate) flags: Flags,
}

/// What is true of a peer for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// A session began and has not said where it is: nothing is told to it yet.
    pub(crate) const AWAITING_HEARTBEAT: u8 = 1;
    /// It waits to be looked at when the flush announces.
    pub(crate) const REPORT_QUEUED: u8 = 2;
    /// It has moved since the last flush.
    pub(crate) const MOVED: u8 = 4;
    /// It was not heard for too long, and so left.
    pub(crate) const TIMED_OUT: u8 = 8;
    /// A newer session took over without resuming the one before, and the tokens of that one are
    /// still to be revoked.
    pub(crate) const TAKEN_OVER: u8 = 16;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// Sets a flag or takes it away. Returns whether it was set.
    pub(crate) fn replace(&mut self, flag: u8, set: bool) -> bool {
        let before = self.has(flag);
        self.0 = if set { self.0 | flag } else { self.0 & !flag };
        before
    }
}

/// How the session of a message relates to the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionCheck {
    /// It has been replaced: the message changes nothing.
    Stale,
    /// It is the present session from now on.
    Current,
    /// The same, and it did not resume the session before.
    TakenOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// The place is vacant.
    Forgotten,
    /// It signed in and has not said where it is.
    Connected,
    /// It is in the world.
    Present,
    /// It left, and its place is remembered for a while.
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

    /// Its client is a new one, or will be: it knows of no island.
    pub(crate) fn clear_assignment(&mut self) {
        self.last_assigned = Serial::NONE;
        self.last_assigned_node = NO_NODE;
    }
}

impl Peers {
    pub(crate) fn find(&self, address: Address) -> Option<u32> {
        self.index.find(hash(address), |&peer| self.records[peer].address == address).copied()
    }

    /// The number of this address, which is a new one if it is not known.
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

    /// Forgets a peer. Its number goes to somebody else.
    pub(crate) fn remove(&mut self, peer: u32) {
        self.set_state(peer, PeerState::Forgotten);
        let address = self.records[peer].address;
        if let Ok(entry) = self.index.find_entry(hash(address), |&other| other == peer) {
            entry.remove();
        }
        self.records.remove(peer);
    }

    /// Whether a message of this session counts. The greatest session of a wallet wins; one that
    /// was not seen before makes the peer's client a new one, and takes over unless it resumes the
    /// present one.
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

    pub(crate) fn session(&self, peer: u32) -> Option<SessionId> {
        Some(self.sessions[peer as usize]).filter(|&session| session != NO_SESSION)
    }

    pub(crate) fn set_state(&mut self, peer: u32, state: PeerState) {
        let before = std::mem::replace(&mut self.records[peer].state, state);
        self.present_count -= usize::from(before == PeerState::Present);
        self.present_count += usize::from(state == PeerState::Present);
    }

    /// How many are in the world.
    pub(crate) fn present_count(&self) -> usize {
        self.present_count
    }

    /// The numbers of all that are known.
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
            "it was in no island yet"
        );
        peers.set_state(peer, PeerState::Present);
        assert_eq!(peers.check_session(peer, session(3), session(2)), SessionCheck::Current);
        assert_eq!(
            peers.check_session(peer, session(3), None),
            SessionCheck::Current,
            "the same, published again"
        );
        assert_eq!(
            peers.check_session(peer, session(4), session(2)),
            SessionCheck::TakenOver,
            "of an older one"
        );
        assert_eq!(peers.check_session(peer, session(5), None), SessionCheck::TakenOver);
        assert_eq!(
            peers.check_session(peer, None, None),
            SessionCheck::Current,
            "a foreign service names no session"
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
