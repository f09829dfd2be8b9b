//! The participants and rooms to remove, and when. No I/O.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::Duration,
};

use protocol::{IslandId, NodeName, unix_ms};
use tokio::time::Instant;

use super::command::RoomChanges;

/// Removals that are due later, each once.
#[derive(Debug, Default)]
pub(super) struct Removals {
    due: BTreeMap<(Instant, u64), Removal>,
    by_target: HashMap<(IslandId, Target), (Instant, u64)>,
    /// Distinguishes removals that are due at the same time.
    next: u64,
}

/// A removal. Whether it is still right is decided when it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) island: IslandId,
    pub(super) target: Target,
    /// Remove a participant also if it is a member, but only this older connection.
    pub(super) replaced: Option<Replaced>,
    /// How often it has failed.
    pub(super) failures: u32,
}

/// The connection of a session that a newer session replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replaced {
    /// The participant with this sid.
    Sid(String),
    /// Its sid is not known; it joined before this time, in milliseconds since the Unix epoch.
    Before(u64),
}

/// The target of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The participant with this identity.
    Participant(String),
    /// The room.
    Room,
}

/// Removals that can wait. Beyond, none is scheduled; the next reconciliation finds the participants.
const MAX_REMOVALS: usize = 65_536;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl Removals {
    /// Schedules a removal. It replaces an earlier one of the same target: a peer that leaves again has a new grace.
    /// Returns `false` if too many wait.
    pub(super) fn schedule(&mut self, removal: Removal, at: Instant) -> bool {
        let key = (at, self.next);
        let is_full = self.due.len() >= MAX_REMOVALS;
        match self.by_target.entry((removal.island.clone(), removal.target.clone())) {
            Entry::Occupied(mut entry) => drop(self.due.remove(&entry.insert(key))),
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(entry) => drop(entry.insert(key)),
        }
        self.next += 1;
        self.due.insert(key, removal);
        true
    }

    /// Schedules the removals that the changes of a flush require on this node at `at`, in known rooms. `sid_of` returns
    /// the sid of the participant with an identity in the room of an island.
    pub(super) fn schedule_ended(
        &mut self,
        changes: &RoomChanges,
        node: &NodeName,
        is_known: impl Fn(&IslandId) -> bool,
        sid_of: impl Fn(&IslandId, &str) -> Option<String>,
        at: Instant,
    ) {
        let RoomChanges { ended, taken_over, closed, published_at, .. } = changes;
        let is_here = |at_node: &Option<NodeName>| at_node.as_ref().is_none_or(|at_node| at_node == node);
        for (island, at_node, peers) in
            ended.iter().filter(|(island, at_node, _)| is_here(at_node) && is_known(island))
        {
            for peer in peers {
                self.schedule(Removal::participant(island.clone(), peer.to_string()), at);
            }
            // The island moved to another node.
            if at_node.is_some() {
                self.schedule(Removal::room(island.clone()), at);
            }
        }
        let before = Replaced::Before(unix_ms(*published_at));
        for (island, peers) in taken_over.iter().filter(|(island, _)| is_known(island)) {
            for peer in peers {
                let removal = Removal::participant(island.clone(), peer.to_string());
                let sid = sid_of(island, &peer.to_string());
                let replaced = Some(sid.map_or(before.clone(), Replaced::Sid));
                self.schedule(Removal { replaced, ..removal }, at);
            }
        }
        for island in closed.iter().filter(|island| is_known(island)) {
            self.schedule(Removal::room(island.clone()), at);
        }
    }

    /// Schedules a failed removal again, after a backoff, unless it was scheduled meanwhile.
    pub(super) fn retry(&mut self, mut removal: Removal, now: Instant) {
        if !self.is_scheduled(&removal.island, &removal.target) {
            let backoff = FIRST_BACKOFF.saturating_mul(1 << removal.failures.min(16)).min(MAX_BACKOFF);
            removal.failures = removal.failures.saturating_add(1);
            self.schedule(removal, now + backoff);
        }
    }

    /// Cancels a removal.
    pub(super) fn cancel(&mut self, island: &IslandId, target: &Target) {
        if let Some(key) = self.by_target.remove(&(island.clone(), target.clone())) {
            self.due.remove(&key);
        }
    }

    pub(super) fn is_scheduled(&self, island: &IslandId, target: &Target) -> bool {
        self.by_target.contains_key(&(island.clone(), target.clone()))
    }

    /// When the next removal is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Takes the earliest removal that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Removal> {
        let (&key, _) = self.due.first_key_value().filter(|((at, _), _)| *at <= now)?;
        let removal = self.due.remove(&key)?;
        self.by_target.remove(&(removal.island.clone(), removal.target.clone()));
        Some(removal)
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.by_target.clear();
    }
}

impl Removal {
    /// The removal of a participant that is no member any more.
    pub(super) fn participant(island: IslandId, identity: String) -> Self {
        Self { island, target: Target::Participant(identity), replaced: None, failures: 0 }
    }

    /// The removal of the room of an island that ended or moved away.
    pub(super) fn room(island: IslandId) -> Self {
        Self { island, target: Target::Room, replaced: None, failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn removal(identity: &str) -> Removal {
        Removal::participant("I1".parse().unwrap(), identity.to_owned())
    }

    fn identities(removals: &mut Removals, now: Instant) -> Vec<Target> {
        std::iter::from_fn(|| removals.take_due(now)).map(|removal| removal.target).collect()
    }

    #[test]
    fn removals_are_taken_in_the_order_of_their_time() {
        let (mut removals, now) = (Removals::default(), Instant::now());
        for (identity, seconds) in [("c", 3), ("a", 1), ("b", 1)] {
            assert!(removals.schedule(removal(identity), now + seconds * SECOND));
        }
        assert_eq!(removals.next_due(), Some(now + SECOND));
        assert_eq!(removals.take_due(now), None);
        let first = ["a", "b"].map(|identity| removal(identity).target);
        assert_eq!(identities(&mut removals, now + 2 * SECOND), first);
        assert_eq!(removals.next_due(), Some(now + 3 * SECOND));
    }

    #[test]
    fn later_removal_of_the_same_target_replaces_the_earlier() {
        let (mut removals, now) = (Removals::default(), Instant::now());
        removals.schedule(removal("a"), now + SECOND);
        removals.schedule(removal("a"), now + 5 * SECOND);
        assert_eq!(identities(&mut removals, now + 4 * SECOND), []);
        assert_eq!(identities(&mut removals, now + 5 * SECOND).len(), 1);
        assert!(!removals.is_scheduled(&"I1".parse().unwrap(), &removal("a").target));
    }

    #[test]
    fn failed_removal_is_retried_after_a_growing_backoff() {
        let (mut removals, mut now) = (Removals::default(), Instant::now());
        let mut failed = removal("a");
        let mut waits = Vec::new();
        for _ in 0..8 {
            removals.retry(failed, now);
            let due = removals.next_due().unwrap();
            waits.push((due - now).as_millis());
            now = due;
            failed = removals.take_due(now).unwrap();
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        removals.schedule(removal("a"), now);
        removals.retry(failed, now);
        assert_eq!(removals.take_due(now).map(|removal| removal.failures), Some(0), "the newer one counts");
        assert_eq!(removals.next_due(), None);
    }

    #[test]
    fn removals_are_bounded() {
        let (mut removals, now) = (Removals::default(), Instant::now());
        for index in 0..MAX_REMOVALS {
            assert!(removals.schedule(removal(&index.to_string()), now));
        }
        assert!(!removals.schedule(removal("more"), now));
        assert!(removals.schedule(removal("7"), now + SECOND), "known targets are rescheduled");
    }
}
