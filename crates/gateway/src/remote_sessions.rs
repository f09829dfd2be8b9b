use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use protocol::{Address, IslandId, ResumeHash, SessionId};
use tokio::time::Instant;

use crate::resumption::Resumable;

/// Who is signed in on other gateways, as far as the bus says.
///
/// A wallet goes with the word of its gateway that its session has ended or, where that gateway died
/// without a word, with the director's that it has left its island. Nobody says that of a wallet
/// that was in none: it goes when its gateway would have ended it. Nor where that word was missed:
/// so nobody is taken to be there who was not heard of for [`SILENCE_TIMEOUT`].
#[derive(Debug)]
pub(crate) struct RemoteSessions {
    sessions: HashMap<Address, RemoteSession>,
    /// How long a session lives whose client never says where it stands.
    no_position_timeout: Duration,
    /// How many wallets there were when they were last counted, and when that was.
    cached_count: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct RemoteSession {
    session: SessionId,
    /// Where it is. None: it did not say where it stands yet.
    island: Option<IslandId>,
    /// When it was last heard of: that it began, is alive or joined an island.
    last_seen: Instant,
    /// The hash of its resumption secret, if its gateway reported one.
    hash: Option<ResumeHash>,
}

impl RemoteSession {
    fn is_alive(&self, placeless: Duration, now: Instant) -> bool {
        let limit = if self.island.is_some() { SILENCE_TIMEOUT } else { placeless };
        now - self.last_seen < limit
    }

    fn resumable(&self) -> Resumable {
        Resumable { session: self.session, hash: self.hash }
    }
}

/// How old a count of the wallets may be.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// For how long somebody who stands in an island may not be heard of.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// How many are remembered. At the bound somebody is forgotten: all that follows is that it is not
/// told that it is signed in already.
const MAX_REMOTE_SESSIONS: usize = 262_144;

impl RemoteSessions {
    /// Nobody is elsewhere. A session whose client never says where it stands lives for `placeless`.
    pub(crate) fn new(placeless: Duration) -> Self {
        Self { sessions: HashMap::new(), no_position_timeout: placeless, cached_count: None }
    }

    /// A session was heard of: it began, or says in which island it is.
    pub(crate) fn observe(
        &mut self,
        address: Address,
        session: SessionId,
        (island, hash): (Option<IslandId>, Option<ResumeHash>),
        now: Instant,
    ) {
        if self.sessions.len() >= MAX_REMOTE_SESSIONS
            && !self.sessions.contains_key(&address)
            && let Some(&anybody) = self.sessions.keys().next()
        {
            self.sessions.remove(&anybody);
        }
        let heard = now;
        match self.sessions.entry(address) {
            Entry::Vacant(vacant) => {
                drop(vacant.insert(RemoteSession { session, island, last_seen: heard, hash }))
            }
            Entry::Occupied(mut occupied) if occupied.get().session < session => {
                occupied.insert(RemoteSession { session, island, last_seen: heard, hash });
            }
            Entry::Occupied(mut occupied) => {
                let visit = occupied.get_mut();
                if visit.session == session {
                    visit.last_seen = now;
                    visit.hash = visit.hash.or(hash);
                    // The director's word of a newer island may have come first.
                    visit.island = visit.island.take().or(island);
                }
            }
        }
    }

    /// A session ended; without one, whichever it was. Gives the one that was known and has ended.
    pub(crate) fn end(&mut self, address: Address, session: Option<SessionId>) -> Option<Resumable> {
        let visit = self.sessions.get(&address)?;
        session.is_none_or(|session| visit.session <= session).then_some(())?;
        self.sessions.remove(&address).map(|visit| visit.resumable())
    }

    /// The session of a wallet, whether or not it still lives: it may be resumed all the same.
    pub(crate) fn resumable(&self, address: Address) -> Option<Resumable> {
        self.sessions.get(&address).map(RemoteSession::resumable)
    }

    /// The director says that somebody joined an island.
    pub(crate) fn observe_join(&mut self, address: Address, island: &IslandId, now: Instant) {
        if let Some(visit) = self.sessions.get_mut(&address) {
            visit.island = Some(island.clone());
            visit.last_seen = now;
        }
    }

    /// The director published that a peer left an island; one that moves has joined another before. Returns
    /// the session that this ended.
    pub(crate) fn observe_leave(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        island: &IslandId,
    ) -> Option<Resumable> {
        let is_there = self.sessions.get(&address).is_some_and(|visit| visit.island.as_ref() == Some(island));
        is_there.then(|| self.end(address, session))?
    }

    /// Whether a wallet is there; one that cannot be any more is forgotten.
    pub(crate) fn contains(&mut self, address: Address, now: Instant) -> bool {
        let Some(visit) = self.sessions.get(&address) else { return false };
        let is_there = visit.is_alive(self.no_position_timeout, now);
        if !is_there {
            self.sessions.remove(&address);
        }
        is_there
    }

    /// The number of wallets on other gateways, at most [`COUNT_INTERVAL`] old: a count looks at each.
    pub(crate) fn count(&mut self, now: Instant) -> usize {
        if let Some((count, at)) = self.cached_count
            && now - at < COUNT_INTERVAL
        {
            return count;
        }
        self.sessions.retain(|_, visit| visit.is_alive(self.no_position_timeout, now));
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
        let (now, mut elsewhere) = (Instant::now(), RemoteSessions::new(MINUTE));
        elsewhere.observe(PEER, session(2), (None, None), now);
        elsewhere.observe(PEER, session(1), (None, None), now);
        elsewhere.end(PEER, Some(session(1)));
        assert!(elsewhere.contains(PEER, now), "an older one ended");
        elsewhere.end(PEER, Some(session(2)));
        assert!(!elsewhere.contains(PEER, now));
        elsewhere.observe(PEER, session(3), (None, None), now);
        elsewhere.end(PEER, None);
        assert!(!elsewhere.contains(PEER, now));
    }

    #[test]
    fn leaving_the_last_island_ends_the_remote_session() {
        let (now, mut elsewhere) = (Instant::now(), RemoteSessions::new(MINUTE));
        elsewhere.observe(PEER, session(1), (None, None), now);
        elsewhere.observe_leave(PEER, Some(session(1)), &island(1));
        assert!(elsewhere.contains(PEER, now), "of an island in which nobody saw it");
        elsewhere.observe_join(PEER, &island(1), now);
        elsewhere.observe_join(PEER, &island(2), now);
        elsewhere.observe(PEER, session(1), (Some(island(1)), None), now);
        elsewhere.observe_leave(PEER, Some(session(1)), &island(1));
        assert!(elsewhere.contains(PEER, now), "it moved");
        elsewhere.observe(PEER, session(2), (Some(island(2)), None), now);
        elsewhere.observe_leave(PEER, Some(session(1)), &island(2));
        assert!(elsewhere.contains(PEER, now), "it came back in time");
        elsewhere.observe_leave(PEER, Some(session(2)), &island(2));
        assert!(!elsewhere.contains(PEER, now));
    }

    #[test]
    fn remote_session_expires_without_disconnect() {
        let (start, mut elsewhere) = (Instant::now(), RemoteSessions::new(MINUTE));
        let later = |minutes| start + minutes * MINUTE;
        elsewhere.observe(PEER, session(1), (None, None), start);
        assert!(elsewhere.contains(PEER, later(1) - Duration::from_millis(1)));
        assert!(!elsewhere.contains(PEER, later(1)), "it never said where it stands");
        assert!(elsewhere.sessions.is_empty());
        elsewhere.observe(PEER, session(2), (None, None), later(2));
        elsewhere.observe_join(PEER, &island(1), later(3) - Duration::from_millis(1));
        assert!(elsewhere.contains(PEER, later(60)), "it stands in an island");
        elsewhere.observe(PEER, session(1), (None, None), later(61));
        assert!(!elsewhere.contains(PEER, later(63)), "an older session is another");
        elsewhere.observe(PEER, session(3), (Some(island(1)), None), later(70));
        elsewhere.observe(PEER, session(3), (Some(island(1)), None), later(90));
        assert!(elsewhere.contains(PEER, later(140)), "it was heard of since");
    }

    #[test]
    fn count_is_at_most_a_second_old_and_omits_expired_sessions() {
        let (start, mut elsewhere) = (Instant::now(), RemoteSessions::new(MINUTE));
        elsewhere.observe(PEER, session(1), (None, None), start);
        elsewhere.observe(Address::new([2; 20]), session(1), (Some(island(1)), None), start);
        assert_eq!(elsewhere.count(start), 2);
        elsewhere.end(PEER, None);
        assert_eq!(elsewhere.count(start + COUNT_INTERVAL), 1);
        elsewhere.observe(PEER, session(2), (None, None), start + COUNT_INTERVAL);
        assert_eq!(elsewhere.count(start + 2 * COUNT_INTERVAL), 2);
        assert_eq!(elsewhere.count(start + 2 * MINUTE), 1, "a session without a position has timed out");
    }

    #[test]
    fn remote_sessions_at_the_limit_evict_one_entry() {
        let (now, mut elsewhere) = (Instant::now(), RemoteSessions::new(MINUTE));
        let peer = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Address::new(bytes)
        };
        (0..=MAX_REMOTE_SESSIONS)
            .for_each(|number| elsewhere.observe(peer(number), session(1), (None, None), now));
        assert_eq!(elsewhere.sessions.len(), MAX_REMOTE_SESSIONS);
        assert!(elsewhere.contains(peer(MAX_REMOTE_SESSIONS), now), "not who was heard of last");
    }
}
