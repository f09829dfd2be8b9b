//! The pause after the provider answered that it is called too often.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest pause, and the first one when the provider states none.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, even if the provider states a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Pauses calls after the provider answered that it is called too often (HTTP 429). That does not count as a
/// failure: the provider works, and answers again once the rate falls.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// When the latest pause began.
    paused_at: Option<Instant>,
    /// When it ends.
    resumes_at: Option<Instant>,
    /// The next pause if the provider states none.
    next_pause: Duration,
}

impl Backoff {
    /// Creates a backoff without a pause.
    pub(crate) fn new() -> Self {
        Self { paused_at: None, resumes_at: None, next_pause: MIN_PAUSE }
    }

    /// Whether calls are paused now.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.resumes_at.is_some_and(|resumes_at| now < resumes_at)
    }

    /// Begins a pause because a call that began at `started_at` was answered with "too often". The pause is as
    /// long as the provider states, within bounds, or else twice as long as the last one. Returns the pause
    /// if it is a new one: calls from before the latest pause change nothing.
    pub(crate) fn on_rate_limited(
        &mut self,
        retry_after: Option<Duration>,
        started_at: Instant,
        now: Instant,
    ) -> Option<Duration> {
        if self.paused_at.is_some_and(|paused_at| started_at <= paused_at) {
            return None;
        }
        let pause = retry_after.map_or(self.next_pause, |stated| stated.clamp(MIN_PAUSE, MAX_PAUSE));
        self.next_pause = (self.next_pause * 2).min(MAX_PAUSE);
        (self.paused_at, self.resumes_at) = (Some(now), Some(now + pause));
        Some(pause)
    }

    /// A call that began at `started_at` was answered. If it began after the pause, the next pause is the
    /// shortest one again.
    pub(crate) fn on_answered(&mut self, started_at: Instant) {
        if self.resumes_at.is_none_or(|resumes_at| resumes_at <= started_at) {
            self.next_pause = MIN_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pause_lasts_as_long_as_the_provider_names() {
        let (mut backoff, now) = (Backoff::new(), Instant::now());
        assert!(!backoff.is_active(now));
        assert_eq!(backoff.on_rate_limited(Some(seconds(7)), now, now), Some(seconds(7)));
        assert!(backoff.is_active(now + seconds(6)) && !backoff.is_active(now + seconds(7)));
        for (stated, bounded) in [(0, 1), (3_600, 60)] {
            let mut backoff = Backoff::new();
            assert_eq!(backoff.on_rate_limited(Some(seconds(stated)), now, now), Some(seconds(bounded)));
        }
    }

    #[test]
    fn unnamed_pauses_double_until_a_call_is_answered() {
        let (mut backoff, mut now) = (Backoff::new(), Instant::now());
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.on_rate_limited(None, now, now), Some(seconds(expected)));
            now += seconds(expected);
        }
        backoff.on_answered(now);
        assert_eq!(backoff.on_rate_limited(None, now, now), Some(seconds(1)));
    }

    #[test]
    fn calls_from_before_the_pause_change_nothing() {
        let (mut backoff, started_at) = (Backoff::new(), Instant::now());
        let now = started_at + seconds(1);
        assert_eq!(backoff.on_rate_limited(None, started_at, now), Some(seconds(1)));
        assert_eq!(backoff.on_rate_limited(None, started_at, now + seconds(1)), None);
        backoff.on_answered(started_at);
        assert_eq!(backoff.on_rate_limited(None, now + seconds(1), now + seconds(1)), Some(seconds(2)));
    }
}
