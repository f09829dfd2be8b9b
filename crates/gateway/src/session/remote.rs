//! The sessions of other gateways, as far as the bus reports them.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use protocol::{Address, IslandId, ResumeHash, SessionId};
use tokio::time::Instant;

use crate::session::resumption::Resumable;

/// The sessions of other gateways, as far as the bus reports them; one for each wallet, its newest.
///
/// An entry is removed when its gateway publishes a disconnect or, if that gateway crashed, when the director
/// publishes that the peer left its island. Neither is published for a peer without an island: its entry
/// expires when its gateway would have ended the session as idle. Because either message can be lost, an
/// entry expires in any case [`SILENCE_TIMEOUT`] after its last report.
#[derive(Debug)]
pub(crate) struct RemoteSessions {
    sessions: HashMap<Address, RemoteSession>,
    /// Lifetime of a session if its client never reports a position.
    no_position_timeout: Duration,
    /// The last count of sessions and its time.
    cached_count: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct RemoteSession {
    session: SessionId,
    /// Its island. `None`: it has not reported a position yet.
    island: Option<IslandId>,
    /// Time of the last report: it began, was alive, or joined an island.
    last_seen: Instant,
    /// The hash of its resumption secret, if its gateway reported one.
    hash: Option<ResumeHash>,
}

impl RemoteSession {
    fn is_alive(&self, no_position_timeout: Duration, now: Instant) -> bool {
        let limit = if self.island.is_some() { SILENCE_TIMEOUT } else { no_position_timeout };
        now - self.last_seen < limit
    }

    fn resumable(&self) -> Resumable {
        Resumable { session: self.session, hash: self.hash }
    }
}

/// Maximum age of the cached count.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Time without a report after which a session in an island expires.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Upper bound of entries. At the bound an arbitrary entry is evicted: a challenge for that wallet then does
/// not report that it is signed in already, its session cannot be resumed here, and `/about` does not count
/// it.
const MAX_REMOTE_SESSIONS: usize = 262_144;

impl RemoteSessions {
    /// An empty set. A session without a position lives for `no_position_timeout`.
    pub(crate) fn new(no_position_timeout: Duration) -> Self {
        Self { sessions: HashMap::new(), no_position_timeout, cached_count: None }
    }

    /// Records a report of a session: it began, or is alive in an island. An older session than the known one
    /// is ignored.
    pub(crate) fn observe(
        &mut self,
        address: Address,
        session: SessionId,
        (island, hash): (Option<IslandId>, Option<ResumeHash>),
        now: Instant,
    ) {
        if self.sessions.len() >= MAX_REMOTE_SESSIONS
            && !self.sessions.contains_key(&address)
            && let Some(&evicted) = self.sessions.keys().next()
        {
            self.sessions.remove(&evicted);
        }
        match self.sessions.entry(address) {
            Entry::Vacant(vacant) => {
                vacant.insert(RemoteSession { session, island, last_seen: now, hash });
            }
            Entry::Occupied(mut occupied) if occupied.get().session < session => {
                occupied.insert(RemoteSession { session, island, last_seen: now, hash });
            }
            Entry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                if known.session == session {
                    known.last_seen = now;
                    known.hash = known.hash.or(hash);
                    // The director's message about a newer island may have arrived before this report.
                    known.island = known.island.take().or(island);
                }
            }
        }
    }

    /// Removes a session that ended, unless a newer one is known; without a session id, any session of the
    /// wallet. Returns the removed session.
    pub(crate) fn end(&mut self, address: Address, session: Option<SessionId>) -> Option<Resumable> {
        let known = self.sessions.get(&address)?;
        session.is_none_or(|session| known.session <= session).then_some(())?;
        self.sessions.remove(&address).map(|known| known.resumable())
    }

    /// The session of a wallet for resumption, even if its entry has expired.
    pub(crate) fn resumable(&self, address: Address) -> Option<Resumable> {
        self.sessions.get(&address).map(RemoteSession::resumable)
    }

    /// Records that the director published that a peer joined an island.
    pub(crate) fn observe_join(&mut self, address: Address, island: &IslandId, now: Instant) {
        if let Some(known) = self.sessions.get_mut(&address) {
            known.island = Some(island.clone());
            known.last_seen = now;
        }
    }

    /// Records that the director published that a peer left an island. This ends the session if that island
    /// is its last one: a peer that moves has joined another before. Returns the ended session.
    pub(crate) fn observe_leave(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        island: &IslandId,
    ) -> Option<Resumable> {
        let is_last = self.sessions.get(&address).is_some_and(|known| known.island.as_ref() == Some(island));
        is_last.then(|| self.end(address, session))?
    }

    /// Whether a wallet has a live remote session. An expired entry is removed.
    pub(crate) fn contains(&mut self, address: Address, now: Instant) -> bool {
        let Some(known) = self.sessions.get(&address) else { return false };
        let is_alive = known.is_alive(self.no_position_timeout, now);
        if !is_alive {
            self.sessions.remove(&address);
        }
        is_alive
    }

    /// Whether the island of a wallet's live remote session is this one.
    pub(crate) fn is_member(&self, address: Address, island: &IslandId, now: Instant) -> bool {
        self.sessions.get(&address).is_some_and(|known| {
            known.island.as_ref() == Some(island) && known.is_alive(self.no_position_timeout, now)
        })
    }

    /// Number of wallets on other gateways. The count is cached for [`COUNT_INTERVAL`], because it visits
    /// each entry; expired entries are removed.
    pub(crate) fn count(&mut self, now: Instant) -> usize {
        if let Some((count, at)) = self.cached_count
            && now - at < COUNT_INTERVAL
        {
            return count;
        }
        self.sessions.retain(|_, known| known.is_alive(self.no_position_timeout, now));
        self.cached_count = Some((self.sessions.len(), now));
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Address = Address::new([1; 20]);
    const MINUTE: Duration = Duration::from_secs(60);

    fn island(number: u8) -> IslandId {
        format!("I{number}").parse().unwrap()
    }

    fn session(number: u64) -> SessionId {
        SessionId::new(number, 0)
    }

    #[test]
    fn wallet_is_remote_until_its_newest_session_ends() {
        let (now, mut remote) = (Instant::now(), RemoteSessions::new(MINUTE));
        remote.observe(PEER, session(2), (None, None), now);
        remote.observe(PEER, session(1), (None, None), now);
        remote.end(PEER, Some(session(1)));
        assert!(remote.contains(PEER, now), "an older session ended");
        remote.end(PEER, Some(session(2)));
        assert!(!remote.contains(PEER, now));
        remote.observe(PEER, session(3), (None, None), now);
        remote.end(PEER, None);
        assert!(!remote.contains(PEER, now));
    }

    #[test]
    fn leaving_the_last_island_ends_the_remote_session() {
        let (now, mut remote) = (Instant::now(), RemoteSessions::new(MINUTE));
        remote.observe(PEER, session(1), (None, None), now);
        remote.observe_leave(PEER, Some(session(1)), &island(1));
        assert!(remote.contains(PEER, now), "it was not known to be in that island");
        remote.observe_join(PEER, &island(1), now);
        remote.observe_join(PEER, &island(2), now);
        remote.observe(PEER, session(1), (Some(island(1)), None), now);
        remote.observe_leave(PEER, Some(session(1)), &island(1));
        assert!(remote.contains(PEER, now), "it had joined another island");
        remote.observe(PEER, session(2), (Some(island(2)), None), now);
        remote.observe_leave(PEER, Some(session(1)), &island(2));
        assert!(remote.contains(PEER, now), "a newer session replaced it in time");
        remote.observe_leave(PEER, Some(session(2)), &island(2));
        assert!(!remote.contains(PEER, now));
    }

    #[test]
    fn remote_session_expires_without_disconnect() {
        let (start, mut remote) = (Instant::now(), RemoteSessions::new(MINUTE));
        let later = |minutes| start + minutes * MINUTE;
        remote.observe(PEER, session(1), (None, None), start);
        assert!(remote.contains(PEER, later(1) - Duration::from_millis(1)));
        assert!(!remote.contains(PEER, later(1)), "it never reported a position");
        assert!(remote.sessions.is_empty());
        remote.observe(PEER, session(2), (None, None), later(2));
        remote.observe_join(PEER, &island(1), later(3) - Duration::from_millis(1));
        assert!(remote.contains(PEER, later(60)), "it is in an island");
        remote.observe(PEER, session(1), (None, None), later(61));
        assert!(!remote.contains(PEER, later(63)), "a report of an older session does not count");
        remote.observe(PEER, session(3), (Some(island(1)), None), later(70));
        remote.observe(PEER, session(3), (Some(island(1)), None), later(90));
        assert!(remote.contains(PEER, later(140)), "it was reported since");
    }

    #[test]
    fn count_is_at_most_a_second_old_and_omits_expired_sessions() {
        let (start, mut remote) = (Instant::now(), RemoteSessions::new(MINUTE));
        remote.observe(PEER, session(1), (None, None), start);
        remote.observe(Address::new([2; 20]), session(1), (Some(island(1)), None), start);
        assert_eq!(remote.count(start), 2);
        remote.end(PEER, None);
        assert_eq!(remote.count(start + COUNT_INTERVAL), 1);
        remote.observe(PEER, session(2), (None, None), start + COUNT_INTERVAL);
        assert_eq!(remote.count(start + 2 * COUNT_INTERVAL), 2);
        assert_eq!(remote.count(start + 2 * MINUTE), 1, "a session without a position has timed out");
    }

    #[test]
    fn remote_sessions_at_the_limit_evict_one_entry() {
        let (now, mut remote) = (Instant::now(), RemoteSessions::new(MINUTE));
        let peer = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Address::new(bytes)
        };
        (0..=MAX_REMOTE_SESSIONS)
            .for_each(|number| remote.observe(peer(number), session(1), (None, None), now));
        assert_eq!(remote.sessions.len(), MAX_REMOTE_SESSIONS);
        assert!(remote.contains(peer(MAX_REMOTE_SESSIONS), now), "the newest entry is kept");
    }
}
