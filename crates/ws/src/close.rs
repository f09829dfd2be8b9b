//! Close frames: their encoding, the reply to a client's close frame, and the status codes that may be sent
//! (RFC 6455, 5.5.1 and 7.4).

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{FrameError, MAX_CONTROL_BYTES, OpCode, put_header};

/// The status code of a connection that has fulfilled its purpose (RFC 6455, 7.4.1).
pub const NORMAL_CLOSURE: u16 = 1000;

/// Encodes a close frame. A reason longer than 123 bytes, the most that a control frame carries beside the
/// code, is cut between two characters.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
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

/// Encodes the reply to a client's close frame: the client's own code (RFC 6455, 5.5.1), or 1000 when the
/// client sent none.
pub fn close_answer(code: Option<u16>) -> Bytes {
    close_frame(code.unwrap_or(NORMAL_CLOSURE), "")
}

/// Reads the status code from the payload of a client's close frame; `None` if the payload is empty.
pub(crate) fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        _ => return Err(FrameError::Protocol),
    };
    if !is_valid_close_code(code) {
        return Err(FrameError::Protocol);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(FrameError::InvalidUtf8),
    }
}

/// Whether a close frame may carry the code: 1004 to 1006 and 1015 are reserved, 1016 to 2999 are not
/// assigned (RFC 6455, 7.4, and the IANA registry of close codes).
fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_close_reason_is_cut_between_characters() {
        let frame = close_frame(4001, &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(frame[2..4], 4001u16.to_be_bytes());
    }

    #[test]
    fn close_answer_carries_the_code_of_the_client() {
        assert_eq!(close_answer(Some(4999))[..], [0x88, 2, 0x13, 0x87]);
        assert_eq!(close_answer(None)[..], [0x88, 2, 0x03, 0xe8]);
    }

    #[test]
    fn close_codes_are_accepted_exactly_where_assigned() {
        let accepted: Vec<u16> = (0..=u16::MAX).filter(|code| is_valid_close_code(*code)).collect();
        let expected = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
        assert_eq!(accepted[..12], expected);
        assert_eq!(accepted[12..], (3000..=4999).collect::<Vec<u16>>());
    }

    #[test]
    fn malformed_close_payloads_are_rejected() {
        let payload = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
        assert_eq!(close_code(&[]), Ok(None));
        assert_eq!(close_code(&payload(1000, b"")), Ok(Some(1000)));
        assert_eq!(close_code(&payload(4003, "bye ä".as_bytes())), Ok(Some(4003)));
        assert_eq!(close_code(&[3]), Err(FrameError::Protocol));
        assert_eq!(close_code(&payload(1005, b"")), Err(FrameError::Protocol));
        assert_eq!(close_code(&payload(1005, b"\xff")), Err(FrameError::Protocol), "the code comes first");
        assert_eq!(close_code(&payload(1000, b"\xc3")), Err(FrameError::InvalidUtf8), "half a character");
    }
}
