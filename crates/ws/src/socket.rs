//! A WebSocket that reads and writes single frames on one stream.

use std::{future::poll_fn, io, pin::pin, task::Poll, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{
    decoder::Received,
    frame::{OpCode, put_frame},
    reader::{FrameReader, ReadError},
};

/// The reason why a frame was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Disconnected,
    /// The client did not read the frame within the time limit.
    #[error("the client reads too slowly")]
    TooSlow,
}

/// A WebSocket that reads and writes one frame at a time.
///
/// It replies neither to pings nor to close frames: a read that also writes is not cancel-safe. The caller
/// replies.
#[derive(Debug)]
pub struct Socket<S> {
    reader: FrameReader<S>,
    /// The rest of a frame after its write was cancelled or timed out. It is written before the next frame
    /// begins.
    unsent: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Creates a socket that accepts messages of at most `max_message` bytes.
    pub fn new(stream: S, max_message: usize) -> Self {
        Self { reader: FrameReader::new(stream, max_message), unsent: BytesMut::new() }
    }

    /// Reads the next frame. Cancel-safe.
    pub async fn next(&mut self) -> Result<Received, ReadError> {
        self.reader.next().await
    }

    /// When bytes were last read; see [`FrameReader::last_read_at`].
    pub fn last_read_at(&self) -> Instant {
        self.reader.last_read_at()
    }

    /// Writes one unfragmented frame within `limit`.
    ///
    /// If the call is cancelled or times out, the next write first completes this frame.
    pub async fn send(&mut self, opcode: OpCode, payload: &[u8], limit: Duration) -> Result<(), WriteError> {
        put_frame(&mut self.unsent, opcode, payload);
        self.flush(limit).await
    }

    /// Writes an encoded close frame, shuts the write direction down, and waits until the client has closed
    /// the connection. All of this takes at most `limit`.
    pub async fn close(&mut self, close_frame: &[u8], limit: Duration) {
        let closing = async {
            self.unsent.extend_from_slice(close_frame);
            self.write().await?;
            self.reader.stream_mut().shutdown().await?;
            self.reader.drain().await;
            io::Result::Ok(())
        };
        // On timeout or a write error the client does not receive the close frame.
        let _ = timeout(limit, closing).await;
    }

    async fn flush(&mut self, limit: Duration) -> Result<(), WriteError> {
        // Most writes complete at once. Only the others get a timer, on the heap, so that the future of a
        // task that writes does not contain one.
        let written = match poll_once(self.write()).await {
            Some(written) => Ok(written),
            None => Box::pin(timeout(limit, self.write())).await,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(WriteError::Disconnected),
            Err(_) => Err(WriteError::TooSlow),
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        let stream = self.reader.stream_mut();
        stream.write_all_buf(&mut self.unsent).await?;
        // Frees the buffer, so that an idle connection holds none.
        self.unsent = BytesMut::new();
        stream.flush().await
    }
}

/// The output of a future that is ready at its first poll. Drops the future.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::close::close_frame;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn frame_that_timed_out_is_completed_before_the_close_frame() {
        let (mut client, server) = tokio::io::duplex(100);
        let mut socket = Socket::new(server, 100);
        assert_eq!(socket.send(OpCode::Binary, &[7; 150], LIMIT).await, Err(WriteError::TooSlow));
        let closing = async move { socket.close(&close_frame(4006, ""), LIMIT).await };
        let reading = async move {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let ((), bytes) = tokio::join!(closing, reading);
        let expected = [&[0x82, 126, 0, 150][..], &[7; 150], &[0x88, 2, 0x0f, 0xa6]].concat();
        assert_eq!(bytes, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn close_waits_for_the_client_within_its_limit() {
        let (client, server) = tokio::io::duplex(100);
        let mut socket = Socket::new(server, 100);
        let began = tokio::time::Instant::now();
        socket.close(&close_frame(1000, ""), LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT);
        drop(client);
        socket.close(&close_frame(1000, ""), LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT, "close does not wait for a client that has disconnected");
    }

    #[tokio::test]
    async fn written_frame_leaves_no_buffer() {
        let (_client, server) = tokio::io::duplex(1_000);
        let mut socket = Socket::new(server, 100);
        socket.send(OpCode::Binary, &[7; 50], LIMIT).await.unwrap();
        assert_eq!(socket.unsent.capacity(), 0);
    }
}
