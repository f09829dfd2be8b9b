//! A token bucket of messages and bytes that delays the reading of one client.

use std::time::Duration;

use tokio::time::Instant;

/// Limits the rate at which one client is read: a token bucket that holds the messages and bytes of one
/// second.
///
/// The caller reads a client above its rate later, so that the client's own connection applies backpressure.
/// No message is lost, and other clients are not affected.
#[derive(Debug)]
pub struct Throttle {
    messages_per_second: f64,
    bytes_per_second: f64,
    /// When all messages that were charged so far would have been read at the rate.
    paid_until: Instant,
}

/// The capacity of the bucket, as time at the rate.
const BURST: Duration = Duration::from_secs(1);

impl Throttle {
    /// Creates a throttle of so many messages and bytes a second; whichever limit is reached first applies. 0
    /// counts as 1.
    pub fn new(messages_per_second: u32, bytes_per_second: u32, now: Instant) -> Self {
        Self {
            messages_per_second: f64::from(messages_per_second.max(1)),
            bytes_per_second: f64::from(bytes_per_second.max(1)),
            paid_until: now,
        }
    }

    /// A new throttle with `times` the messages and bytes a second.
    pub fn scaled(&self, times: u32, now: Instant) -> Self {
        let times = f64::from(times.max(1));
        Self {
            messages_per_second: self.messages_per_second * times,
            bytes_per_second: self.bytes_per_second * times,
            paid_until: now,
        }
    }

    /// Charges a message, and returns the time before which the next one must not be read; `None` if it may
    /// be read at once.
    pub fn charge(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.paid_until = self.paid_until.max(now) + self.cost(bytes);
        self.wait_until(now)
    }

    /// Reverses the charge of the last message, and returns the time before which the next one must not be
    /// read.
    pub fn refund(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.paid_until = self.paid_until.checked_sub(self.cost(bytes)).unwrap_or(now);
        self.wait_until(now)
    }

    fn cost(&self, bytes: usize) -> Duration {
        let cost = (1.0 / self.messages_per_second).max(bytes as f64 / self.bytes_per_second);
        Duration::from_secs_f64(cost)
    }

    /// The time before which the next message must not pass; `None` if it may pass now.
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
        let mut throttle = Throttle::new(10, 1_000, now);
        for _ in 0..10 {
            assert_eq!(throttle.charge(10, now), None);
        }
        assert!(throttle.charge(10, now).is_some_and(|until| until - now > Duration::from_millis(99)));
        let later = now + Duration::from_secs(2);
        assert_eq!(throttle.charge(1_000, later), None, "bytes count too");
        assert!(throttle.charge(500, later).is_some_and(|until| until - later > Duration::from_millis(499)));
    }

    #[test]
    fn refunded_message_costs_nothing() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut throttle = Throttle::new(10, 1_000, now);
        for _ in 0..1_000 {
            throttle.charge(50, now);
            assert_eq!(throttle.refund(50, now), None);
        }
        assert!((0..10).all(|_| throttle.charge(0, now).is_none()), "the whole burst is available");
        assert!(throttle.charge(0, now).is_some());
        assert_eq!(throttle.refund(0, now), None);
    }
}
