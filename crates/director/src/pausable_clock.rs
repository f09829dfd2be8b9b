use std::time::{Duration, Instant};

/// The engine's time: since the director was made, less the time for which it could hear nobody. Nobody
/// is silent whom nobody could hear.
#[derive(Debug)]
pub(crate) struct PausableClock {
    started: Instant,
    /// Since when it stands still, if it does.
    paused_since: Option<Instant>,
    /// For how long it stood still before.
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

    /// Stands still from now on, or goes on. Whether it has just begun to go on.
    pub(crate) fn set_paused(&mut self, still: bool) -> bool {
        match (still, self.paused_since) {
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

    /// Has stood still for the last so much time, whether it did or not.
    pub(crate) fn skip(&mut self, time: Duration) {
        if self.paused_since.is_none() {
            self.paused_total += time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_pauses_and_resumes_where_it_stopped() {
        let mut time = PausableClock::new();
        assert!(!time.set_paused(false), "it goes already");
        assert!(!time.set_paused(true));
        let stood = time.now();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(time.now(), stood);
        assert!(!time.set_paused(true));
        assert!(time.set_paused(false));
        assert!(time.now() < stood + Duration::from_millis(5));
        let before = time.now();
        time.skip(Duration::from_secs(60));
        assert!(time.now() < before, "a clock that was stopped for a minute stood still");
    }
}
