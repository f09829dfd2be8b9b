use std::time::Duration;

use tokio::time::Instant;

/// The shortest pause, and the first one where the provider names none.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause, whatever the provider names.
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses the questions after the provider answered that it is asked too often (HTTP 429). That is no
/// failure: the provider works, and answers again once the rate falls.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// When the latest pause began and ended.
    since: Option<Instant>,
    until: Option<Instant>,
    /// The next pause where the provider names none.
    next: Duration,
}

impl Backoff {
    /// No pause yet.
    pub(crate) fn new() -> Self {
        Self { since: None, until: None, next: SHORTEST }
    }

    /// Whether no question may be asked now.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// A question that was asked at `asked` was answered with "too often". Pauses for as long as the
    /// provider names, within bounds, or else for twice as long as the last time. Returns the pause, if
    /// it is a new one: what was asked before the latest pause changes nothing.
    pub(crate) fn limited(
        &mut self,
        retry_after: Option<Duration>,
        asked: Instant,
        now: Instant,
    ) -> Option<Duration> {
        if self.since.is_some_and(|since| asked <= since) {
            return None;
        }
        let pause = retry_after.map_or(self.next, |named| named.clamp(SHORTEST, LONGEST));
        self.next = (self.next * 2).min(LONGEST);
        (self.since, self.until) = (Some(now), Some(now + pause));
        Some(pause)
    }

    /// A question was answered.
    pub(crate) fn answered(&mut self, asked: Instant) {
        if self.until.is_none_or(|until| until <= asked) {
            self.next = SHORTEST;
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
        assert!(!backoff.holds(now));
        assert_eq!(backoff.limited(Some(seconds(7)), now, now), Some(seconds(7)));
        assert!(backoff.holds(now + seconds(6)) && !backoff.holds(now + seconds(7)));
        for (named, bounded) in [(0, 1), (3_600, 60)] {
            let mut backoff = Backoff::new();
            assert_eq!(backoff.limited(Some(seconds(named)), now, now), Some(seconds(bounded)));
        }
    }

    #[test]
    fn unnamed_pauses_double_until_a_question_is_answered() {
        let (mut backoff, mut now) = (Backoff::new(), Instant::now());
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.limited(None, now, now), Some(seconds(expected)));
            now += seconds(expected);
        }
        backoff.answered(now);
        assert_eq!(backoff.limited(None, now, now), Some(seconds(1)));
    }

    #[test]
    fn questions_of_before_the_pause_change_nothing() {
        let (mut backoff, asked) = (Backoff::new(), Instant::now());
        let now = asked + seconds(1);
        assert_eq!(backoff.limited(None, asked, now), Some(seconds(1)));
        assert_eq!(backoff.limited(None, asked, now + seconds(1)), None);
        backoff.answered(asked);
        assert_eq!(backoff.limited(None, now + seconds(1), now + seconds(1)), Some(seconds(2)));
    }
}
