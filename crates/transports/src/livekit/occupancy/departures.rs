//! Participants that left and rooms that were closed, so that late events do not bring them back.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// How the departure of a participant is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Evidence {
    /// Derived: a newer participant has the same identity, or a list lacks it. A later list may correct it.
    Inferred,
    /// An event reported it.
    Reported,
}

/// The ids of participants that left and of rooms that were closed, with the evidence.
///
/// An id is kept for [`RETENTION`], and at most [`CAPACITY`] ids are: the oldest is forgotten first.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures {
    by_sid: HashMap<Arc<str>, Evidence>,
    /// The same ids with the time at which they were added, the oldest first.
    in_order: VecDeque<(Instant, Arc<str>)>,
}

/// Longer than an event can be late: older tokens than five minutes are refused.
const RETENTION: Duration = Duration::from_secs(10 * 60);
/// Enough for 50 departures a second during [`RETENTION`].
pub(super) const CAPACITY: usize = 32_768;

impl Departures {
    /// Remembers an id. Stronger evidence replaces weaker one.
    pub(super) fn insert(&mut self, sid: &str, evidence: Evidence, now: Instant) {
        self.expire(now);
        if let Some(known) = self.by_sid.get_mut(sid) {
            *known = evidence.max(*known);
            return;
        }
        let sid: Arc<str> = sid.into();
        self.by_sid.insert(sid.clone(), evidence);
        self.in_order.push_back((now, sid));
    }

    /// The evidence that this participant left or this room was closed.
    pub(super) fn evidence(&self, sid: &str) -> Option<Evidence> {
        self.by_sid.get(sid).copied()
    }

    /// Forgets the ids that were kept long enough, and the oldest one if there is no space for another.
    fn expire(&mut self, now: Instant) {
        while let Some((since, sid)) = self.in_order.front()
            && (self.in_order.len() >= CAPACITY || now.saturating_duration_since(*since) > RETENTION)
        {
            self.by_sid.remove(sid);
            self.in_order.pop_front();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_by_age_and_by_number() {
        let (mut departures, start) = (Departures::default(), Instant::now());
        departures.insert("first", Evidence::Inferred, start);
        departures.insert("first", Evidence::Reported, start + RETENTION);
        assert_eq!(departures.evidence("first"), Some(Evidence::Reported), "stronger evidence");
        departures.insert("first", Evidence::Inferred, start + RETENTION);
        assert_eq!(departures.evidence("first"), Some(Evidence::Reported));
        let later = start + RETENTION + Duration::from_secs(1);
        departures.insert("second", Evidence::Inferred, later);
        assert_eq!(departures.evidence("first"), None);
        for number in 0..CAPACITY {
            departures.insert(&number.to_string(), Evidence::Reported, later);
        }
        assert_eq!((departures.len(), departures.by_sid.len()), (CAPACITY, CAPACITY));
        assert_eq!(departures.evidence("second"), None);
        assert_eq!(departures.evidence("0"), Some(Evidence::Reported));
    }
}
