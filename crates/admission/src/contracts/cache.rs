use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// What tells one question from another: see `identity::ContractSignature::fingerprint`.
pub(crate) type CacheKey = [u8; 32];

/// What contracts said lately. At the bound, what would be forgotten soonest is forgotten.
#[derive(Debug)]
pub(crate) struct AnswerCache {
    max_entries: usize,
    /// For how long a yes holds: owners of a wallet change.
    valid_ttl: Duration,
    /// For how long a no holds.
    invalid_ttl: Duration,
    answers: HashMap<CacheKey, Answer>,
}

#[derive(Debug)]
struct Answer {
    valid: bool,
    expires_at: Instant,
}

impl AnswerCache {
    /// An empty one.
    pub(crate) fn new(max: usize, valid_for: Duration, refused_for: Duration) -> Self {
        Self { max_entries: max, valid_ttl: valid_for, invalid_ttl: refused_for, answers: HashMap::new() }
    }

    /// Whether the signature was found valid, if that is still known.
    pub(crate) fn get(&self, key: &CacheKey, now: Instant) -> Option<bool> {
        self.answers.get(key).filter(|answer| now < answer.expires_at).map(|answer| answer.valid)
    }

    /// Remembers an answer.
    pub(crate) fn insert(&mut self, key: CacheKey, valid: bool, now: Instant) {
        let until = now + if valid { self.valid_ttl } else { self.invalid_ttl };
        if until == now || self.max_entries == 0 {
            return;
        }
        if self.answers.len() >= self.max_entries && !self.answers.contains_key(&key) {
            // Looking through all of them takes far less than the question did.
            let soonest = self.answers.iter().min_by_key(|(_, answer)| answer.expires_at);
            if let Some(soonest) = soonest.map(|(&key, _)| key) {
                self.answers.remove(&soonest);
            }
        }
        self.answers.insert(key, Answer { valid, expires_at: until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn valid_answer_is_cached_for_longer_than_invalid() {
        let now = Instant::now();
        let mut cache = AnswerCache::new(9, seconds(300), seconds(10));
        cache.insert([1; 32], true, now);
        cache.insert([2; 32], false, now);
        let known = |after| (cache.get(&[1; 32], now + after), cache.get(&[2; 32], now + after));
        assert_eq!(known(seconds(9)), (Some(true), Some(false)));
        assert_eq!(known(seconds(10)), (Some(true), None));
        assert_eq!(known(seconds(300)), (None, None));
        assert_eq!(cache.get(&[3; 32], now), None);
    }

    #[test]
    fn full_cache_evicts_the_entry_that_expires_first() {
        let now = Instant::now();
        let mut cache = AnswerCache::new(2, seconds(300), seconds(10));
        cache.insert([1; 32], true, now);
        for key in 2..100 {
            cache.insert([key; 32], false, now);
        }
        assert_eq!(cache.answers.len(), 2);
        assert_eq!(cache.get(&[1; 32], now), Some(true), "a flood of forgeries drives no wallet out");
        let mut none = AnswerCache::new(0, seconds(300), seconds(10));
        none.insert([1; 32], true, now);
        assert_eq!(none.get(&[1; 32], now), None);
    }
}
