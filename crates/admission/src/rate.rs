//! Token buckets by key, for instance by client network.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// The rate at which an operation may be done under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, the operation is allowed once in this time.
    pub interval: Duration,
    /// Operations allowed at once, under a key that was not used for a while; at least 1.
    pub burst: u32,
}

impl Rate {
    /// `times` a second in the long run; at least once.
    pub const fn per_second(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1), times, burst)
    }

    /// `times` a minute in the long run; at least once.
    pub const fn per_minute(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(60), times, burst)
    }

    /// `times` in each `period` in the long run; at least once.
    pub const fn every(period: Duration, times: u32, burst: u32) -> Self {
        let interval = match period.checked_div(times) {
            Some(interval) => interval,
            None => period,
        };
        Self { interval, burst }
    }
}

/// A token bucket for each key, for instance for each [`Network`](crate::Network).
#[derive(Debug)]
pub struct RateLimiter<K> {
    interval: Duration,
    burst: Duration,
    max_keys: usize,
    /// The time at which each key's bucket is full again. Full buckets are removed when the table is at its
    /// bound.
    full_at: HashMap<K, Instant>,
    /// The next search for full buckets happens not before this time, because it visits all buckets.
    sweep_at: Option<Instant>,
}

/// The operation was done too often. The text may be sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateLimited {
    /// The bucket of this key is empty.
    #[error("too many sign-ins from this network, come back later")]
    PerKey,
    /// So many keys have a bucket that no other key can be counted.
    #[error("too many sign-ins, come back later")]
    TooManyKeys,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// Creates a rate limiter that counts at most `max_keys` keys at a time.
    pub fn new(rate: Rate, max_keys: usize) -> Self {
        let Rate { interval, burst } = rate;
        let burst = interval.saturating_mul(burst.max(1));
        Self { interval, burst, max_keys, full_at: HashMap::new(), sweep_at: None }
    }

    /// Counts one operation under `key`.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if the operation is above the rate; it does not count then.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), RateLimited> {
        self.reserve(key, Duration::ZERO, now).map(drop)
    }

    /// Counts one operation under `key` that may have to wait, and returns the time of its turn.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if the turn would be later than `max_wait` from now; the operation does not count
    /// then.
    pub fn reserve(&mut self, key: K, max_wait: Duration, now: Instant) -> Result<Instant, RateLimited> {
        if self.full_at.len() >= self.max_keys && !self.full_at.contains_key(&key) {
            if self.sweep_at.is_none_or(|sweep_at| sweep_at <= now) {
                self.full_at.retain(|_, full_at| *full_at > now);
                self.sweep_at = Some(now + self.interval);
            }
            if self.full_at.len() >= self.max_keys {
                return Err(RateLimited::TooManyKeys);
            }
        }
        let full_at = self.full_at.get(&key).map_or(now, |&full_at| full_at.max(now)) + self.interval;
        if full_at > now + self.burst + max_wait {
            return Err(RateLimited::PerKey);
        }
        self.full_at.insert(key, full_at);
        Ok(full_at.checked_sub(self.burst).map_or(now, |turn| turn.max(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(max: usize) -> (RateLimiter<u8>, Instant) {
        (RateLimiter::new(Rate::per_second(10, 3), max), Instant::now())
    }

    #[test]
    fn burst_passes_and_then_the_rate_applies() {
        let (mut limiter, now) = limiter(9);
        let later = |milliseconds| now + Duration::from_millis(milliseconds);
        for _ in 0..3 {
            assert_eq!(limiter.take(1, now), Ok(()));
        }
        assert_eq!(limiter.take(1, later(99)), Err(RateLimited::PerKey));
        assert_eq!(limiter.take(2, now), Ok(()), "another key");
        assert_eq!(limiter.take(1, later(100)), Ok(()));
        assert_eq!(limiter.take(1, later(100)), Err(RateLimited::PerKey));
        let after = (0..9).filter(|_| limiter.take(1, later(60_000)).is_ok()).count();
        assert_eq!(after, 3, "no more than a burst is saved up");
    }

    #[test]
    fn full_table_serves_known_keys_and_drops_full_buckets() {
        let (mut limiter, now) = limiter(2);
        assert_eq!([1, 2].map(|last| limiter.take(last, now)), [Ok(()); 2]);
        assert_eq!(limiter.take(3, now), Err(RateLimited::TooManyKeys));
        assert_eq!(limiter.take(2, now), Ok(()));
        assert_eq!(limiter.take(3, now + Duration::from_millis(100)), Ok(()));
        assert_eq!(limiter.full_at.len(), 2);
    }

    #[test]
    fn reserved_turns_are_spaced_up_to_the_longest_wait() {
        let (mut limiter, now) = limiter(9);
        let after = |milliseconds| Ok(now + Duration::from_millis(milliseconds));
        let mut reserve = || limiter.reserve(1, Duration::from_millis(200), now);
        assert_eq!([(); 5].map(|()| reserve()), [after(0), after(0), after(0), after(100), after(200)]);
        assert_eq!(reserve(), Err(RateLimited::PerKey));
    }

    #[test]
    fn rates_may_be_below_one_a_second() {
        assert_eq!(Rate::per_minute(30, 10), Rate { interval: Duration::from_secs(2), burst: 10 });
        assert_eq!(Rate::per_minute(0, 1), Rate::per_minute(1, 1));
        let (mut limiter, now) = (RateLimiter::new(Rate::per_minute(30, 1), 9), Instant::now());
        assert_eq!(limiter.take("key", now), Ok(()));
        assert_eq!(limiter.take("key", now + Duration::from_millis(1_999)), Err(RateLimited::PerKey));
        assert_eq!(limiter.take("key", now + Duration::from_secs(2)), Ok(()));
    }
}
