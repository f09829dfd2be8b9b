//! The participants and rooms to remove, and when. No I/O.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::Duration,
};

use protocol::IslandId;
use tokio::time::Instant;

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
    /// Remove a participant also if it is a member, but only a connection from before this time, in milliseconds
    /// since the Unix epoch: a newer session replaced that of the connection.
    pub(super) replaced_at_ms: Option<u64>,
    /// How often it has failed.
    pub(super) failures: u32,
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
    /// Schedules a removal. It replaces an earlier one of the same target: whoever left again has a new grace.
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

    /// Schedules a failed removal again, after a backoff, unless it was scheduled meanwhile.
    pub(super) fn retry(&mut self, mut removal: Removal, now: Instant) {
        if !self.is_scheduled(&removal.island, &removal.target) {
            let backoff = FIRST_BACKOFF.saturating_mul(1 << removal.failures.min(16)).min(MAX_BACKOFF);
            removal.failures = removal.failures.saturating_add(1);
            self.schedule(removal, now + backoff);
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
        Self { island, target: Target::Participant(identity), replaced_at_ms: None, failures: 0 }
    }

    /// The removal of the room of an island that ended or moved away.
    pub(super) fn room(island: IslandId) -> Self {
        Self { island, target: Target::Room, replaced_at_ms: None, failures: 0 }
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
