//! The position packets that bots exchange in rooms.

use bytes::{BufMut, Bytes, BytesMut};
use protocol::{
    Message as _,
    rfc4::{self, packet::Message},
};

/// A position packet, padded with a protobuf field that no client knows. The padding is at most 127
/// bytes.
pub(crate) fn encode(position: rfc4::Position, min_bytes: usize) -> Bytes {
    /// Field 15, length-delimited.
    const PADDING_KEY: u8 = 15 << 3 | 2;
    let packet = rfc4::Packet { message: Some(Message::Position(position)), protocol_version: 100 };
    let mut bytes = BytesMut::from(&packet.encode_to_vec()[..]);
    let missing = min_bytes.saturating_sub(bytes.len() + 2).min(127);
    if missing > 0 {
        bytes.put_slice(&[PADDING_KEY, missing as u8]);
        bytes.put_bytes(0, missing);
    }
    bytes.freeze()
}

/// The position in a packet; `None` for every other packet.
pub(crate) fn decode(body: Bytes) -> Option<rfc4::Position> {
    match rfc4::Packet::decode(body).ok()?.message? {
        Message::Position(position) => Some(position),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_packet_has_its_size_and_decodes() {
        let position = rfc4::Position { index: 7, position_x: 1.0, ..Default::default() };
        for min_bytes in [0, 64] {
            let packet = encode(position, min_bytes);
            assert!(packet.len() >= min_bytes, "{}", packet.len());
            assert_eq!(decode(packet), Some(position));
        }
    }
}
