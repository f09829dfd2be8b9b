//! The table of peers: session, last assignment and state of each. Positions are in the [spatial
//! index](super::spatial).

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use hashbrown::HashTable;
use protocol::{Address, SessionId};
use rustc_hash::{FxHashMap, FxHasher};

use super::{assignment_retry::AssignmentRetry, reconnect_grace::ReconnectGrace};
use crate::{
    ids::{IslandIndex, NodeIndex, PeerIndex},
    index_vec::IndexVec,
    island_ids::Serial,
    slab::Slab,
};

/// Marks a peer without a session. No gateway generates this ULID: its time is the year 1970.
const NO_SESSION: SessionId = SessionId::new(0, 0);

/// All known peers. Indexes are reused after a peer is removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers {
    by_address: HashTable<PeerIndex>,
    records: Slab<PeerIndex, Peer>,
    /// The current session of each peer, or [`NO_SESSION`].
    sessions: IndexVec<PeerIndex, SessionId>,
    present_count: usize,
    /// The transports that clients announced. A peer without an entry has the
    /// [`assumed_transports`](Self::assumed_transports).
    announced_transports: FxHashMap<PeerIndex, Vec<String>>,
    /// The transports of clients that announce none: see
    /// [`Settings::assumed_transports`](crate::settings::Settings::assumed_transports).
    assumed_transports: Vec<String>,
    /// The island that a peer prefers.
    pub(crate) preferred_island: FxHashMap<PeerIndex, Serial>,
    /// When a replaced session last sent a heartbeat. Only explanations read it.
    pub(crate) stale_heartbeats: FxHashMap<PeerIndex, Duration>,
    /// The clients that report another assignment than their last one.
    pub(crate) assignment_retry: AssignmentRetry,
    pub(crate) reconnect_grace: ReconnectGrace,
    /// No peer can time out before this time.
    pub(crate) next_silence_check: Duration,
}

/// The state of a peer, except its position and session.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    last_seen_ms: u64,
    /// The island of the assignment that its client was sent last.
    pub(crate) last_assigned: Option<Serial>,
    pub(crate) address: Address,
    pub(crate) height_m: f32,
    /// The island that it was in at the end of the last flush: the membership that was reported.
    pub(crate) reported_island: Option<IslandIndex>,
    /// The node of the assignment that its client was sent last.
    pub(crate) last_assigned_node: Option<NodeIndex>,
    pub(crate) state: PeerState,
    pub(crate) flags: Flags,
}

const _: () = assert!(size_of::<Peer>() <= 48);

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
    /// The index is free.
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
            last_assigned: None,
            address,
            height_m: 0.0,
            reported_island: None,
            last_assigned_node: None,
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
        self.last_assigned = None;
        self.last_assigned_node = None;
    }
}

impl Peers {
    pub(crate) fn new(assumed_transports: Vec<String>) -> Self {
        Self { assumed_transports, ..Self::default() }
    }

    pub(crate) fn find(&self, address: Address) -> Option<PeerIndex> {
        self.by_address.find(hash(address), |&peer| self.records[peer].address == address).copied()
    }

    /// The index of the peer with this address, and whether it is new.
    pub(crate) fn intern(&mut self, address: Address) -> (PeerIndex, bool) {
        if let Some(peer) = self.find(address) {
            return (peer, false);
        }
        let peer = self.records.insert(Peer::new(address));
        self.sessions.set_or_push(peer, NO_SESSION);
        let records = &self.records;
        self.by_address.insert_unique(hash(address), peer, |&peer| hash(records[peer].address));
        (peer, true)
    }

    /// Removes a peer. Its index is reused.
    pub(crate) fn remove(&mut self, peer: PeerIndex) {
        self.set_state(peer, PeerState::Forgotten);
        let address = self.records[peer].address;
        if let Ok(entry) = self.by_address.find_entry(hash(address), |&other| other == peer) {
            entry.remove();
        }
        self.announced_transports.remove(&peer);
        self.preferred_island.remove(&peer);
        self.stale_heartbeats.remove(&peer);
        self.assignment_retry.remove(peer);
        self.records.remove(peer);
    }

    /// Sets the transports that the client of a peer announced, if it did.
    pub(crate) fn set_transports(&mut self, peer: PeerIndex, announced: Option<Vec<String>>) {
        match announced {
            Some(transports) => self.announced_transports.insert(peer, transports),
            None => self.announced_transports.remove(&peer),
        };
    }

    /// The transports that the client of a peer announced, or the assumed ones.
    pub(crate) fn transports(&self, peer: PeerIndex) -> &[String] {
        self.announced_transports.get(&peer).unwrap_or(&self.assumed_transports)
    }

    /// The lowest address of some peers, which decides between groups of equal size.
    pub(crate) fn lowest_address(&self, peers: impl Iterator<Item = PeerIndex>) -> Option<Address> {
        peers.map(|peer| self.records[peer].address).min()
    }

    /// Checks the session of a message. The greatest session of a wallet wins. A session that was not
    /// seen before makes the client of the peer a new one, and takes over unless it resumes the current
    /// one. A message without a session counts as one of the current session.
    pub(crate) fn check_session(
        &mut self,
        peer: PeerIndex,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> SessionCheck {
        let Some(session) = session else { return SessionCheck::Current };
        let before = std::mem::replace(&mut self.sessions[peer], session);
        if session < before {
            self.sessions[peer] = before;
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

    /// Whether this session of a peer or a later one is known; without a session, whether the peer is. A
    /// peer that was removed is not known.
    pub(crate) fn knows_session(&self, address: Address, session: Option<SessionId>) -> bool {
        let Some(peer) = self.find(address) else { return false };
        session.is_none_or(|session| Some(session) <= self.session(peer))
    }

    /// The current session of a peer, if any of its messages had one.
    pub(crate) fn session(&self, peer: PeerIndex) -> Option<SessionId> {
        Some(self.sessions[peer]).filter(|&session| session != NO_SESSION)
    }

    pub(crate) fn set_state(&mut self, peer: PeerIndex, state: PeerState) {
        let before = std::mem::replace(&mut self.records[peer].state, state);
        self.present_count -= usize::from(before == PeerState::Present);
        self.present_count += usize::from(state == PeerState::Present);
    }

    /// The number of peers in the world.
    pub(crate) fn present_count(&self) -> usize {
        self.present_count
    }

    /// All known peers.
    pub(crate) fn known(&self) -> impl Iterator<Item = PeerIndex> {
        self.records.slots().filter(|&peer| self.records[peer].state != PeerState::Forgotten)
    }

    /// All peers in the world.
    pub(crate) fn present(&self) -> impl Iterator<Item = PeerIndex> {
        self.records.slots().filter(|&peer| self.records[peer].state == PeerState::Present)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.by_address.allocation_size()
            + self.records.bytes()
            + self.sessions.bytes()
            + self.reconnect_grace.bytes()
    }
}

impl std::ops::Index<PeerIndex> for Peers {
    type Output = Peer;

    fn index(&self, peer: PeerIndex) -> &Peer {
        &self.records[peer]
    }
}

impl std::ops::IndexMut<PeerIndex> for Peers {
    fn index_mut(&mut self, peer: PeerIndex) -> &mut Peer {
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
    fn removed_peer_index_is_reused() {
        let mut peers = Peers::default();
        let (first, _) = peers.intern(Address::new([1; 20]));
        peers.set_state(first, PeerState::Present);
        peers.remove(first);
        assert_eq!((peers.present_count(), peers.find(Address::new([1; 20]))), (0, None));
        assert_eq!(peers.intern(Address::new([2; 20])), (first, true));
        assert_eq!(peers.known().count(), 1);
    }
}
