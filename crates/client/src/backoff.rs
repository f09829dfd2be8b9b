//! The growing, jittered delay between connection attempts.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// An exponential backoff with jitter. The ceiling of the delay doubles with each attempt, up to a maximum;
/// each delay is a random quarter to whole of its ceiling, so that many clients that lost their server do not
/// reconnect all at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next_delay: Duration,
    max_delay: Duration,
    /// The time of the last success, until the connection is lost.
    connected_at: Option<Instant>,
}

const INITIAL_DELAY: Duration = Duration::from_millis(500);
/// A connection that lasts this long resets the backoff. A server that accepts clients and drops them again
/// soon meets ever longer delays.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// The upper bound of a `Retry-After` from a server.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

impl Backoff {
    pub(crate) fn new(max_delay: Duration) -> Self {
        Self { next_delay: INITIAL_DELAY.min(max_delay), max_delay, connected_at: None }
    }

    /// The last attempt succeeded.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// The delay before the next attempt: the `Retry-After` of the server, if any, plus the jittered backoff.
    pub(crate) fn next_delay(&mut self, retry_after: Option<Duration>, now: Instant) -> Duration {
        if self.connected_at.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE_AFTER)
        {
            *self = Self::new(self.max_delay);
        }
        let jittered = self.next_delay.mul_f64(rand::rng().random_range(0.25..1.0));
        self.next_delay = (self.next_delay * 2).min(self.max_delay);
        retry_after.unwrap_or_default().min(MAX_RETRY_AFTER) + jittered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let (mut backoff, now) = (Backoff::new(Duration::from_secs(1)), Instant::now());
        for ceiling in [500, 1_000, 1_000].map(Duration::from_millis) {
            assert!((ceiling / 4..=ceiling).contains(&backoff.next_delay(None, now)));
        }
    }

    #[test]
    fn delays_restart_only_after_a_stable_connection() {
        let (mut backoff, now) = (Backoff::new(Duration::from_secs(60)), Instant::now());
        for _ in 0..10 {
            backoff.succeeded(now);
            backoff.next_delay(None, now + STABLE_AFTER - Duration::from_millis(1));
        }
        assert!(backoff.next_delay(None, now) >= Duration::from_secs(15), "a server that drops every client");
        backoff.succeeded(now);
        assert!(backoff.next_delay(None, now + STABLE_AFTER) <= INITIAL_DELAY);
    }

    #[test]
    fn delay_respects_retry_after_up_to_its_maximum() {
        let (mut backoff, now) = (Backoff::new(Duration::from_secs(1)), Instant::now());
        assert!(backoff.next_delay(Some(Duration::from_secs(7)), now) > Duration::from_secs(7));
        assert!(backoff.next_delay(Some(Duration::MAX), now) <= MAX_RETRY_AFTER + Duration::from_secs(1));
    }
}
