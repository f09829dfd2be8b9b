use std::time::Duration;

use tokio::time::Instant;

/// Spreads what one client sends over time: a token bucket of one second's worth.
///
/// Whoever is above its rate is read more slowly, and so slowed down by its own connection:
/// nothing of it is lost, and nobody else pays.
#[derive(Debug)]
pub struct Throttle {
    messages_per_second: f64,
    bytes_per_second: f64,
    /// When what was taken in so far would have been sent, at the rate.
    paid_until: Instant,
}

const BURST: Duration = Duration::from_secs(1);

impl Throttle {
    /// A pace of so many messages and bytes a second, whichever is reached first.
    pub fn new(messages_per_second: u32, bytes_per_second: u32, now: Instant) -> Self {
        Self {
            messages_per_second: f64::from(messages_per_second.max(1)),
            bytes_per_second: f64::from(bytes_per_second.max(1)),
            paid_until: now,
        }
    }

    /// A pace of `times` as many messages and bytes a second.
    pub fn scaled(&self, times: u32, now: Instant) -> Self {
        let times = f64::from(times.max(1));
        Self {
            messages_per_second: self.messages_per_second * times,
            bytes_per_second: self.bytes_per_second * times,
            paid_until: now,
        }
    }

    /// Counts a message, and says until when to wait before the next one is read.
    pub fn charge(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.paid_until = self.paid_until.max(now) + self.cost(bytes);
        self.wait_until(now)
    }

    /// Takes the message that was counted last back off the pace, and returns until when to wait
    /// before the next one is read.
    pub fn refund(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.paid_until = self.paid_until.checked_sub(self.cost(bytes)).unwrap_or(now);
        self.wait_until(now)
    }

    fn cost(&self, bytes: usize) -> Duration {
        let cost = (1.0 / self.messages_per_second).max(bytes as f64 / self.bytes_per_second);
        Duration::from_secs_f64(cost)
    }

    /// Until when the next message has to wait; `None` if it may pass now.
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.paid_until.checked_sub(BURST).filter(|&until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_and_flood_is_delayed() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut pace = Throttle::new(10, 1_000, now);
        for _ in 0..10 {
            assert_eq!(pace.charge(10, now), None);
        }
        assert!(pace.charge(10, now).is_some_and(|until| until - now > Duration::from_millis(99)));
        let later = now + Duration::from_secs(2);
        assert_eq!(pace.charge(1_000, later), None, "bytes count too");
        assert!(pace.charge(500, later).is_some_and(|until| until - later > Duration::from_millis(499)));
    }

    #[test]
    fn refunded_message_costs_nothing() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut pace = Throttle::new(10, 1_000, now);
        for _ in 0..1_000 {
            pace.charge(50, now);
            assert_eq!(pace.refund(50, now), None);
        }
        assert!((0..10).all(|_| pace.charge(0, now).is_none()), "the burst is whole");
        assert!(pace.charge(0, now).is_some());
        assert_eq!(pace.refund(0, now), None);
    }
}
