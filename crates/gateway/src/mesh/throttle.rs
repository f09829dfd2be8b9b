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
/// dropped, because negotiations that wait behind them would time out; a client that sends still more is read later,
/// because the frames of dropped messages count against the rate limit of other messages.
///
/// It takes memory from the first signal on, because most sessions are in no mesh.
#[derive(Debug, Default)]
pub(crate) struct SignalThrottle(Option<Box<Limits>>);

#[derive(Debug)]
struct Limits {
    negotiations: Throttle,
    fallbacks: Throttle,
}

const SIGNALS_PER_SECOND: u32 = 100;
const SIGNAL_BYTES_PER_SECOND: u32 = 256 * 1024;

impl Limits {
    fn new(now: Instant) -> Self {
        let throttle = || Throttle::new(SIGNALS_PER_SECOND, SIGNAL_BYTES_PER_SECOND, now);
        Self { negotiations: throttle(), fallbacks: throttle() }
    }
}

impl SignalThrottle {
    /// Charges the signals of one frame, each of so many bytes, and returns the time before which the next message must
    /// not be read.
    ///
    /// # Errors
    /// [`MeshRefusal::Rate`] if fallback messages are above the rate. All of them must be dropped, and none is charged.
    pub(crate) fn charge(
        &mut self,
        signals: &[Signal],
        bytes: usize,
        now: Instant,
    ) -> Result<Option<Instant>, MeshRefusal> {
        let limits = self.0.get_or_insert_with(|| Box::new(Limits::new(now)));
        let is_fallback = |signal: &Signal| matches!(signal.content, Some(Content::Fallback(_)));
        if signals.iter().any(is_fallback) && limits.fallbacks.wait_until(now).is_some() {
            return Err(MeshRefusal::Rate);
        }
        let mut read_at = None;
        for signal in signals {
            if is_fallback(signal) {
                limits.fallbacks.charge(bytes, now);
            } else {
                read_at = limits.negotiations.charge(bytes, now);
            }
        }
        Ok(read_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn offer() -> [Signal; 1] {
        [Signal { content: Some(Content::Offer(String::new())), ..Signal::default() }]
    }

    fn fallbacks<const N: usize>() -> [Signal; N] {
        [(); N].map(|()| Signal { content: Some(Content::Fallback("a".into())), ..Signal::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn negotiations_above_the_rate_are_delayed() {
        let now = Instant::now();
        let mut throttle = SignalThrottle::default();
        let mut charge = |bytes| throttle.charge(&offer(), bytes, now).unwrap();
        // The number of small signals that take no delay.
        assert_eq!((0..200).take_while(|_| charge(100).is_none()).count(), 100);
        let mut throttle = SignalThrottle::default();
        // The delay after twice the bytes of a second.
        let until = (0..32).fold(None, |_, _| throttle.charge(&offer(), 16 * 1024, now).unwrap()).unwrap();
        assert_eq!(until - now, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn fallback_above_the_rate_delays_no_negotiation() {
        let now = Instant::now();
        let mut throttle = SignalThrottle::default();
        let fallback = fallbacks::<1>();
        let passed = (0..1_000).filter(|_| throttle.charge(&fallback, 100, now) == Ok(None)).count();
        assert_eq!(passed, 101, "a second at the rate, and the one that exceeds it");
        assert_eq!(throttle.charge(&fallback, 100, now), Err(MeshRefusal::Rate));
        assert_eq!(throttle.charge(&offer(), 100, now), Ok(None));
        assert_eq!(throttle.charge(&fallback, 100, now + Duration::from_secs(1)), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_with_many_recipients_reach_the_rate() {
        let mut now = Instant::now();
        let mut throttle = SignalThrottle::default();
        let mut passed = 0;
        // Seven calls a second for sixteen recipients, for ten seconds.
        for _ in 0..70 {
            passed += 16 * usize::from(throttle.charge(&fallbacks::<16>(), 100, now).is_ok());
            now += Duration::from_secs(1) / 7;
        }
        assert!((1_000..1_130).contains(&passed), "{passed}");
    }
}
