//! The engine's clock, which can be paused.

use std::time::{Duration, Instant, SystemTime};

use protocol::unix_ms;

/// The time since the director was created, without the time in which it could receive no messages. A peer
/// must not time out because its heartbeats could not be received.
#[derive(Debug)]
pub(crate) struct PausableClock {
    started: Instant,
    /// Since when the clock is paused; `None` while it runs.
    paused_since: Option<Instant>,
    /// The length of earlier pauses.
    paused_total: Duration,
}

impl PausableClock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), paused_since: None, paused_total: Duration::ZERO }
    }

    pub(crate) fn now(&self) -> Duration {
        let until = self.paused_since.unwrap_or_else(Instant::now);
        until.saturating_duration_since(self.started).saturating_sub(self.paused_total)
    }

    /// Pauses or resumes the clock. Returns whether this call resumed it.
    pub(crate) fn set_paused(&mut self, paused: bool) -> bool {
        match (paused, self.paused_since) {
            (true, None) => self.paused_since = Some(Instant::now()),
            (false, Some(since)) => {
                self.paused_total += since.elapsed();
                self.paused_since = None;
                return true;
            }
            _ => {}
        }
        false
    }

    /// Takes `duration` off the clock, as if it had been paused for that long. Ignored while it is paused.
    pub(crate) fn skip(&mut self, duration: Duration) {
        if self.paused_since.is_none() {
            self.paused_total += duration;
        }
    }
}

/// The time of day, in minutes since midnight, UTC.
pub(crate) fn minute_of_day() -> u16 {
    const MINUTE_MS: u64 = 60_000;
    const DAY_MINUTES: u64 = 24 * 60;
    (unix_ms(SystemTime::now()) / MINUTE_MS % DAY_MINUTES) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_pauses_and_resumes_where_it_stopped() {
        let mut clock = PausableClock::new();
        assert!(!clock.set_paused(false), "it runs already");
        assert!(!clock.set_paused(true));
        let paused_at = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clock.now(), paused_at);
        assert!(!clock.set_paused(true));
        assert!(clock.set_paused(false));
        assert!(clock.now() < paused_at + Duration::from_millis(5));
        let before = clock.now();
        clock.skip(Duration::from_secs(60));
        assert!(clock.now() < before, "a pause of a minute does not count");
    }
}
