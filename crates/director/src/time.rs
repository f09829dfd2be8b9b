use std::time::{Duration, Instant};

/// The engine's time: since the director was made, less the time for which it could hear nobody. Nobody
/// is silent whom nobody could hear.
#[derive(Debug)]
pub(crate) struct EngineTime {
    started: Instant,
    /// Since when it stands still, if it does.
    still: Option<Instant>,
    /// For how long it stood still before.
    stood: Duration,
}

impl EngineTime {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), still: None, stood: Duration::ZERO }
    }

    pub(crate) fn now(&self) -> Duration {
        let until = self.still.unwrap_or_else(Instant::now);
        until.saturating_duration_since(self.started).saturating_sub(self.stood)
    }

    /// Stands still from now on, or goes on. Whether it has just begun to go on.
    pub(crate) fn stand(&mut self, still: bool) -> bool {
        match (still, self.still) {
            (true, None) => self.still = Some(Instant::now()),
            (false, Some(since)) => {
                self.stood += since.elapsed();
                self.still = None;
                return true;
            }
            _ => {}
        }
        false
    }

    /// Has stood still for the last so much time, whether it did or not.
    pub(crate) fn skip(&mut self, time: Duration) {
        if self.still.is_none() {
            self.stood += time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_and_goes_on_where_it_stood() {
        let mut time = EngineTime::new();
        assert!(!time.stand(false), "it goes already");
        assert!(!time.stand(true));
        let stood = time.now();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(time.now(), stood);
        assert!(!time.stand(true));
        assert!(time.stand(false));
        assert!(time.now() < stood + Duration::from_millis(5));
        let before = time.now();
        time.skip(Duration::from_secs(60));
        assert!(time.now() < before, "a clock that was stopped for a minute stood still");
    }
}
