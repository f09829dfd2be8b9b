//! The rate limits of the signals that one client sends.

use admission::Throttle;
use protocol::mesh::{Signal, signal::Content};
use tokio::time::Instant;

use super::refusal::MeshRefusal;

/// Limits the signals of one session in every dialect: negotiations and fallback messages to 100 and 256 KiB a second
/// each.
///
/// Signals do not count against the rate limit of other messages, because a member that joins sends an offer and
/// some candidates for each of its links. Negotiations above the rate are read later. Fallback messages above it are
/// dropped, because negotiations that wait behind them would time out.
#[derive(Debug)]
pub(crate) struct SignalThrottle {
    negotiations: Throttle,
    fallbacks: Throttle,
}

const SIGNALS_PER_SECOND: u32 = 100;
const SIGNAL_BYTES_PER_SECOND: u32 = 256 * 1024;

impl SignalThrottle {
    /// The limits of a client that has just connected.
    pub(crate) fn new(now: Instant) -> Self {
        let throttle = || Throttle::new(SIGNALS_PER_SECOND, SIGNAL_BYTES_PER_SECOND, now);
        Self { negotiations: throttle(), fallbacks: throttle() }
    }

    /// Charges a signal, and returns the time before which the next message must not be read.
    ///
    /// # Errors
    /// [`MeshRefusal::Rate`] for a fallback message above the rate, which must be dropped.
    pub(crate) fn charge(
        &mut self,
        signal: &Signal,
        bytes: usize,
        now: Instant,
    ) -> Result<Option<Instant>, MeshRefusal> {
        if !matches!(signal.content, Some(Content::Fallback(_))) {
            return Ok(self.negotiations.charge(bytes, now));
        }
        if self.fallbacks.wait_until(now).is_some() {
            return Err(MeshRefusal::Rate);
        }
        self.fallbacks.charge(bytes, now);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn offer() -> Signal {
        Signal { content: Some(Content::Offer(String::new())), ..Signal::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn negotiations_above_the_rate_are_delayed() {
        let now = Instant::now();
        let mut throttle = SignalThrottle::new(now);
        let mut charge = |bytes| throttle.charge(&offer(), bytes, now).unwrap();
        // The number of small signals that take no delay.
        assert_eq!((0..200).take_while(|_| charge(100).is_none()).count(), 100);
        let mut throttle = SignalThrottle::new(now);
        // The delay after twice the bytes of a second.
        let until = (0..32).fold(None, |_, _| throttle.charge(&offer(), 16 * 1024, now).unwrap()).unwrap();
        assert_eq!(until - now, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn fallback_above_the_rate_delays_no_negotiation() {
        let now = Instant::now();
        let mut throttle = SignalThrottle::new(now);
        let fallback = Signal { content: Some(Content::Fallback("a".into())), ..Signal::default() };
        let passed = (0..1_000).filter(|_| throttle.charge(&fallback, 100, now) == Ok(None)).count();
        assert_eq!(passed, 101, "a second at the rate, and the one that exceeds it");
        assert_eq!(throttle.charge(&fallback, 100, now), Err(MeshRefusal::Rate));
        assert_eq!(throttle.charge(&offer(), 100, now), Ok(None));
        assert_eq!(throttle.charge(&fallback, 100, now + Duration::from_secs(1)), Ok(None));
    }
}
