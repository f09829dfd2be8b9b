//! Memberships that have ended, until their sockets are closed.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use protocol::{Address, IslandId, Ulid};
use tokio::time::Instant;

/// Who has left which island, and until when they may come back to it.
#[derive(Debug, Default)]
pub(crate) struct PendingEvictions {
    /// In the order of their time.
    scheduled: VecDeque<(Instant, IslandId, Address, Ulid)>,
    /// Those of them that hold.
    active: HashMap<(IslandId, Address), PendingEviction>,
    /// Sockets of sessions that were taken over, in the order of their time. No later join keeps them.
    takeovers: VecDeque<(Instant, IslandId, Address, Ulid)>,
}

#[derive(Debug)]
struct PendingEviction {
    /// Who entered with a newer token stays.
    minted_before: Ulid,
    /// The island is elsewhere, whoever comes back to it.
    island_moved: bool,
}

impl PendingEvictions {
    /// A membership ended; its socket is due `at` a time that is not before those of earlier ones.
    pub(crate) fn schedule(
        &mut self,
        at: Instant,
        island: &IslandId,
        address: Address,
        minted_before: Ulid,
        moved: bool,
    ) {
        self.scheduled.push_back((at, island.clone(), address, minted_before));
        let key = (island.clone(), address);
        let moved = moved || self.active.get(&key).is_some_and(|end| end.island_moved);
        self.active.insert(key, PendingEviction { minted_before, island_moved: moved });
    }

    /// A newer session of a member took over: the socket that entered with an older token is due `at` a
    /// time that is not before those of earlier ones.
    pub(crate) fn schedule_takeover(
        &mut self,
        at: Instant,
        island: &IslandId,
        address: Address,
        minted_before: Ulid,
    ) {
        self.takeovers.push_back((at, island.clone(), address, minted_before));
    }

    /// Somebody joined an island. Whoever had left it keeps its seat, if the island is still here.
    pub(crate) fn cancel_on_join(&mut self, island: IslandId, address: Address) {
        if let Entry::Occupied(end) = self.active.entry((island, address))
            && !end.get().island_moved
        {
            end.remove();
        }
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [&self.scheduled, &self.takeovers].into_iter().filter_map(|due| Some(due.front()?.0)).min()
    }

    /// A membership that is due by now.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(IslandId, Address, Ulid)> {
        if self.takeovers.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, island, address, minted_before)) = self.takeovers.pop_front()
        {
            return Some((island, address, minted_before));
        }
        while let Some((at, ..)) = self.scheduled.front()
            && *at <= now
        {
            let (_, island, address, minted_before) = self.scheduled.pop_front()?;
            // One that ended again is due at the later time.
            if let Entry::Occupied(end) = self.active.entry((island.clone(), address))
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
    fn eviction_is_due_unless_the_peer_rejoined() {
        let (mut ending, start) = (PendingEvictions::default(), Instant::now());
        let (early, late) = (start + Duration::from_secs(1), start + Duration::from_secs(2));
        let token = |number: u64| Ulid::from_parts(number, 0);
        for peer in [PEER, OTHER] {
            ending.schedule(early, &island(), peer, token(1), false);
        }
        ending.cancel_on_join("I2".parse().unwrap(), OTHER);
        ending.cancel_on_join(island(), PEER);
        assert_eq!((ending.next_due(), ending.pop_due(start)), (Some(early), None));
        // It went once more.
        ending.schedule(late, &island(), PEER, token(2), false);
        assert_eq!(ending.pop_due(early), Some((island(), OTHER, token(1))));
        assert_eq!(ending.pop_due(early), None);
        assert_eq!(ending.pop_due(late), Some((island(), PEER, token(2))));
        assert_eq!((ending.pop_due(late), ending.next_due()), (None, None));
        assert!(ending.active.is_empty());
    }

    #[test]
    fn rejoin_does_not_cancel_eviction_from_a_moved_island() {
        let (mut ending, now) = (PendingEvictions::default(), Instant::now());
        ending.schedule(now, &island(), PEER, Ulid::from_parts(1, 0), true);
        ending.schedule(now, &island(), PEER, Ulid::from_parts(2, 0), false);
        ending.cancel_on_join(island(), PEER);
        assert_eq!(ending.pop_due(now), Some((island(), PEER, Ulid::from_parts(2, 0))));
    }

    #[test]
    fn rejoin_does_not_cancel_a_takeover_eviction() {
        let (mut ending, start) = (PendingEvictions::default(), Instant::now());
        let due = start + Duration::from_secs(1);
        let token = |number: u64| Ulid::from_parts(number, 0);
        // It left, and came back with a session that does not resume the older one.
        ending.schedule(due, &island(), PEER, token(1), false);
        ending.schedule_takeover(due, &island(), PEER, token(2));
        ending.cancel_on_join(island(), PEER);
        assert_eq!((ending.next_due(), ending.pop_due(start)), (Some(due), None));
        // The newer one left and came back: its own socket, with a token of after 2, keeps its seat.
        ending.schedule(due, &island(), PEER, token(4), false);
        ending.cancel_on_join(island(), PEER);
        assert_eq!(ending.pop_due(due), Some((island(), PEER, token(2))));
        assert_eq!((ending.pop_due(due), ending.next_due()), (None, None));
    }
}
