//! A frame reader that applies the rate limits of one client.

use admission::Throttle;
use tokio::{
    io::AsyncRead,
    time::{self, Instant},
};
use ws::{FrameReader, ReadError, Received};

/// Reads the frames of one client within its rate limits, from the first frame on.
///
/// Every frame counts, with or without data, so that no kind of frame evades the limits. A frame must be read
/// before it is known whether it may be dropped, so there are two limits. A frame that must not be dropped
/// waits until the rate allows it ([`Self::acquire`]), and the next one is not read meanwhile; one that may
/// be dropped is dropped instead ([`Self::try_acquire`]). All frames together are read no faster than
/// [`READ_FACTOR`] times the rate, so that a flood of dropped frames costs a bounded share of a core; above
/// that the client's own connection applies backpressure.
#[derive(Debug)]
pub(crate) struct ThrottledReader<R> {
    reader: FrameReader<R>,
    throttle: Throttle,
    /// The limit of all frames that are read, including those that are dropped.
    read_throttle: Throttle,
    /// The time before which the next frame must not be read; `None` if it may be read at once.
    read_at: Option<Instant>,
    /// When the last frame was read, or the last wait for the rate ended.
    active_at: Instant,
}

/// All frames of a client are read at up to this many times its rate: a dropped frame costs a tenth of a
/// delivered one.
pub(crate) const READ_FACTOR: u32 = 10;

impl<R: AsyncRead + Unpin> ThrottledReader<R> {
    pub(crate) fn new(stream: R, throttle: Throttle) -> Self {
        let (reader, now) = (FrameReader::new(stream, protocol::MAX_MESSAGE_BYTES), Instant::now());
        let read_throttle = throttle.scaled(READ_FACTOR, now);
        Self { reader, throttle, read_throttle, read_at: None, active_at: now }
    }

    /// Reads the next frame, not before the read limit allows it. The caller then acquires the rate for it,
    /// or drops it. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Received, ReadError> {
        if let Some(at) = self.read_at {
            time::sleep_until(at).await;
            self.active_at = self.active_at.max(at);
            self.read_at = None;
        }
        let received = self.reader.next().await?;
        self.active_at = Instant::now();
        self.read_at = self.read_throttle.charge(charged_bytes(&received), self.active_at);
        Ok(received)
    }

    /// Reads the next frame and waits until the rate allows it. Not cancel-safe.
    pub(crate) async fn next_throttled(&mut self) -> Result<Received, ReadError> {
        let received = self.next().await?;
        self.acquire(charged_bytes(&received)).await;
        Ok(received)
    }

    /// Waits until the rate allows a frame with `bytes` of payload, and charges it.
    pub(crate) async fn acquire(&mut self, bytes: usize) {
        if let Some(at) = self.throttle.wait_until(Instant::now()) {
            time::sleep_until(at).await;
            self.active_at = at;
        }
        self.throttle.charge(bytes, Instant::now());
    }

    /// Charges a frame with `bytes` of payload if the rate allows it now; returns whether it does.
    pub(crate) fn try_acquire(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let is_allowed = self.throttle.wait_until(now).is_none();
        if is_allowed {
            self.throttle.charge(bytes, now);
        }
        is_allowed
    }

    /// The time until which the client counts as active: when bytes or frames were last read, or, while the
    /// read limit delays the next read, the end of that delay. Unread bytes in the socket do not count as
    /// silence of the client.
    pub(crate) fn active_until(&self) -> Instant {
        self.active_at.max(self.reader.last_read_at()).max(self.read_at.unwrap_or(self.active_at))
    }

    /// Reads and discards until the client has closed the connection; see [`FrameReader::drain`].
    pub(crate) async fn drain(&mut self) {
        self.reader.drain().await;
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
mod tests;
