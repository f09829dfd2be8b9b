//! Frame headers and payloads (RFC 6455, 5.2): parsing of masked client frames, encoding of server frames.

use bytes::{Buf, BufMut, BytesMut};

/// The kinds of frames (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpCode {
    /// A further fragment of a message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The last frame that its sender sends.
    Close = 8,
    /// A request for a pong.
    Ping = 9,
    /// The answer to a ping, or an unsolicited sign of life.
    Pong = 10,
}

impl OpCode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A frame of a client after unmasking.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFrame {
    pub(crate) fin: bool,
    pub(crate) opcode: OpCode,
    pub(crate) payload: BytesMut,
}

/// A violation by the client that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A violation of RFC 6455: reserved bits or opcodes, no mask, a long or fragmented control
    /// frame, a malformed close payload, fragments out of order.
    #[error("not a WebSocket frame")]
    Protocol,
    /// The reason in a close frame is not UTF-8.
    #[error("the close reason is not UTF-8")]
    InvalidUtf8,
    /// A message above the size limit.
    #[error("message too big")]
    TooBig,
}

impl FrameError {
    /// The status code of the close frame that reports the error (RFC 6455, 7.4.1).
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// The longest payload of a control frame (RFC 6455, 5.5).
pub(crate) const MAX_CONTROL_BYTES: usize = 125;

/// Removes one client frame from the front of `buffer`; `None` until it is complete.
///
/// Length encodings longer than necessary are accepted: RFC 6455 does not require a receiver to reject them.
pub(crate) fn take_frame(
    buffer: &mut BytesMut,
    max_payload: usize,
) -> Result<Option<ClientFrame>, FrameError> {
    let [first, second, ..] = buffer[..] else { return Ok(None) };
    let opcode = OpCode::from_bits(first & 0x0f).ok_or(FrameError::Protocol)?;
    let (fin, reserved, masked) = (first & 0x80 != 0, first & 0x70 != 0, second & 0x80 != 0);
    if reserved || !masked {
        return Err(FrameError::Protocol);
    }
    let (length, length_bytes) = match second & 0x7f {
        126 => match buffer[2..] {
            [a, b, ..] => (u64::from(u16::from_be_bytes([a, b])), 2),
            _ => return Ok(None),
        },
        127 => match buffer[2..] {
            [a, b, c, d, e, f, g, h, ..] => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 8),
            _ => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    let top_bit = length >> 63 != 0;
    if top_bit || opcode.is_control() && (!fin || length > MAX_CONTROL_BYTES as u64) {
        return Err(FrameError::Protocol);
    }
    // The header alone suffices to reject the frame, before any of its payload is buffered.
    if length > max_payload as u64 {
        return Err(FrameError::TooBig);
    }
    let (mask_at, length) = (2 + length_bytes, length as usize);
    let payload_at = mask_at + 4;
    if buffer.len() < payload_at + length {
        return Ok(None);
    }
    let mask = [buffer[mask_at], buffer[mask_at + 1], buffer[mask_at + 2], buffer[mask_at + 3]];
    buffer.advance(payload_at);
    let mut payload = buffer.split_to(length);
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(ClientFrame { fin, opcode, payload }))
}

/// Writes the header of an unfragmented, unmasked frame. The caller appends the payload of `length` bytes.
pub fn put_header(out: &mut BytesMut, opcode: OpCode, length: usize) {
    out.put_u8(0x80 | opcode as u8);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

/// Writes an unfragmented, unmasked frame.
pub fn put_frame(out: &mut BytesMut, opcode: OpCode, payload: &[u8]) {
    out.reserve(MAX_HEADER_BYTES + payload.len());
    put_header(out, opcode, payload.len());
    out.put_slice(payload);
}

/// The longest header that [`put_header`] writes.
const MAX_HEADER_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::{
        Frame, FrameHeader,
        coding::{Data, OpCode as TungsteniteOpCode},
    };

    use super::*;

    /// The frame as another implementation (tungstenite) encodes it for a client.
    fn tungstenite_frame(payload: &[u8], mask: [u8; 4]) -> BytesMut {
        let mut frame = Frame::message(payload.to_vec(), TungsteniteOpCode::Data(Data::Binary), true);
        frame.header_mut().mask = Some(mask);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        BytesMut::from(&bytes[..])
    }

    proptest! {
        #[test]
        fn tungstenite_frames_are_read_when_split_anywhere(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000),
            mask: [u8; 4],
            cut in any::<proptest::sample::Index>(),
        ) {
            let whole = tungstenite_frame(&payload, mask);
            let at = cut.index(whole.len());
            let mut buffer = BytesMut::from(&whole[..at]);
            prop_assert_eq!(take_frame(&mut buffer, 70_000), Ok(None));
            buffer.extend_from_slice(&whole[at..]);
            buffer.extend_from_slice(&[0x82]);
            let frame = take_frame(&mut buffer, 70_000).unwrap().unwrap();
            prop_assert_eq!((frame.fin, frame.opcode), (true, OpCode::Binary));
            prop_assert_eq!(&frame.payload[..], &payload[..]);
            prop_assert_eq!(&buffer[..], &[0x82][..], "the bytes behind the frame stay in the buffer");
        }

        #[test]
        fn tungstenite_parses_written_headers(length in 0usize..200_000) {
            let mut out = BytesMut::new();
            put_header(&mut out, OpCode::Binary, length);
            let mut cursor = std::io::Cursor::new(&out[..]);
            let (header, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            prop_assert_eq!(read, length as u64);
            prop_assert!(header.is_final && header.mask.is_none());
            prop_assert_eq!(cursor.position(), out.len() as u64);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut buffer, 1_000) {}
        }
    }

    #[test]
    fn frames_against_the_protocol_are_rejected() {
        let refused = |bytes: &[u8]| take_frame(&mut BytesMut::from(bytes), 1_000).unwrap_err();
        let header = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes()].concat();
        assert_eq!(refused(&[0x82, 0x01, 0x00]), FrameError::Protocol, "not masked");
        for reserved in [0x40, 0x20, 0x10] {
            assert_eq!(refused(&[0x82 | reserved, 0x80]), FrameError::Protocol, "a reserved bit");
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(refused(&[0x80 | opcode, 0x80]), FrameError::Protocol, "reserved opcode {opcode}");
        }
        assert_eq!(refused(&[0x09, 0x80]), FrameError::Protocol, "a fragmented ping");
        assert_eq!(refused(&[0x89, 0xfe, 0, 126]), FrameError::Protocol, "a long ping");
        assert_eq!(refused(&header(1 << 63)), FrameError::Protocol, "the top bit of a length");
        assert_eq!(refused(&header(u64::MAX >> 1)), FrameError::TooBig);
        assert_eq!(refused(&[0x82, 0xfe, 0x03, 0xe9]), FrameError::TooBig, "1,001 bytes");
    }

    #[test]
    fn longer_length_encoding_than_necessary_is_accepted() {
        for header in [&[0x82, 0xfe, 0, 1][..], &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1]] {
            let mut buffer = BytesMut::from(&[header, &[0, 0, 0, 0, 7]].concat()[..]);
            let frame = take_frame(&mut buffer, 1_000).unwrap().unwrap();
            assert_eq!(frame.payload[..], [7]);
        }
    }
}
