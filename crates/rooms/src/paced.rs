use admission::Pace;
use tokio::{
    io::AsyncRead,
    time::{self, Instant},
};
use ws::{FrameReader, ReadError, Received};

/// Reads the frames of one client, and holds them to its pace, from its first frame on.
///
/// Every frame counts, with or without data, so that no kind of frame is a way around the pace. A frame has to be
/// read before it is known whether it may be dropped. So there are two bounds: a frame that must not be dropped
/// waits for its turn ([`Self::pass`]), and the next one is not read meanwhile; one that may be dropped is, instead
/// of waiting ([`Self::try_pass`]). All frames together are read no faster than [`READ_FACTOR`] times the rate,
/// so that a flood of frames that are dropped costs a bounded share of a core; above that the client's own
/// connection fills up.
#[derive(Debug)]
pub(crate) struct PacedReader<R> {
    reader: FrameReader<R>,
    pace: Pace,
    /// The bound of all frames that are read.
    reads: Pace,
    /// When the next frame may be read, if that is not now.
    read_at: Option<Instant>,
    /// When the last frame was taken, or the last wait ended.
    active: Instant,
}

/// How many times the rate of a client is read of it: a dropped frame costs a tenth of a delivered one.
pub(crate) const READ_FACTOR: u32 = 10;

impl<R: AsyncRead + Unpin> PacedReader<R> {
    pub(crate) fn new(stream: R, pace: Pace) -> Self {
        let (reader, now) = (FrameReader::new(stream, protocol::MAX_MESSAGE_BYTES), Instant::now());
        let reads = pace.times(READ_FACTOR, now);
        Self { reader, pace, reads, read_at: None, active: now }
    }

    /// Reads the next frame, not before the read bound allows it. The caller then lets it pass, or drops it.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Received, ReadError> {
        if let Some(at) = self.read_at {
            time::sleep_until(at).await;
            self.active = self.active.max(at);
            self.read_at = None;
        }
        let received = self.reader.next().await?;
        self.active = Instant::now();
        self.read_at = self.reads.count(size(&received), self.active);
        Ok(received)
    }

    /// Reads the next frame and lets it pass. Not cancel-safe.
    pub(crate) async fn next_paced(&mut self) -> Result<Received, ReadError> {
        let received = self.next().await?;
        self.pass(size(&received)).await;
        Ok(received)
    }

    /// Waits until a frame of so many bytes of payload may pass, and counts it.
    pub(crate) async fn pass(&mut self, bytes: usize) {
        if let Some(at) = self.pace.wait_until(Instant::now()) {
            time::sleep_until(at).await;
            self.active = at;
        }
        self.pace.count(bytes, Instant::now());
    }

    /// Counts a frame of so many bytes of payload if it may pass now, and returns whether it may.
    pub(crate) fn try_pass(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let passes = self.pace.wait_until(now).is_none();
        if passes {
            self.pace.count(bytes, now);
        }
        passes
    }

    /// Until when the client is known to be active: when bytes or frames were taken last, or, while the read bound
    /// delays the next read, the end of that delay. What waits unread is not held against the client.
    pub(crate) fn active_until(&self) -> Instant {
        self.active.max(self.reader.arrived_at()).max(self.read_at.unwrap_or(self.active))
    }

    /// Reads and discards until the client has closed the connection; see [`FrameReader::drain`].
    pub(crate) async fn drain(&mut self) {
        self.reader.drain().await;
    }
}

/// The bytes of payload that a frame costs beside its own cost as a frame.
pub(crate) fn size(received: &Received) -> usize {
    match received {
        Received::Binary(message) => message.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
