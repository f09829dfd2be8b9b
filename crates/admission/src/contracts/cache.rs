use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// What tells one question from another: see `identity::ContractSignature::fingerprint`.
pub(crate) type Key = [u8; 32];

/// What contracts said lately. At the bound, what would be forgotten soonest is forgotten.
#[derive(Debug)]
pub(crate) struct Cache {
    max: usize,
    /// For how long a yes holds: owners of a wallet change.
    valid_for: Duration,
    /// For how long a no holds.
    refused_for: Duration,
    answers: HashMap<Key, Answer>,
}

#[derive(Debug)]
struct Answer {
    valid: bool,
    until: Instant,
}

impl Cache {
    /// An empty one.
    pub(crate) fn new(max: usize, valid_for: Duration, refused_for: Duration) -> Self {
        Self { max, valid_for, refused_for, answers: HashMap::new() }
    }

    /// Whether the signature was found valid, if that is still known.
    pub(crate) fn find(&self, key: &Key, now: Instant) -> Option<bool> {
        self.answers.get(key).filter(|answer| now < answer.until).map(|answer| answer.valid)
    }

    /// Remembers an answer.
    pub(crate) fn remember(&mut self, key: Key, valid: bool, now: Instant) {
        let until = now + if valid { self.valid_for } else { self.refused_for };
        if until == now || self.max == 0 {
            return;
        }
        if self.answers.len() >= self.max && !self.answers.contains_key(&key) {
            // Looking through all of them takes far less than the question did.
            let soonest = self.answers.iter().min_by_key(|(_, answer)| answer.until);
            if let Some(soonest) = soonest.map(|(&key, _)| key) {
                self.answers.remove(&soonest);
            }
        }
        self.answers.insert(key, Answer { valid, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_yes_is_known_for_longer_than_a_no() {
        let now = Instant::now();
        let mut cache = Cache::new(9, seconds(300), seconds(10));
        cache.remember([1; 32], true, now);
        cache.remember([2; 32], false, now);
        let known = |after| (cache.find(&[1; 32], now + after), cache.find(&[2; 32], now + after));
        assert_eq!(known(seconds(9)), (Some(true), Some(false)));
        assert_eq!(known(seconds(10)), (Some(true), None));
        assert_eq!(known(seconds(300)), (None, None));
        assert_eq!(cache.find(&[3; 32], now), None);
    }

    #[test]
    fn at_the_bound_what_holds_longest_stays() {
        let now = Instant::now();
        let mut cache = Cache::new(2, seconds(300), seconds(10));
        cache.remember([1; 32], true, now);
        for key in 2..100 {
            cache.remember([key; 32], false, now);
        }
        assert_eq!(cache.answers.len(), 2);
        assert_eq!(cache.find(&[1; 32], now), Some(true), "a flood of forgeries drives no wallet out");
        let mut none = Cache::new(0, seconds(300), seconds(10));
        none.remember([1; 32], true, now);
        assert_eq!(none.find(&[1; 32], now), None);
    }
}
