//! The WebSocket messages of a LiveKit server (RFC 6455), with the URLs of other servers removed.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::server_urls::{Malformed, strip_json, strip_protobuf};

/// The longest message of a server, in bytes. The longest one lists all participants of a room, 100 to 300 bytes
/// each.
pub(super) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Converts the bytes that the server sends into those that the client is sent. Control frames pass unchanged;
/// a fragmented message becomes one frame.
#[derive(Debug, Default)]
pub(super) struct ServerMessages {
    /// Received bytes that do not form a whole frame yet.
    input: Vec<u8>,
    /// The first opcode and the fragments of a message that is not complete yet.
    fragments: Option<(Data, Vec<u8>)>,
}

/// Why the server's bytes cannot be relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RelayError {
    #[error("a message of the LiveKit server is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    #[error("the LiveKit server violates the WebSocket protocol")]
    Protocol,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl ServerMessages {
    /// Adds received bytes, and appends the frames for the client to `output`.
    ///
    /// # Errors
    ///
    /// The server sent something that cannot be relayed. The connection must end.
    pub(super) fn receive(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), RelayError> {
        self.input.extend_from_slice(bytes);
        let mut consumed = 0;
        loop {
            let rest = &self.input[consumed..];
            let mut cursor = Cursor::new(rest);
            let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| RelayError::Protocol)?
            else {
                break;
            };
            let length = usize::try_from(length).map_err(|_| RelayError::TooLong)?;
            let gathered = self.fragments.as_ref().map_or(0, |(_, gathered)| gathered.len());
            if length > MAX_MESSAGE_BYTES - gathered {
                return Err(RelayError::TooLong);
            }
            // At most ten bytes.
            let begin = cursor.position() as usize;
            let Some(payload) = rest.get(begin..begin + length) else { break };
            consumed += begin + length;
            forward(&mut self.fragments, header, payload, output)?;
        }
        self.input.drain(..consumed);
        // A long message does not keep its memory.
        if self.input.is_empty() && self.input.capacity() > MAX_KEPT_BYTES {
            self.input = Vec::new();
        }
        Ok(())
    }
}

/// The input buffer that an idle connection keeps, in bytes.
const MAX_KEPT_BYTES: usize = 16 * 1024;

fn forward(
    fragments: &mut Option<(Data, Vec<u8>)>,
    header: FrameHeader,
    payload: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), RelayError> {
    let FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = header;
    // No extension is negotiated, and servers do not mask.
    if rsv1 || rsv2 || rsv3 || mask.is_some() {
        return Err(RelayError::Protocol);
    }
    let data = match opcode {
        OpCode::Control(_) => {
            return put_frame(opcode, payload, output);
        }
        OpCode::Data(data) => data,
    };
    let (kind, message) = match (data, fragments.take()) {
        (Data::Continue, Some((kind, mut gathered))) => {
            gathered.extend_from_slice(payload);
            (kind, gathered)
        }
        (Data::Binary | Data::Text, None) => (data, payload.to_vec()),
        _ => return Err(RelayError::Protocol),
    };
    if !is_final {
        *fragments = Some((kind, message));
        return Ok(());
    }
    let stripped = if kind == Data::Text { strip_json(&message)? } else { strip_protobuf(&message)? };
    put_frame(OpCode::Data(kind), &stripped, output)
}

fn put_frame(opcode: OpCode, payload: &[u8], output: &mut Vec<u8>) -> Result<(), RelayError> {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, output).map_err(|_| RelayError::Protocol)?;
    output.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::coding::Control;

    use super::*;

    fn frame(is_final: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        let header = FrameHeader { is_final, opcode, ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut encoded).unwrap();
        encoded.extend_from_slice(payload);
        encoded
    }

    /// A `SignalResponse` with a Leave message with this many bytes of regions.
    fn leave(regions: usize) -> Vec<u8> {
        use prost::encoding::bytes::encode;
        let (mut leave, mut response) = (vec![0x10, 0x04], Vec::new());
        encode(4, &vec![7_u8; regions], &mut leave);
        encode(8, &leave, &mut response);
        response
    }

    /// The same without the regions.
    const STRIPPED: [u8; 4] = [0x42, 0x02, 0x10, 0x04];

    #[test]
    fn bytes_may_arrive_in_any_portions() {
        let binary = OpCode::Data(Data::Binary);
        let ping = frame(true, OpCode::Control(Control::Ping), b"x");
        let message = leave(70_000);
        let input = [
            frame(true, binary, &message),
            ping.clone(),
            frame(false, binary, &message[..9]),
            ping.clone(),
            frame(false, OpCode::Data(Data::Continue), &message[9..100]),
            frame(true, OpCode::Data(Data::Continue), &message[100..]),
            frame(true, OpCode::Data(Data::Text), br#"{"leave":{"regions":{}}}"#),
            frame(true, OpCode::Control(Control::Close), &[3, 232]),
        ]
        .concat();
        let expected = [
            frame(true, binary, &STRIPPED),
            ping.clone(),
            ping,
            frame(true, binary, &STRIPPED),
            frame(true, OpCode::Data(Data::Text), br#"{"leave":{}}"#),
            frame(true, OpCode::Control(Control::Close), &[3, 232]),
        ]
        .concat();
        for portion in [1, 2, 7, 4_096, input.len()] {
            let (mut messages, mut output) = (ServerMessages::default(), Vec::new());
            for bytes in input.chunks(portion) {
                messages.receive(bytes, &mut output).unwrap();
            }
            assert!(output == expected, "portions of {portion} bytes");
            assert!(messages.input.capacity() <= MAX_KEPT_BYTES, "{}", messages.input.capacity());
        }
    }

    #[test]
    fn long_or_invalid_input_is_an_error() {
        let (text, binary) = (OpCode::Data(Data::Text), OpCode::Data(Data::Binary));
        let next = OpCode::Data(Data::Continue);
        let half = vec![0; MAX_MESSAGE_BYTES / 2 + 1];
        let compressed = {
            let mut frame = frame(true, binary, b"");
            frame[0] |= 0x40;
            frame
        };
        let huge = [0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].to_vec();
        for (input, error) in [
            (frame(true, binary, &vec![0; MAX_MESSAGE_BYTES + 1]), RelayError::TooLong),
            ([frame(false, binary, &half), frame(true, next, &half)].concat(), RelayError::TooLong),
            (huge, RelayError::TooLong),
            (compressed, RelayError::Protocol),
            (frame(true, next, b"x"), RelayError::Protocol),
            ([frame(false, binary, b""), frame(true, binary, b"")].concat(), RelayError::Protocol),
            (vec![0x82, 0x81, 1, 2, 3, 4, 5], RelayError::Protocol),
            (vec![0x83, 0], RelayError::Protocol),
            (frame(true, text, b"{"), RelayError::Malformed(Malformed)),
            (frame(true, binary, &[0x0a, 9]), RelayError::Malformed(Malformed)),
        ] {
            let received = ServerMessages::default().receive(&input, &mut Vec::new());
            assert_eq!(received, Err(error), "{:?}", &input[..input.len().min(16)]);
        }
    }
}
