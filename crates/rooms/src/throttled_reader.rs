use admission::Throttle;
use tokio::{
    io::AsyncRead,
    time::{self, Instant},
};
use ws::{FrameReader, ReadError, Received};

/// Reads the frames of one client, and holds them to its pace, from its first frame on.
///
/// Every frame counts, with or without data, so that no kind of frame is a way around the pace. A frame has to be
/// read before it is known whether it may be dropped. So there are two bounds: a frame that must not be dropped
/// waits for its turn ([`Self::acquire`]), and the next one is not read meanwhile; one that may be dropped is, instead
/// of waiting ([`Self::try_acquire`]). All frames together are read no faster than [`READ_FACTOR`] times the rate,
/// so that a flood of frames that are dropped costs a bounded share of a core; above that the client's own
/// connection fills up.
#[derive(Debug)]
pub(crate) struct ThrottledReader<R> {
    reader: FrameReader<R>,
    throttle: Throttle,
    /// The bound of all frames that are read.
    read_throttle: Throttle,
    /// When the next frame may be read, if that is not now.
    read_at: Option<Instant>,
    /// When the last frame was taken, or the last wait ended.
    active_at: Instant,
}

/// How many times the rate of a client is read of it: a dropped frame costs a tenth of a delivered one.
pub(crate) const READ_FACTOR: u32 = 10;

impl<R: AsyncRead + Unpin> ThrottledReader<R> {
    pub(crate) fn new(stream: R, pace: Throttle) -> Self {
        let (reader, now) = (FrameReader::new(stream, protocol::MAX_MESSAGE_BYTES), Instant::now());
        let reads = pace.scaled(READ_FACTOR, now);
        Self { reader, throttle: pace, read_throttle: reads, read_at: None, active_at: now }
    }

    /// Reads the next frame, not before the read bound allows it. The caller then lets it pass, or drops it.
    /// Cancel-safe.
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

    /// Reads the next frame and lets it pass. Not cancel-safe.
    pub(crate) async fn next_throttled(&mut self) -> Result<Received, ReadError> {
        let received = self.next().await?;
        self.acquire(charged_bytes(&received)).await;
        Ok(received)
    }

    /// Waits until a frame of so many bytes of payload may pass, and counts it.
    pub(crate) async fn acquire(&mut self, bytes: usize) {
        if let Some(at) = self.throttle.wait_until(Instant::now()) {
            time::sleep_until(at).await;
            self.active_at = at;
        }
        self.throttle.charge(bytes, Instant::now());
    }

    /// Counts a frame of so many bytes of payload if it may pass now, and returns whether it may.
    pub(crate) fn try_acquire(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let passes = self.throttle.wait_until(now).is_none();
        if passes {
            self.throttle.charge(bytes, now);
        }
        passes
    }

    /// Until when the client is known to be active: when bytes or frames were taken last, or, while the read bound
    /// delays the next read, the end of that delay. What waits unread is not held against the client.
    pub(crate) fn active_until(&self) -> Instant {
        self.active_at.max(self.reader.last_read_at()).max(self.read_at.unwrap_or(self.active_at))
    }

    /// Reads and discards until the client has closed the connection; see [`FrameReader::drain`].
    pub(crate) async fn drain(&mut self) {
        self.reader.drain().await;
    }
}

/// The bytes of payload that a frame costs beside its own cost as a frame.
pub(crate) fn charged_bytes(received: &Received) -> usize {
    match received {
        Received::Binary(message) => message.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
