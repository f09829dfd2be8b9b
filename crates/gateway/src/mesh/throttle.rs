//! The rate limit of the signals that one client sends.

use admission::Throttle;
use tokio::time::Instant;

/// Limits the signals of one session to 100 and 256 KiB a second, in every dialect: see [`Throttle`].
///
/// Signals do not count against the rate limit of other messages, because a member that joins sends an offer and
/// some candidates for each of its links.
#[derive(Debug)]
pub(crate) struct SignalThrottle(Throttle);

const SIGNALS_PER_SECOND: u32 = 100;
const SIGNAL_BYTES_PER_SECOND: u32 = 256 * 1024;

impl SignalThrottle {
    /// The limit of a client that has just connected.
    pub(crate) fn new(now: Instant) -> Self {
        Self(Throttle::new(SIGNALS_PER_SECOND, SIGNAL_BYTES_PER_SECOND, now))
    }

    /// Charges a signal, and returns the time before which the next message must not be read.
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.0.charge(bytes, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signals_above_the_rate_are_delayed() {
        let now = Instant::now();
        let mut throttle = SignalThrottle::new(now);
        // The number of small signals that take no delay, and the delay after twice the bytes of a second.
        assert_eq!((0..200).take_while(|_| throttle.charge(100, now).is_none()).count(), 100);
        let mut throttle = SignalThrottle::new(now);
        let until = (0..32).fold(None, |_, _| throttle.charge(16 * 1024, now)).unwrap();
        assert_eq!(until - now, Duration::from_secs(1));
    }
}
