//! Reading of client frames from a byte stream.

use std::{
    future::poll_fn,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

use crate::{
    decoder::{Decoder, Received},
    frame::FrameError,
};

/// The reason why nothing more can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The client violated the protocol or exceeded the message limit.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection has ended without a close frame.
    #[error("the connection has ended")]
    Disconnected,
}

/// Reads the frames of a client from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: Decoder,
    last_read: Instant,
}

/// Bytes that one read takes from the stream at most.
const READ_BYTES: usize = 8 * 1024;
/// Bytes that [`FrameReader::drain`] discards at most: above the receive buffer of a TCP socket, which Linux
/// lets grow to 6 MiB.
const MAX_DRAIN_BYTES: usize = 8 * 1024 * 1024;
/// Frames that [`FrameReader::drain`] decodes at most in search of the client's close frame: more than a
/// client within its rate limit has in flight.
const MAX_DRAIN_FRAMES: usize = 1_024;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Creates a reader that accepts messages of at most `max_message` bytes.
    pub fn new(stream: R, max_message: usize) -> Self {
        Self::from_parts(stream, Decoder::new(max_message))
    }

    /// Continues with the decoder of another reader.
    pub fn from_parts(stream: R, decoder: Decoder) -> Self {
        Self { stream, decoder, last_read: Instant::now() }
    }

    /// The stream, and the decoder with the bytes that were read and not decoded.
    pub fn into_parts(self) -> (R, Decoder) {
        (self.stream, self.decoder)
    }

    /// When bytes were last read from the stream, or the reader was created. The bytes of an incomplete frame
    /// count too, because a client on a slow connection may need long for a large frame.
    pub fn last_read_at(&self) -> Instant {
        self.last_read
    }

    /// Reads the next frame. Cancel-safe: an incomplete frame stays in the buffer.
    pub async fn next(&mut self) -> Result<Received, ReadError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Polls for the next frame; an incomplete frame stays in the buffer.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Received, ReadError>> {
        loop {
            if let Some(received) = self.decoder.decode()? {
                return Poll::Ready(Ok(received));
            }
            if ready!(self.poll_fill(context))? == 0 {
                return Poll::Ready(Err(ReadError::Disconnected));
            }
        }
    }

    /// Reads and discards until the client has replied to the server's close frame, or closed the connection.
    /// Closing a socket that has unread bytes resets it, and the reset may overtake the last frames written.
    ///
    /// Stops after 1,024 frames and a further 8 MiB, so that a client cannot keep the server reading at full
    /// speed.
    pub async fn drain(&mut self) {
        for _ in 0..MAX_DRAIN_FRAMES {
            match self.next().await {
                Ok(Received::Close(_)) | Err(ReadError::Disconnected) => return,
                Ok(_) => {}
                Err(ReadError::Frame(_)) => break,
            }
        }
        // After a protocol error or too many frames the search for a close frame ends, and bytes are only
        // discarded.
        let mut left = MAX_DRAIN_BYTES;
        while left > 0 {
            self.decoder.buffer_mut().clear();
            match poll_fn(|context| self.poll_fill(context)).await {
                Ok(count @ 1..) => left = left.saturating_sub(count),
                _ => return,
            }
        }
    }

    /// The stream, for writing.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Reads once; 0 is the end of the stream. The bytes pass through a buffer on the stack, so that an idle
    /// connection holds no heap buffer.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        self.decoder.release_if_empty();
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, &mut read));
        self.last_read = Instant::now();
        result.map_err(|_| ReadError::Disconnected)?;
        self.decoder.put(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn next_loses_nothing_when_cancelled() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(server, 100);
        for byte in [0x82, 0x83, 0, 0, 0, 0, b'a', b'b'] {
            client.write_all(&[byte]).await.unwrap();
            tokio::select! {
                biased;
                received = reader.next() => panic!("{received:?}"),
                () = std::future::ready(()) => {}
            }
        }
        client.write_all(b"c").await.unwrap();
        assert_eq!(reader.next().await, Ok(Received::Binary("abc".into())));
    }

    #[tokio::test]
    async fn idle_reader_holds_no_buffer() {
        let (mut client, server) = tokio::io::duplex(1_000);
        let mut reader = FrameReader::new(server, 100);
        client.write_all(&[&[0x82, 0xb2, 0, 0, 0, 0][..], &[7; 50]].concat()).await.unwrap();
        reader.next().await.unwrap();
        tokio::select! {
            biased;
            received = reader.next() => panic!("{received:?}"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(reader.decoder.buffer_mut().capacity(), 0);
    }

    /// An endless stream of zeros; counts the bytes that were read.
    struct Endless(usize);

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            read: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.0 += read.remaining();
            read.put_slice(&vec![0; read.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn drain_stops_on_an_endless_stream() {
        let mut reader = FrameReader::new(Endless(0), 100);
        reader.drain().await;
        assert!((MAX_DRAIN_BYTES..2 * MAX_DRAIN_BYTES).contains(&reader.stream.0), "{}", reader.stream.0);
    }

    #[tokio::test]
    async fn drain_stops_at_the_close_frame_of_the_client() {
        let (mut client, server) = tokio::io::duplex(100);
        let mut reader = FrameReader::new(server, 100);
        client.write_all(&[0x82, 0x80, 0, 0, 0, 0, 0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        // The client waits for the server to close the connection (RFC 6455, 7.1.1).
        reader.drain().await;
        drop(client);
    }
}
