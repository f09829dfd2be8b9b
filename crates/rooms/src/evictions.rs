//! Ended memberships of which the sockets are still open, until the grace has passed.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use protocol::{Address, IslandId, Ulid};
use tokio::time::Instant;

/// Evictions that are due after a grace, in which a peer may rejoin the island and keep its socket.
#[derive(Debug, Default)]
pub(crate) struct PendingEvictions {
    /// In the order of their due time. An entry without an equal entry in `active` was cancelled or replaced.
    scheduled: VecDeque<(Instant, IslandId, Address, Ulid)>,
    /// The evictions that have not been cancelled.
    active: HashMap<(IslandId, Address), PendingEviction>,
    /// Evictions of sessions that were taken over, in the order of their due time. A later join does not
    /// cancel them.
    takeovers: VecDeque<(Instant, IslandId, Address, Ulid)>,
}

#[derive(Debug)]
struct PendingEviction {
    /// A member that entered with a newer token stays.
    minted_before: Ulid,
    /// The island has moved to another node, so a rejoin does not cancel the eviction.
    island_moved: bool,
}

impl PendingEvictions {
    /// Schedules an eviction because a membership ended. `at` must not be before the due times of earlier
    /// evictions.
    pub(crate) fn schedule(
        &mut self,
        at: Instant,
        island: &IslandId,
        address: Address,
        minted_before: Ulid,
        island_moved: bool,
    ) {
        self.scheduled.push_back((at, island.clone(), address, minted_before));
        let key = (island.clone(), address);
        let island_moved =
            island_moved || self.active.get(&key).is_some_and(|eviction| eviction.island_moved);
        self.active.insert(key, PendingEviction { minted_before, island_moved });
    }

    /// Schedules the eviction of the socket that entered with an older token, because a newer session took
    /// over. `at` must not be before the due times of earlier takeovers.
    pub(crate) fn schedule_takeover(
        &mut self,
        at: Instant,
        island: &IslandId,
        address: Address,
        minted_before: Ulid,
    ) {
        self.takeovers.push_back((at, island.clone(), address, minted_before));
    }

    /// A peer joined an island: cancels its eviction, unless the island has moved to another node.
    pub(crate) fn cancel_on_join(&mut self, island: IslandId, address: Address) {
        if let Entry::Occupied(eviction) = self.active.entry((island, address))
            && !eviction.get().island_moved
        {
            eviction.remove();
        }
    }

    /// The time at which the next eviction is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [&self.scheduled, &self.takeovers].into_iter().filter_map(|due| Some(due.front()?.0)).min()
    }

    /// Removes and returns an eviction that is due by now.
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
            // If the membership ended again, the eviction is due at the later time.
            if let Entry::Occupied(eviction) = self.active.entry((island.clone(), address))
                && eviction.get().minted_before == minted_before
            {
                eviction.remove();
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
        let (mut evictions, start) = (PendingEvictions::default(), Instant::now());
        let (early, late) = (start + Duration::from_secs(1), start + Duration::from_secs(2));
        let token = |number: u64| Ulid::from_parts(number, 0);
        for peer in [PEER, OTHER] {
            evictions.schedule(early, &island(), peer, token(1), false);
        }
        evictions.cancel_on_join("I2".parse().unwrap(), OTHER);
        evictions.cancel_on_join(island(), PEER);
        assert_eq!((evictions.next_due(), evictions.pop_due(start)), (Some(early), None));
        // The peer left again.
        evictions.schedule(late, &island(), PEER, token(2), false);
        assert_eq!(evictions.pop_due(early), Some((island(), OTHER, token(1))));
        assert_eq!(evictions.pop_due(early), None);
        assert_eq!(evictions.pop_due(late), Some((island(), PEER, token(2))));
        assert_eq!((evictions.pop_due(late), evictions.next_due()), (None, None));
        assert!(evictions.active.is_empty());
    }

    #[test]
    fn rejoin_does_not_cancel_eviction_from_a_moved_island() {
        let (mut evictions, now) = (PendingEvictions::default(), Instant::now());
        evictions.schedule(now, &island(), PEER, Ulid::from_parts(1, 0), true);
        evictions.schedule(now, &island(), PEER, Ulid::from_parts(2, 0), false);
        evictions.cancel_on_join(island(), PEER);
        assert_eq!(evictions.pop_due(now), Some((island(), PEER, Ulid::from_parts(2, 0))));
    }

    #[test]
    fn rejoin_does_not_cancel_a_takeover_eviction() {
        let (mut evictions, start) = (PendingEvictions::default(), Instant::now());
        let due = start + Duration::from_secs(1);
        let token = |number: u64| Ulid::from_parts(number, 0);
        // The peer left, and joined again with a session that does not resume the older one.
        evictions.schedule(due, &island(), PEER, token(1), false);
        evictions.schedule_takeover(due, &island(), PEER, token(2));
        evictions.cancel_on_join(island(), PEER);
        assert_eq!((evictions.next_due(), evictions.pop_due(start)), (Some(due), None));
        // The newer session left and joined again: its own socket, with a token minted after 2, keeps its
        // seat.
        evictions.schedule(due, &island(), PEER, token(4), false);
        evictions.cancel_on_join(island(), PEER);
        assert_eq!(evictions.pop_due(due), Some((island(), PEER, token(2))));
        assert_eq!((evictions.pop_due(due), evictions.next_due()), (None, None));
    }
}
