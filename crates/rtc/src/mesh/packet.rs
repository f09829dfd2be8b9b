//! The sizes of packets.

use bytes::Bytes;
use prost::Message as _;
use protocol::{MAX_MESSAGE_BYTES, mesh::Packet};

/// The most bytes of an own packet with its envelope: 64 KiB less 256 bytes, so that a fallback with the fields of its
/// signal still fits into a message of the archipelago socket.
pub const MAX_PACKET_BYTES: usize = MAX_MESSAGE_BYTES - 256;
/// The most bytes of a received packet, which is the limit of a data channel of the `webrtc` crate.
pub(crate) const MAX_RECEIVED_BYTES: usize = 65_536;

/// The most bytes of a packet with this payload, with the longest envelope: the limit does not depend on numbers.
pub(crate) fn largest_size(payload: &Bytes) -> usize {
    let payload = payload.clone();
    Packet { source: u32::MAX, version: u32::MAX, sequence: u64::MAX, payload, lossy: true }.encoded_len()
}
