//! Rate limits.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: so many units a second, and a burst of the units of some seconds.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    updated: Instant,
}

impl Bucket {
    /// A full bucket. `burst`: the time in which it fills.
    pub(crate) fn new(per_second: u32, burst: Duration, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        let capacity = per_second * burst.as_secs_f64();
        Self { per_second, capacity, tokens: capacity, updated: now }
    }

    /// Whether so many units are there.
    pub(crate) fn has(&mut self, units: usize, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= units as f64
    }

    /// Takes so many units. Returns whether they were there; otherwise none is taken.
    pub(crate) fn take(&mut self, units: usize, now: Instant) -> bool {
        let is_enough = self.has(units, now);
        if is_enough {
            self.tokens -= units as f64;
        }
        is_enough
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.capacity);
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::options::{BURST, Limits};

    #[test]
    fn bucket_refuses_above_its_burst_and_refills() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, Duration::from_secs(2), start);
        assert!((0..20).all(|_| bucket.take(1, start)));
        assert!(!bucket.take(1, start));
        let later = start + Duration::from_millis(500);
        assert!((0..5).all(|_| bucket.take(1, later)));
        assert!(!bucket.take(1, later));
        assert!(!bucket.take(21, later + Duration::from_secs(60)), "above the burst");
        assert!(bucket.take(20, later + Duration::from_secs(60)));
    }

    #[test]
    fn relays_of_fifty_members_fit_the_default() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Limits::default().packets_per_second, BURST, start);
        // 50 members at 20 Hz for a minute, in the bursts of a second.
        for second in 0..60 {
            assert!((0..1_000).all(|_| bucket.take(1, start + Duration::from_secs(second))));
        }
    }
}
