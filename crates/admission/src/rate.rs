use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How often something may be done under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, once in this time.
    pub interval: Duration,
    /// At once, under a key that was not used for a while; at least 1.
    pub burst: u32,
}

impl Rate {
    /// So many times a second in the long run; at least once.
    pub const fn per_second(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1), times, burst)
    }

    /// So many times a minute in the long run; at least once.
    pub const fn per_minute(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(60), times, burst)
    }

    /// So many times in each `period` in the long run; at least once.
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
    /// When each key's bucket is full again. A full bucket is removed when its place is needed.
    full_at: HashMap<K, Instant>,
    /// Full buckets are not looked for before this, because the search visits all of them.
    sweep_at: Option<Instant>,
}

/// It was done too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateLimited {
    /// From this network.
    #[error("too many people of this address are signing in, come back later")]
    PerKey,
    /// From so many networks that no other can be counted.
    #[error("too many people are signing in, come back later")]
    TooManyKeys,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// Counts at most `max` keys at a time.
    pub fn new(rate: Rate, max: usize) -> Self {
        let Rate { interval, burst } = rate;
        let burst = interval.saturating_mul(burst.max(1));
        Self { interval, burst, max_keys: max, full_at: HashMap::new(), sweep_at: None }
    }

    /// Counts one more under `key`, unless that is too many.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), RateLimited> {
        self.reserve(key, Duration::ZERO, now).map(drop)
    }

    /// Counts one more under `key` that may have to wait, and returns when its turn is; unless that is later
    /// than `max_wait` from now.
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
        assert_eq!(limiter.take(2, now), Ok(()), "another's");
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
