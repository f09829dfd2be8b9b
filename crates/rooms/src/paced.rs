use admission::Pace;
use tokio::{
    io::AsyncRead,
    time::{self, Instant},
};
use ws::{FrameReader, ReadError, Received};

/// Reads the frames of one client no faster than its pace allows, from its first frame on.
///
/// Every frame counts, with or without data, so that no kind of frame is a way around the pace.
#[derive(Debug)]
pub(crate) struct PacedReader<R> {
    reader: FrameReader<R>,
    pace: Pace,
    /// When the pace allows the next read, if that is not now.
    read_at: Option<Instant>,
    /// When the last frame was taken, or the last wait for the pace ended.
    active: Instant,
}

impl<R: AsyncRead + Unpin> PacedReader<R> {
    pub(crate) fn new(stream: R, pace: Pace) -> Self {
        let reader = FrameReader::new(stream, protocol::MAX_MESSAGE_BYTES);
        Self { reader, pace, read_at: None, active: Instant::now() }
    }

    /// Waits until the pace allows the next read. Cancel-safe.
    pub(crate) async fn ready(&mut self) {
        if let Some(at) = self.read_at {
            time::sleep_until(at).await;
            self.active = at;
            self.read_at = None;
        }
    }

    /// Reads the next frame, not before the pace allows it, and counts it. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Received, ReadError> {
        self.ready().await;
        let received = self.reader.next().await?;
        let size = match &received {
            Received::Binary(message) => message.len(),
            _ => 0,
        };
        self.active = Instant::now();
        self.read_at = self.pace.count(size, self.active);
        Ok(received)
    }

    /// Until when the client is known to be active: when bytes or frames were taken last, or, while the pace
    /// delays the next read, the end of that delay. What waits unread is not held against the client.
    pub(crate) fn active_until(&self) -> Instant {
        self.active.max(self.reader.arrived_at()).max(self.read_at.unwrap_or(self.active))
    }

    /// Reads and discards until the client has closed the connection; see [`FrameReader::drain`].
    pub(crate) async fn drain(&mut self) {
        self.reader.drain().await;
    }
}

#[cfg(test)]
mod tests;
