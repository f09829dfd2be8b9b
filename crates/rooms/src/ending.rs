//! Memberships that have ended, until their sockets are closed.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use protocol::{Address, IslandId, Ulid};
use tokio::time::Instant;

/// Who has left which island, and until when they may come back to it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// In the order of their time.
    due: VecDeque<(Instant, IslandId, Address, Ulid)>,
    /// Those of them that hold.
    ends: HashMap<(IslandId, Address), End>,
    /// Sockets of sessions that were taken over, in the order of their time. No later join keeps them.
    taken_over: VecDeque<(Instant, IslandId, Address, Ulid)>,
}

#[derive(Debug)]
struct End {
    /// Who entered with a newer token stays.
    minted_before: Ulid,
    /// The island is elsewhere, whoever comes back to it.
    moved: bool,
}

impl Ending {
    /// A membership ended; its socket is due `at` a time that is not before those of earlier ones.
    pub(crate) fn add(
        &mut self,
        at: Instant,
        island: &IslandId,
        address: Address,
        minted_before: Ulid,
        moved: bool,
    ) {
        self.due.push_back((at, island.clone(), address, minted_before));
        let key = (island.clone(), address);
        let moved = moved || self.ends.get(&key).is_some_and(|end| end.moved);
        self.ends.insert(key, End { minted_before, moved });
    }

    /// A newer session of a member took over: the socket that entered with an older token is due `at` a
    /// time that is not before those of earlier ones.
    pub(crate) fn take_over(
        &mut self,
        at: Instant,
        island: &IslandId,
        address: Address,
        minted_before: Ulid,
    ) {
        self.taken_over.push_back((at, island.clone(), address, minted_before));
    }

    /// Somebody joined an island. Whoever had left it keeps its seat, if the island is still here.
    pub(crate) fn joined(&mut self, island: IslandId, address: Address) {
        if let Entry::Occupied(end) = self.ends.entry((island, address))
            && !end.get().moved
        {
            end.remove();
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        [&self.due, &self.taken_over].into_iter().filter_map(|due| Some(due.front()?.0)).min()
    }

    /// A membership that is due by now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(IslandId, Address, Ulid)> {
        if self.taken_over.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, island, address, minted_before)) = self.taken_over.pop_front()
        {
            return Some((island, address, minted_before));
        }
        while let Some((at, ..)) = self.due.front()
            && *at <= now
        {
            let (_, island, address, minted_before) = self.due.pop_front()?;
            // One that ended again is due at the later time.
            if let Entry::Occupied(end) = self.ends.entry((island.clone(), address))
                && end.get().minted_before == minted_before
            {
                end.remove();
                return Some((island, address, minted_before));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: Address = Address::new([1; 20]);
    const OTHER: Address = Address::new([2; 20]);

    fn island() -> IslandId {
        "I1".parse().unwrap()
    }

    #[test]
    fn sockets_are_due_unless_their_owner_came_back() {
        let (mut ending, start) = (Ending::default(), Instant::now());
        let (early, late) = (start + Duration::from_secs(1), start + Duration::from_secs(2));
        let token = |number: u64| Ulid::from_parts(number, 0);
        for peer in [PEER, OTHER] {
            ending.add(early, &island(), peer, token(1), false);
        }
        ending.joined("I2".parse().unwrap(), OTHER);
        ending.joined(island(), PEER);
        assert_eq!((ending.next(), ending.take_due(start)), (Some(early), None));
        // It went once more.
        ending.add(late, &island(), PEER, token(2), false);
        assert_eq!(ending.take_due(early), Some((island(), OTHER, token(1))));
        assert_eq!(ending.take_due(early), None);
        assert_eq!(ending.take_due(late), Some((island(), PEER, token(2))));
        assert_eq!((ending.take_due(late), ending.next()), (None, None));
        assert!(ending.ends.is_empty());
    }

    #[test]
    fn whoever_comes_back_to_an_island_that_moved_has_no_seat_here() {
        let (mut ending, now) = (Ending::default(), Instant::now());
        ending.add(now, &island(), PEER, Ulid::from_parts(1, 0), true);
        ending.add(now, &island(), PEER, Ulid::from_parts(2, 0), false);
        ending.joined(island(), PEER);
        assert_eq!(ending.take_due(now), Some((island(), PEER, Ulid::from_parts(2, 0))));
    }

    #[test]
    fn takeover_end_is_due_although_the_peer_joins_again() {
        let (mut ending, start) = (Ending::default(), Instant::now());
        let due = start + Duration::from_secs(1);
        let token = |number: u64| Ulid::from_parts(number, 0);
        // It left, and came back with a session that does not resume the older one.
        ending.add(due, &island(), PEER, token(1), false);
        ending.take_over(due, &island(), PEER, token(2));
        ending.joined(island(), PEER);
        assert_eq!((ending.next(), ending.take_due(start)), (Some(due), None));
        // The newer one left and came back: its own socket, with a token of after 2, keeps its seat.
        ending.add(due, &island(), PEER, token(4), false);
        ending.joined(island(), PEER);
        assert_eq!(ending.take_due(due), Some((island(), PEER, token(2))));
        assert_eq!((ending.take_due(due), ending.next()), (None, None));
    }
}
