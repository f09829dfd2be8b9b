//! The frames that the loader writes and reads. It decodes only the parts that it counts.

use protocol::{
    Message as _,
    rfc5::{WsIdentification, WsPacket, WsPeerUpdate, ws_packet::Message},
};

const BODY_BYTES: usize = 64;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// The frame of an update. Its body begins with the time at which it is sent.
pub(crate) struct UpdateFrame {
    bytes: Vec<u8>,
    /// The position of the body.
    body: usize,
}

impl UpdateFrame {
    pub(crate) fn new() -> Self {
        const MARK: [u8; BODY_BYTES] = [0xa5; BODY_BYTES];
        let update = WsPeerUpdate { from_alias: 0, body: MARK.to_vec().into(), unreliable: true };
        let bytes = client_frame(&packet(Message::PeerUpdateMessage(update)));
        let body = bytes.windows(BODY_BYTES).position(|bytes| bytes == MARK).expect("the body");
        Self { bytes, body }
    }

    /// The frame as sent at `microseconds`.
    pub(crate) fn at(&mut self, microseconds: u64) -> &[u8] {
        self.bytes[self.body..][..8].copy_from_slice(&microseconds.to_be_bytes());
        &self.bytes
    }
}

/// The frame in which a client names itself.
pub(crate) fn identification_frame(address: String) -> Vec<u8> {
    client_frame(&packet(Message::PeerIdentification(WsIdentification { address })))
}

fn packet(message: Message) -> Vec<u8> {
    WsPacket { message: Some(message) }.encode_to_vec()
}

/// A binary frame, masked with zeros: the bytes stay as they are.
fn client_frame(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|&length| length < 126).expect("a short frame");
    [&[0x80 | BINARY, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// A frame of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerFrame {
    /// The time of sending, from the body.
    Update(u64),
    Welcome,
    /// The close code; 0 if there is none.
    Close(u16),
    Other,
}

/// Reads the first frame of `bytes`; returns it with its length. `None` if it is incomplete.
pub(crate) fn read_frame(bytes: &[u8]) -> Option<(ServerFrame, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (header, length) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?) as usize),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(header..header + length)?;
    let frame = match first & 0x0f {
        BINARY => read_packet(payload).unwrap_or(ServerFrame::Other),
        CLOSE => ServerFrame::Close(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))),
        _ => ServerFrame::Other,
    };
    Some((frame, header + length))
}

/// Reads the first fields of a `WsPacket`.
fn read_packet(payload: &[u8]) -> Option<ServerFrame> {
    const WELCOME: u8 = 1 << 3 | 2;
    const UPDATE: u8 = 3 << 3 | 2;
    const FROM_ALIAS: u8 = 1 << 3;
    const BODY: u8 = 2 << 3 | 2;
    match payload.split_first()? {
        (&WELCOME, _) => Some(ServerFrame::Welcome),
        (&UPDATE, rest) => {
            let mut fields = after_varint(rest)?;
            if let Some((&FROM_ALIAS, rest)) = fields.split_first() {
                fields = after_varint(rest)?;
            }
            let (&BODY, rest) = fields.split_first()? else { return None };
            Some(ServerFrame::Update(u64::from_be_bytes(*after_varint(rest)?.first_chunk()?)))
        }
        _ => None,
    }
}

fn after_varint(bytes: &[u8]) -> Option<&[u8]> {
    let last = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    bytes.get(last + 1..)
}
