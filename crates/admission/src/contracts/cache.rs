//! The cache of contract wallets' answers.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// The key of an answer: `identity::ContractSignature::fingerprint`.
pub(crate) type CacheKey = [u8; 32];

/// Recent answers of contracts. At the bound, the one that expires first is evicted.
#[derive(Debug)]
pub(crate) struct AnswerCache {
    max_entries: usize,
    /// How long a valid answer is cached. It is bounded because the owners of a wallet change.
    valid_ttl: Duration,
    /// How long an invalid answer is cached.
    invalid_ttl: Duration,
    answers: HashMap<CacheKey, Answer>,
}

#[derive(Debug)]
struct Answer {
    valid: bool,
    expires_at: Instant,
}

impl AnswerCache {
    /// Creates an empty cache.
    pub(crate) fn new(max_entries: usize, valid_ttl: Duration, invalid_ttl: Duration) -> Self {
        Self { max_entries, valid_ttl, invalid_ttl, answers: HashMap::new() }
    }

    /// The cached answer, if there is one that has not expired: whether the signature is valid.
    pub(crate) fn get(&self, key: &CacheKey, now: Instant) -> Option<bool> {
        self.answers.get(key).filter(|answer| now < answer.expires_at).map(|answer| answer.valid)
    }

    /// Caches an answer. A time to live or a bound of 0 turns the cache off.
    pub(crate) fn insert(&mut self, key: CacheKey, valid: bool, now: Instant) {
        let expires_at = now + if valid { self.valid_ttl } else { self.invalid_ttl };
        if expires_at == now || self.max_entries == 0 {
            return;
        }
        if self.answers.len() >= self.max_entries && !self.answers.contains_key(&key) {
            // Scanning all entries takes far less time than the call did.
            let first = self.answers.iter().min_by_key(|(_, answer)| answer.expires_at);
            if let Some(first) = first.map(|(&key, _)| key) {
                self.answers.remove(&first);
            }
        }
        self.answers.insert(key, Answer { valid, expires_at });
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
        assert_eq!(cache.get(&[1; 32], now), Some(true), "a flood of forgeries evicts no valid wallet");
        let mut none = AnswerCache::new(0, seconds(300), seconds(10));
        none.insert([1; 32], true, now);
        assert_eq!(none.get(&[1; 32], now), None);
    }
}
