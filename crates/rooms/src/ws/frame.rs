use bytes::{BufMut, Bytes, BytesMut};

/// The kinds of frames (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpCode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
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

/// What a frame is not allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Against RFC 6455: reserved bits, unknown kinds, no mask, long or fragmented control frames.
    Protocol,
    /// The payload would be over the limit.
    TooBig,
}

/// A frame of a client, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFrame {
    pub(crate) fin: bool,
    pub(crate) opcode: OpCode,
    pub(crate) payload: BytesMut,
}

/// RFC 6455, 5.5.
const MAX_CONTROL_BYTES: usize = 125;

/// Takes one frame of a client off the front of `buffer`; `None` until it is whole.
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
    if opcode.is_control() && (!fin || length > MAX_CONTROL_BYTES as u64) {
        return Err(FrameError::Protocol);
    }
    // Refused by its header, before a byte of it is kept.
    if length > max_payload as u64 {
        return Err(FrameError::TooBig);
    }
    let (mask_at, length) = (2 + length_bytes, length as usize);
    let payload_at = mask_at + 4;
    if buffer.len() < payload_at + length {
        return Ok(None);
    }
    let header = buffer.split_to(payload_at);
    let mut payload = buffer.split_to(length);
    for (byte, mask) in payload.iter_mut().zip(header[mask_at..].iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(ClientFrame { fin, opcode, payload }))
}

/// Writes the header of a whole, unmasked frame whose payload of `length` bytes follows.
pub(crate) fn put_header(out: &mut BytesMut, opcode: OpCode, length: usize) {
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

/// Writes a whole, unmasked frame.
pub(crate) fn put_frame(out: &mut BytesMut, opcode: OpCode, payload: &[u8]) {
    put_header(out, opcode, payload.len());
    out.put_slice(payload);
}

/// A close frame; the reason is cut to what a control frame carries.
pub(crate) fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = BytesMut::with_capacity(4 + end);
    put_header(&mut out, OpCode::Close, 2 + end);
    out.put_u16(code);
    out.put_slice(&reason.as_bytes()[..end]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::{
        Frame, FrameHeader,
        coding::{Data, OpCode as TheirOpCode},
    };

    use super::*;

    /// The frame as a client of another make sends it.
    fn theirs(payload: &[u8], mask: [u8; 4]) -> BytesMut {
        let mut frame = Frame::message(payload.to_vec(), TheirOpCode::Data(Data::Binary), true);
        frame.header_mut().mask = Some(mask);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        BytesMut::from(&bytes[..])
    }

    proptest! {
        #[test]
        fn frames_of_another_implementation_are_read_however_they_arrive(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000),
            mask: [u8; 4],
            cut in any::<proptest::sample::Index>(),
        ) {
            let whole = theirs(&payload, mask);
            let at = cut.index(whole.len());
            let mut buffer = BytesMut::from(&whole[..at]);
            prop_assert_eq!(take_frame(&mut buffer, 70_000), Ok(None));
            buffer.extend_from_slice(&whole[at..]);
            buffer.extend_from_slice(&[0x82]);
            let frame = take_frame(&mut buffer, 70_000).unwrap().unwrap();
            prop_assert_eq!((frame.fin, frame.opcode), (true, OpCode::Binary));
            prop_assert_eq!(&frame.payload[..], &payload[..]);
            prop_assert_eq!(&buffer[..], &[0x82][..], "what follows stays");
        }

        #[test]
        fn another_implementation_reads_our_headers(length in 0usize..200_000) {
            let mut out = BytesMut::new();
            put_header(&mut out, OpCode::Binary, length);
            let mut cursor = std::io::Cursor::new(&out[..]);
            let (header, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            prop_assert_eq!(read, length as u64);
            prop_assert!(header.is_final && header.mask.is_none());
            prop_assert_eq!(cursor.position(), out.len() as u64);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut buffer, 1_000) {}
        }
    }

    #[test]
    fn frames_against_the_rules_are_refused() {
        let refused = |bytes: &[u8]| take_frame(&mut BytesMut::from(bytes), 1_000).unwrap_err();
        assert_eq!(refused(&[0x82, 0x01, 0x00]), FrameError::Protocol, "not masked");
        assert_eq!(refused(&[0xc2, 0x80]), FrameError::Protocol, "a reserved bit");
        assert_eq!(refused(&[0x83, 0x80]), FrameError::Protocol, "a reserved kind");
        assert_eq!(refused(&[0x09, 0x80]), FrameError::Protocol, "a fragmented ping");
        assert_eq!(refused(&[0x89, 0xfe, 0, 126]), FrameError::Protocol, "a long ping");
        assert_eq!(refused(&[0x82, 0xfe, 0x03, 0xe9]), FrameError::TooBig, "1,001 bytes");
        assert_eq!(
            refused(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            FrameError::TooBig
        );
    }

    #[test]
    fn close_reasons_are_cut_between_characters() {
        let frame = close_frame(4001, &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(frame[2..4], 4001u16.to_be_bytes());
    }
}
