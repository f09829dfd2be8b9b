use std::time::{Duration, Instant};

use bus::Bus;

/// The engine's time: since the director was made, less the time for which the bus was away. Nobody
/// is silent whom nobody could hear.
#[derive(Debug)]
pub(crate) struct EngineTime {
    started: Instant,
    /// Since when the bus is away, if it is: until it is back, this time stands still.
    away: Option<Instant>,
    /// For how long it stood still before.
    stood: Duration,
}

impl EngineTime {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), away: None, stood: Duration::ZERO }
    }

    pub(crate) fn now(&self) -> Duration {
        let until = self.away.unwrap_or_else(Instant::now);
        until.saturating_duration_since(self.started).saturating_sub(self.stood)
    }

    /// Stands still from now on if the bus is away, and goes on if it is back.
    pub(crate) fn look_at(&mut self, bus: &Bus) {
        if !bus.is_away() {
            self.stood += self.away.take().map(|since| since.elapsed()).unwrap_or_default();
        } else if self.away.is_none() {
            self.away = Some(Instant::now());
        }
    }
}
