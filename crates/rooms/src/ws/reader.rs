use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    OpCode,
    frame::{FrameError, take_frame},
};

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Binary(Bytes),
    /// A part of a message that is not whole yet.
    Fragment,
    Text,
    Ping(Bytes),
    Pong,
    Close,
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Not WebSocket frames.
    Protocol,
    /// A message over the limit.
    TooBig,
    /// The connection is gone.
    Gone,
}

/// Reads messages off a stream, and puts fragments together.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    fragments: Option<BytesMut>,
    max_message: usize,
}

const READ_BYTES: usize = 2048;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R, max_message: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), fragments: None, max_message }
    }

    /// The next message, or part of one. Cancel-safe: what was read of it is kept.
    pub(crate) async fn next(&mut self) -> Result<Received, ReadError> {
        loop {
            if let Some(received) = self.take()? {
                return Ok(received);
            }
            self.fill().await?;
        }
    }

    /// Reads and forgets until the other side has closed, so that what was last written to it is
    /// not lost to a reset.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            if self.fill().await.is_err() {
                return;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(ReadError::Gone),
            Ok(_) => Ok(()),
            Err(_) => Err(ReadError::Gone),
        }
    }

    fn take(&mut self) -> Result<Option<Received>, ReadError> {
        let Some(frame) = take_frame(&mut self.buffer, self.max_message)? else { return Ok(None) };
        Ok(Some(match (frame.opcode, frame.fin, &mut self.fragments) {
            (OpCode::Ping, ..) => Received::Ping(frame.payload.freeze()),
            (OpCode::Pong, ..) => Received::Pong,
            (OpCode::Close, ..) => Received::Close,
            (OpCode::Text, _, None) => Received::Text,
            (OpCode::Binary, true, None) => Received::Binary(frame.payload.freeze()),
            (OpCode::Binary, false, fragments @ None) => {
                *fragments = Some(frame.payload);
                Received::Fragment
            }
            (OpCode::Continuation, fin, Some(fragments)) => {
                if fragments.len() + frame.payload.len() > self.max_message {
                    return Err(ReadError::TooBig);
                }
                fragments.extend_from_slice(&frame.payload);
                if !fin {
                    return Ok(Some(Received::Fragment));
                }
                Received::Binary(self.fragments.take().unwrap_or_default().freeze())
            }
            _ => return Err(ReadError::Protocol),
        }))
    }
}

impl From<FrameError> for ReadError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Protocol => Self::Protocol,
            FrameError::TooBig => Self::TooBig,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame; a mask of zeros leaves the payload as it is.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    async fn read(frames: &[Vec<u8>], max_message: usize) -> (Vec<Received>, ReadError) {
        let bytes = frames.concat();
        let mut reader = FrameReader::new(&bytes[..], max_message);
        let mut received = Vec::new();
        loop {
            match reader.next().await {
                Ok(message) => received.push(message),
                Err(error) => return (received, error),
            }
        }
    }

    #[tokio::test]
    async fn fragments_are_put_together_around_control_frames() {
        let frames =
            [frame(0x02, b"on"), frame(0x89, b"?"), frame(0x00, b""), frame(0x80, b"e"), frame(0x82, b"two")];
        let (received, end) = read(&frames, 100).await;
        let binary = |text: &'static str| Received::Binary(Bytes::from(text));
        let expected = [
            Received::Fragment,
            Received::Ping(Bytes::from("?")),
            Received::Fragment,
            binary("one"),
            binary("two"),
        ];
        assert_eq!(received, expected);
        assert!(matches!(end, ReadError::Gone));
    }

    #[tokio::test]
    async fn fragments_do_not_get_around_the_limit() {
        let (_, end) = read(&[frame(0x02, b"123456"), frame(0x80, b"12345")], 10).await;
        assert!(matches!(end, ReadError::TooBig));
    }

    #[tokio::test]
    async fn fragments_out_of_order_are_refused() {
        for frames in [vec![frame(0x80, b"x")], vec![frame(0x02, b"x"), frame(0x82, b"y")]] {
            assert!(matches!(read(&frames, 100).await.1, ReadError::Protocol));
        }
    }
}
