use std::time::Duration;

use tokio::time::Instant;

/// The shortest pause, and the first one where the provider names none.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, whatever the provider names.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Pauses the questions after the provider answered that it is asked too often (HTTP 429). That is no
/// failure: the provider works, and answers again once the rate falls.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// When the latest pause began and ended.
    paused_at: Option<Instant>,
    resumes_at: Option<Instant>,
    /// The next pause where the provider names none.
    next_pause: Duration,
}

impl Backoff {
    /// No pause yet.
    pub(crate) fn new() -> Self {
        Self { paused_at: None, resumes_at: None, next_pause: MIN_PAUSE }
    }

    /// Whether no question may be asked now.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.resumes_at.is_some_and(|until| now < until)
    }

    /// A question that was asked at `asked` was answered with "too often". Pauses for as long as the
    /// provider names, within bounds, or else for twice as long as the last time. Returns the pause, if
    /// it is a new one: what was asked before the latest pause changes nothing.
    pub(crate) fn on_rate_limited(
        &mut self,
        retry_after: Option<Duration>,
        asked: Instant,
        now: Instant,
    ) -> Option<Duration> {
        if self.paused_at.is_some_and(|since| asked <= since) {
            return None;
        }
        let pause = retry_after.map_or(self.next_pause, |named| named.clamp(MIN_PAUSE, MAX_PAUSE));
        self.next_pause = (self.next_pause * 2).min(MAX_PAUSE);
        (self.paused_at, self.resumes_at) = (Some(now), Some(now + pause));
        Some(pause)
    }

    /// A question was answered.
    pub(crate) fn on_answered(&mut self, asked: Instant) {
        if self.resumes_at.is_none_or(|until| until <= asked) {
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
        for (named, bounded) in [(0, 1), (3_600, 60)] {
            let mut backoff = Backoff::new();
            assert_eq!(backoff.on_rate_limited(Some(seconds(named)), now, now), Some(seconds(bounded)));
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
        let (mut backoff, asked) = (Backoff::new(), Instant::now());
        let now = asked + seconds(1);
        assert_eq!(backoff.on_rate_limited(None, asked, now), Some(seconds(1)));
        assert_eq!(backoff.on_rate_limited(None, asked, now + seconds(1)), None);
        backoff.on_answered(asked);
        assert_eq!(backoff.on_rate_limited(None, now + seconds(1), now + seconds(1)), Some(seconds(2)));
    }
}
