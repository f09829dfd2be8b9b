use std::collections::{HashMap, hash_map::Entry};

use protocol::{Address, IslandId, SessionId};

/// Who is signed in on other gateways, as far as the bus says.
///
/// A wallet goes with the word of its gateway that its session has ended or, where that gateway died
/// without a word, with the director's that it has left its island.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(HashMap<Address, Visit>);

#[derive(Debug)]
struct Visit {
    session: SessionId,
    /// Where it is. None: it did not say where it stands yet.
    island: Option<IslandId>,
}

/// How many are remembered. At the bound somebody is forgotten: all that follows is that it is not
/// told that it is signed in already.
const MOST: usize = 262_144;

impl Elsewhere {
    /// A session was heard of: it began, or says in which island it is.
    pub(crate) fn heard(&mut self, address: Address, session: SessionId, island: Option<IslandId>) {
        if self.0.len() >= MOST
            && !self.0.contains_key(&address)
            && let Some(&anybody) = self.0.keys().next()
        {
            self.0.remove(&anybody);
        }
        match self.0.entry(address) {
            Entry::Vacant(vacant) => drop(vacant.insert(Visit { session, island })),
            Entry::Occupied(mut occupied) if occupied.get().session < session => {
                occupied.insert(Visit { session, island });
            }
            Entry::Occupied(mut occupied) => {
                // The director's word of a newer island may have come first.
                let visit = occupied.get_mut();
                if visit.session == session && visit.island.is_none() {
                    visit.island = island;
                }
            }
        }
    }

    /// A session ended; without one, whichever it was.
    pub(crate) fn ended(&mut self, address: Address, session: Option<SessionId>) {
        if self.0.get(&address).is_some_and(|visit| session.is_none_or(|session| visit.session <= session)) {
            self.0.remove(&address);
        }
    }

    /// The director says that somebody joined an island.
    pub(crate) fn joined(&mut self, address: Address, island: &IslandId) {
        if let Some(visit) = self.0.get_mut(&address) {
            visit.island = Some(island.clone());
        }
    }

    /// The director says that somebody left an island. Who moves has joined another before.
    pub(crate) fn left(&mut self, address: Address, session: Option<SessionId>, island: &IslandId) {
        if self.0.get(&address).is_some_and(|visit| visit.island.as_ref() == Some(island)) {
            self.ended(address, session);
        }
    }

    pub(crate) fn contains(&self, address: Address) -> bool {
        self.0.contains_key(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Address = Address::new([1; 20]);

    fn island(number: u8) -> IslandId {
        format!("I{number}").parse().unwrap()
    }

    fn session(number: u64) -> SessionId {
        SessionId::new(number, 0)
    }

    #[test]
    fn a_wallet_is_elsewhere_until_its_newest_session_ends() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.heard(PEER, session(2), None);
        elsewhere.heard(PEER, session(1), None);
        elsewhere.ended(PEER, Some(session(1)));
        assert!(elsewhere.contains(PEER), "an older one ended");
        elsewhere.ended(PEER, Some(session(2)));
        assert!(!elsewhere.contains(PEER));
        elsewhere.heard(PEER, session(3), None);
        elsewhere.ended(PEER, None);
        assert!(!elsewhere.contains(PEER));
    }

    #[test]
    fn who_leaves_its_island_for_no_other_has_gone() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.heard(PEER, session(1), None);
        elsewhere.left(PEER, Some(session(1)), &island(1));
        assert!(elsewhere.contains(PEER), "of an island in which nobody saw it");
        elsewhere.joined(PEER, &island(1));
        elsewhere.joined(PEER, &island(2));
        elsewhere.heard(PEER, session(1), Some(island(1)));
        elsewhere.left(PEER, Some(session(1)), &island(1));
        assert!(elsewhere.contains(PEER), "it moved");
        elsewhere.heard(PEER, session(2), Some(island(2)));
        elsewhere.left(PEER, Some(session(1)), &island(2));
        assert!(elsewhere.contains(PEER), "it came back in time");
        elsewhere.left(PEER, Some(session(2)), &island(2));
        assert!(!elsewhere.contains(PEER));
    }

    #[test]
    fn at_the_bound_somebody_is_forgotten() {
        let mut elsewhere = Elsewhere::default();
        let peer = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Address::new(bytes)
        };
        (0..=MOST).for_each(|number| elsewhere.heard(peer(number), session(1), None));
        assert_eq!(elsewhere.0.len(), MOST);
        assert!(elsewhere.contains(peer(MOST)), "not who was heard of last");
    }
}
