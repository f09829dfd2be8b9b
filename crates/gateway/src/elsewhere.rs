use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use protocol::{Address, IslandId, ResumeHash, SessionId};
use tokio::time::Instant;

use crate::resume::Resumable;

/// Who is signed in on other gateways, as far as the bus says.
///
/// A wallet goes with the word of its gateway that its session has ended or, where that gateway died
/// without a word, with the director's that it has left its island. Nobody says that of a wallet
/// that was in none: it goes when its gateway would have ended it. Nor where that word was missed:
/// so nobody is taken to be there who was not heard of for [`QUIET`].
#[derive(Debug)]
pub(crate) struct Elsewhere {
    visits: HashMap<Address, Visit>,
    /// How long a session lives whose client never says where it stands.
    placeless: Duration,
    /// How many wallets there were when they were last counted, and when that was.
    counted: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct Visit {
    session: SessionId,
    /// Where it is. None: it did not say where it stands yet.
    island: Option<IslandId>,
    /// When it was last heard of: that it began, is alive or joined an island.
    heard: Instant,
    /// The hash of its resumption secret, if its gateway reported one.
    hash: Option<ResumeHash>,
}

impl Visit {
    fn is_there(&self, placeless: Duration, now: Instant) -> bool {
        let limit = if self.island.is_some() { QUIET } else { placeless };
        now - self.heard < limit
    }

    fn resumable(&self) -> Resumable {
        Resumable { session: self.session, hash: self.hash }
    }
}

/// How old a count of the wallets may be.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// For how long somebody who stands in an island may not be heard of.
const QUIET: Duration = Duration::from_secs(3_600);

/// How many are remembered. At the bound somebody is forgotten: all that follows is that it is not
/// told that it is signed in already.
const MOST: usize = 262_144;

impl Elsewhere {
    /// Nobody is elsewhere. A session whose client never says where it stands lives for `placeless`.
    pub(crate) fn new(placeless: Duration) -> Self {
        Self { visits: HashMap::new(), placeless, counted: None }
    }

    /// A session was heard of: it began, or says in which island it is.
    pub(crate) fn heard(
        &mut self,
        address: Address,
        session: SessionId,
        (island, hash): (Option<IslandId>, Option<ResumeHash>),
        now: Instant,
    ) {
        if self.visits.len() >= MOST
            && !self.visits.contains_key(&address)
            && let Some(&anybody) = self.visits.keys().next()
        {
            self.visits.remove(&anybody);
        }
        let heard = now;
        match self.visits.entry(address) {
            Entry::Vacant(vacant) => drop(vacant.insert(Visit { session, island, heard, hash })),
            Entry::Occupied(mut occupied) if occupied.get().session < session => {
                occupied.insert(Visit { session, island, heard, hash });
            }
            Entry::Occupied(mut occupied) => {
                let visit = occupied.get_mut();
                if visit.session == session {
                    visit.heard = now;
                    visit.hash = visit.hash.or(hash);
                    // The director's word of a newer island may have come first.
                    visit.island = visit.island.take().or(island);
                }
            }
        }
    }

    /// A session ended; without one, whichever it was. Gives the one that was known and has ended.
    pub(crate) fn ended(&mut self, address: Address, session: Option<SessionId>) -> Option<Resumable> {
        let visit = self.visits.get(&address)?;
        session.is_none_or(|session| visit.session <= session).then_some(())?;
        self.visits.remove(&address).map(|visit| visit.resumable())
    }

    /// The session of a wallet, whether or not it still lives: it may be resumed all the same.
    pub(crate) fn resumable(&self, address: Address) -> Option<Resumable> {
        self.visits.get(&address).map(Visit::resumable)
    }

    /// The director says that somebody joined an island.
    pub(crate) fn joined(&mut self, address: Address, island: &IslandId, now: Instant) {
        if let Some(visit) = self.visits.get_mut(&address) {
            visit.island = Some(island.clone());
            visit.heard = now;
        }
    }

    /// The director published that a peer left an island; one that moves has joined another before. Returns
    /// the session that this ended.
    pub(crate) fn left(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        island: &IslandId,
    ) -> Option<Resumable> {
        let is_there = self.visits.get(&address).is_some_and(|visit| visit.island.as_ref() == Some(island));
        is_there.then(|| self.ended(address, session))?
    }

    /// Whether a wallet is there; one that cannot be any more is forgotten.
    pub(crate) fn contains(&mut self, address: Address, now: Instant) -> bool {
        let Some(visit) = self.visits.get(&address) else { return false };
        let is_there = visit.is_there(self.placeless, now);
        if !is_there {
            self.visits.remove(&address);
        }
        is_there
    }

    /// The number of wallets on other gateways, at most [`COUNT_INTERVAL`] old: a count looks at each.
    pub(crate) fn count(&mut self, now: Instant) -> usize {
        if let Some((count, at)) = self.counted
            && now - at < COUNT_INTERVAL
        {
            return count;
        }
        self.visits.retain(|_, visit| visit.is_there(self.placeless, now));
        self.counted = Some((self.visits.len(), now));
        self.visits.len()
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
    fn a_wallet_is_elsewhere_until_its_newest_session_ends() {
        let (now, mut elsewhere) = (Instant::now(), Elsewhere::new(MINUTE));
        elsewhere.heard(PEER, session(2), (None, None), now);
        elsewhere.heard(PEER, session(1), (None, None), now);
        elsewhere.ended(PEER, Some(session(1)));
        assert!(elsewhere.contains(PEER, now), "an older one ended");
        elsewhere.ended(PEER, Some(session(2)));
        assert!(!elsewhere.contains(PEER, now));
        elsewhere.heard(PEER, session(3), (None, None), now);
        elsewhere.ended(PEER, None);
        assert!(!elsewhere.contains(PEER, now));
    }

    #[test]
    fn who_leaves_its_island_for_no_other_has_gone() {
        let (now, mut elsewhere) = (Instant::now(), Elsewhere::new(MINUTE));
        elsewhere.heard(PEER, session(1), (None, None), now);
        elsewhere.left(PEER, Some(session(1)), &island(1));
        assert!(elsewhere.contains(PEER, now), "of an island in which nobody saw it");
        elsewhere.joined(PEER, &island(1), now);
        elsewhere.joined(PEER, &island(2), now);
        elsewhere.heard(PEER, session(1), (Some(island(1)), None), now);
        elsewhere.left(PEER, Some(session(1)), &island(1));
        assert!(elsewhere.contains(PEER, now), "it moved");
        elsewhere.heard(PEER, session(2), (Some(island(2)), None), now);
        elsewhere.left(PEER, Some(session(1)), &island(2));
        assert!(elsewhere.contains(PEER, now), "it came back in time");
        elsewhere.left(PEER, Some(session(2)), &island(2));
        assert!(!elsewhere.contains(PEER, now));
    }

    #[test]
    fn of_whom_nobody_says_that_it_has_gone_it_is_not_said_for_ever_that_it_is_there() {
        let (start, mut elsewhere) = (Instant::now(), Elsewhere::new(MINUTE));
        let later = |minutes| start + minutes * MINUTE;
        elsewhere.heard(PEER, session(1), (None, None), start);
        assert!(elsewhere.contains(PEER, later(1) - Duration::from_millis(1)));
        assert!(!elsewhere.contains(PEER, later(1)), "it never said where it stands");
        assert!(elsewhere.visits.is_empty());
        elsewhere.heard(PEER, session(2), (None, None), later(2));
        elsewhere.joined(PEER, &island(1), later(3) - Duration::from_millis(1));
        assert!(elsewhere.contains(PEER, later(60)), "it stands in an island");
        elsewhere.heard(PEER, session(1), (None, None), later(61));
        assert!(!elsewhere.contains(PEER, later(63)), "an older session is another");
        elsewhere.heard(PEER, session(3), (Some(island(1)), None), later(70));
        elsewhere.heard(PEER, session(3), (Some(island(1)), None), later(90));
        assert!(elsewhere.contains(PEER, later(140)), "it was heard of since");
    }

    #[test]
    fn count_is_at_most_a_second_old_and_omits_expired_wallets() {
        let (start, mut elsewhere) = (Instant::now(), Elsewhere::new(MINUTE));
        elsewhere.heard(PEER, session(1), (None, None), start);
        elsewhere.heard(Address::new([2; 20]), session(1), (Some(island(1)), None), start);
        assert_eq!(elsewhere.count(start), 2);
        elsewhere.ended(PEER, None);
        assert_eq!(elsewhere.count(start + COUNT_INTERVAL), 1);
        elsewhere.heard(PEER, session(2), (None, None), start + COUNT_INTERVAL);
        assert_eq!(elsewhere.count(start + 2 * COUNT_INTERVAL), 2);
        assert_eq!(elsewhere.count(start + 2 * MINUTE), 1, "a session without a position has timed out");
    }

    #[test]
    fn at_the_bound_somebody_is_forgotten() {
        let (now, mut elsewhere) = (Instant::now(), Elsewhere::new(MINUTE));
        let peer = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Address::new(bytes)
        };
        (0..=MOST).for_each(|number| elsewhere.heard(peer(number), session(1), (None, None), now));
        assert_eq!(elsewhere.visits.len(), MOST);
        assert!(elsewhere.contains(peer(MOST), now), "not who was heard of last");
    }
}
