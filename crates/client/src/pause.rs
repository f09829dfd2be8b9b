use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// Pauses between tries: each up to twice as long as the one before, up to a bound, and of each a
/// random quarter to whole, so that a crowd that lost its server does not come back all at once.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    next: Duration,
    longest: Duration,
    /// When the last try went well.
    since: Option<Instant>,
}

const FIRST: Duration = Duration::from_millis(500);
/// What holds for so long was no fluke: the pauses begin anew. A server that takes people in and
/// drops them again meets ever longer pauses.
const STABLE: Duration = Duration::from_secs(10);
/// No server has more of a say than that.
pub(crate) const LONGEST_ASKED_FOR: Duration = Duration::from_secs(600);

impl Pause {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { next: FIRST.min(longest), longest, since: None }
    }

    /// The last try went well.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// How long to wait before the next try: no less than the server asked for, if it did.
    pub(crate) fn next(&mut self, asked_for: Option<Duration>, now: Instant) -> Duration {
        if self.since.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            *self = Self::new(self.longest);
        }
        let jittered = self.next.mul_f64(rand::rng().random_range(0.25..1.0));
        self.next = (self.next * 2).min(self.longest);
        asked_for.unwrap_or_default().min(LONGEST_ASKED_FOR) + jittered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let (mut pause, now) = (Pause::new(Duration::from_secs(1)), Instant::now());
        for full in [500, 1_000, 1_000].map(Duration::from_millis) {
            assert!((full / 4..=full).contains(&pause.next(None, now)));
        }
    }

    #[test]
    fn they_begin_anew_only_after_what_lasted() {
        let (mut pause, now) = (Pause::new(Duration::from_secs(60)), Instant::now());
        for _ in 0..10 {
            pause.succeeded(now);
            pause.next(None, now + STABLE - Duration::from_millis(1));
        }
        assert!(pause.next(None, now) >= Duration::from_secs(15), "a server that drops everybody");
        pause.succeeded(now);
        assert!(pause.next(None, now + STABLE) <= FIRST);
    }

    #[test]
    fn no_pause_is_shorter_than_the_server_asks_for_or_endless() {
        let (mut pause, now) = (Pause::new(Duration::from_secs(1)), Instant::now());
        assert!(pause.next(Some(Duration::from_secs(7)), now) > Duration::from_secs(7));
        assert!(pause.next(Some(Duration::MAX), now) <= LONGEST_ASKED_FOR + Duration::from_secs(1));
    }
}
