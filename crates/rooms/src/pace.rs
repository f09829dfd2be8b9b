//! The rate limits of one client.

use admission::Throttle;
use tokio::time::Instant;
use ws::Received;

/// Decides when frames of one client may be read, and when they may pass.
///
/// Every frame counts, with or without data, so that no kind of frame evades the limits. A frame must be read
/// before it is known whether it may be dropped, so there are two limits. A frame that must not be dropped
/// waits until the rate allows it, and the next one is not read meanwhile; one that may be dropped is dropped
/// instead. All frames together are read no faster than [`READ_FACTOR`] times the rate, so that a flood of
/// dropped frames costs a bounded share of a core; above that the client's own connection applies
/// backpressure.
#[derive(Debug)]
pub(crate) struct Pace {
    throttle: Throttle,
    /// The limit of all frames that are read, including those that are dropped.
    read_throttle: Throttle,
    /// The time before which the next frame must not be read, if the last one was above the limit.
    read_at: Option<Instant>,
    /// When the last frame was read, or the end of the last wait for the rate.
    active_at: Instant,
}

/// All frames of a client are read at up to this many times its rate: a dropped frame costs a tenth of a
/// delivered one.
pub(crate) const READ_FACTOR: u32 = 10;

impl Pace {
    pub(crate) fn new(throttle: Throttle, now: Instant) -> Self {
        let read_throttle = throttle.scaled(READ_FACTOR, now);
        Self { throttle, read_throttle, read_at: None, active_at: now }
    }

    /// The time at which the next frame may be read; `None` if it may be read now.
    pub(crate) fn read_at(&self, now: Instant) -> Option<Instant> {
        self.read_at.filter(|&at| at > now)
    }

    /// Charges a frame that was read to the limit of all frames.
    pub(crate) fn record(&mut self, received: &Received, now: Instant) {
        self.active_at = now;
        self.read_at = self.read_throttle.charge(charged_bytes(received), now);
    }

    /// Charges a frame with `bytes` of payload if the rate allows it now.
    ///
    /// # Errors
    ///
    /// The time at which the rate allows it.
    pub(crate) fn try_acquire(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        match self.throttle.wait_until(now) {
            Some(at) => Err(at),
            None => {
                self.throttle.charge(bytes, now);
                Ok(())
            }
        }
    }

    /// As [`Self::try_acquire`], for a frame that waits if the rate does not allow it now.
    ///
    /// # Errors
    ///
    /// The time at which to try again.
    pub(crate) fn acquire(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.try_acquire(bytes, now).inspect_err(|&at| self.active_at = at)
    }

    /// The time until which the client counts as active: when bytes or frames were last read, or, while a
    /// limit delays the next read, the end of that delay. Unread bytes in the socket do not count as silence
    /// of the client.
    pub(crate) fn active_until(&self, last_read_at: Instant) -> Instant {
        self.active_at.max(last_read_at).max(self.read_at.unwrap_or(self.active_at))
    }
}

/// The payload bytes that are charged for a frame. The frame itself is charged as one message.
pub(crate) fn charged_bytes(received: &Received) -> usize {
    match received {
        Received::Binary(message) => message.len(),
        _ => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests;
