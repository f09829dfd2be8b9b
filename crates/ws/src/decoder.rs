//! Decoding of client frames and reassembly of fragmented messages, without I/O.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    close::close_code,
    frame::{ClientFrame, FrameError, OpCode, take_frame},
};

/// One frame that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A complete binary message: an unfragmented one, or the reassembled one after its last fragment.
    Binary(Bytes),
    /// A fragment that is not the last one of its message.
    Fragment,
    /// A text frame, which no endpoint of Atoll accepts. Its payload is not kept.
    Text,
    /// A ping, with the payload that the pong must repeat.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// A well-formed close frame, with its status code if it carries one.
    Close(Option<u16>),
}

/// Decodes the frames of a client and reassembles its messages. Has no I/O.
///
/// It buffers at most one incomplete frame, the bytes that were added behind it, and the fragments of one
/// message.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    fragments: Option<BytesMut>,
    max_message: usize,
}

impl Decoder {
    /// Creates a decoder that accepts messages of at most `max_message` bytes.
    pub fn new(max_message: usize) -> Self {
        Self { buffer: BytesMut::new(), fragments: None, max_message }
    }

    /// Appends bytes that arrived from the client.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// Decodes the next frame; `None` until it is complete. After an error the frame boundaries in the stream
    /// are unknown, so nothing more can be decoded.
    pub fn decode(&mut self) -> Result<Option<Received>, FrameError> {
        match take_frame(&mut self.buffer, self.max_message)? {
            Some(frame) => self.accept(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Frees the memory of the buffer if the buffer is empty; returns whether it was.
    pub(crate) fn release_if_empty(&mut self) -> bool {
        let empty = self.buffer.is_empty();
        if empty {
            self.buffer = BytesMut::new();
        }
        empty
    }

    /// The bytes that were put and are not decoded yet.
    pub(crate) fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    fn accept(&mut self, frame: ClientFrame) -> Result<Received, FrameError> {
        let ClientFrame { fin, opcode, payload } = frame;
        Ok(match (opcode, fin, &mut self.fragments) {
            (OpCode::Ping, ..) => Received::Ping(payload.freeze()),
            (OpCode::Pong, ..) => Received::Pong,
            (OpCode::Close, ..) => Received::Close(close_code(&payload)?),
            (OpCode::Text, _, None) => Received::Text,
            (OpCode::Binary, true, None) => Received::Binary(payload.freeze()),
            (OpCode::Binary, false, fragments @ None) => {
                *fragments = Some(payload);
                Received::Fragment
            }
            (OpCode::Continuation, fin, Some(fragments)) => {
                if fragments.len() + payload.len() > self.max_message {
                    return Err(FrameError::TooBig);
                }
                fragments.extend_from_slice(&payload);
                if !fin {
                    return Ok(Received::Fragment);
                }
                Received::Binary(self.fragments.take().unwrap_or_default().freeze())
            }
            _ => return Err(FrameError::Protocol),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame. A mask of zeros leaves the payload unchanged.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    /// Decodes all frames up to the first error, and returns that error too.
    fn decoded(frames: &[Vec<u8>], max_message: usize) -> (Vec<Received>, Option<FrameError>) {
        let mut decoder = Decoder::new(max_message);
        decoder.put(&frames.concat());
        let mut received = Vec::new();
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => received.push(frame),
                Ok(None) => return (received, None),
                Err(error) => return (received, Some(error)),
            }
        }
    }

    #[test]
    fn each_frame_decodes_to_one_value() {
        let frames = [
            frame(0x02, b"on"),
            frame(0x89, b"?"),
            frame(0x00, b""),
            frame(0x8a, b"!"),
            frame(0x80, b"e"),
            frame(0x82, b"two"),
            frame(0x88, b"\x03\xe9away"),
        ];
        let expected = [
            Received::Fragment,
            Received::Ping(Bytes::from("?")),
            Received::Fragment,
            Received::Pong,
            Received::Binary(Bytes::from("one")),
            Received::Binary(Bytes::from("two")),
            Received::Close(Some(1001)),
        ];
        assert_eq!(decoded(&frames, 100), (expected.to_vec(), None));
    }

    #[test]
    fn message_over_the_limit_in_fragments_is_refused() {
        let (_, error) = decoded(&[frame(0x02, b"123456"), frame(0x80, b"12345")], 10);
        assert_eq!(error, Some(FrameError::TooBig));
    }

    #[test]
    fn fragments_out_of_order_are_refused() {
        for second in [0x82, 0x02, 0x81, 0x01] {
            let (_, error) = decoded(&[frame(0x02, b"x"), frame(second, b"y")], 100);
            assert_eq!(error, Some(FrameError::Protocol), "{second:x}");
        }
        assert_eq!(decoded(&[frame(0x80, b"x")], 100).1, Some(FrameError::Protocol));
    }

    #[test]
    fn empty_buffer_is_released_between_frames() {
        let mut decoder = Decoder::new(1_000);
        decoder.put(&frame(0x82, &[7; 100]));
        decoder.put(&[0x82]);
        assert!(matches!(decoder.decode(), Ok(Some(Received::Binary(_)))));
        assert!(!decoder.release_if_empty(), "half a header is kept");
        decoder.put(&[0x80, 0, 0, 0, 0]);
        assert!(matches!(decoder.decode(), Ok(Some(Received::Binary(_)))));
        assert!(decoder.release_if_empty());
        assert_eq!(decoder.buffer.capacity(), 0);
    }
}
