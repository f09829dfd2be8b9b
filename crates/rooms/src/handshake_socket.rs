//! The socket of a client before it is a member.

use std::io;

use protocol::MAX_MESSAGE_BYTES;
use tokio::{
    io::AsyncWriteExt,
    time::{self, Instant},
};
use ws::{FrameReader, ReadError, Received};

use crate::pace::{Pace, charged_bytes};

/// A socket that is read within the rate limits of the client, from the first frame on.
#[derive(Debug)]
pub(crate) struct HandshakeSocket {
    pub(crate) frames: FrameReader<ws::Stream>,
    pub(crate) pace: Pace,
}

impl HandshakeSocket {
    pub(crate) fn new(stream: ws::Stream, pace: Pace) -> Self {
        Self { frames: FrameReader::new(stream, MAX_MESSAGE_BYTES), pace }
    }

    /// Reads the next frame and waits until the rate allows it. Not cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Received, ReadError> {
        if let Some(at) = self.pace.read_at(Instant::now()) {
            time::sleep_until(at).await;
        }
        let received = self.frames.next().await?;
        self.pace.record(&received, Instant::now());
        while let Err(at) = self.pace.acquire(charged_bytes(&received), Instant::now()) {
            time::sleep_until(at).await;
        }
        Ok(received)
    }

    /// Writes an encoded frame.
    pub(crate) async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.frames.stream_mut().write_all(frame).await
    }

    /// Shuts the write direction down, and waits until the client has closed the connection.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.frames.stream_mut().shutdown().await?;
        self.frames.drain().await;
        Ok(())
    }
}
