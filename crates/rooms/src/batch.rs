use bytes::{Bytes, BytesMut};
use protocol::{Message, rfc5};
use ws::{OpCode, put_header};

/// The frames of one room and one tick, encoded once and shared by all recipients.
///
/// Each recipient gets the slab without the frames that come from itself.
#[derive(Debug)]
pub(crate) struct Batch {
    slab: Bytes,
    frames: Vec<Frame>,
    reliable_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    from_alias: u32,
    /// Where it ends in the slab; it begins where the one before it ends.
    end: usize,
    reliable: bool,
}

impl Batch {
    /// What all its frames together weigh.
    pub(crate) fn bytes(&self) -> usize {
        self.slab.len()
    }

    /// What those weigh that must not be dropped.
    pub(crate) fn reliable_bytes(&self) -> usize {
        self.reliable_bytes
    }

    /// Appends what `alias` gets of it to `out`, as few slices as can be; counts the frames.
    pub(crate) fn slices_for(&self, alias: u32, reliable_only: bool, out: &mut impl Extend<Bytes>) -> u64 {
        let (mut run, mut begin, mut count) = (0..0, 0, 0);
        for frame in &self.frames {
            if frame.from_alias != alias && (frame.reliable || !reliable_only) {
                if run.end != begin {
                    out.extend((!run.is_empty()).then(|| self.slab.slice(run.clone())));
                    run.start = begin;
                }
                run.end = frame.end;
                count += 1;
            }
            begin = frame.end;
        }
        out.extend((!run.is_empty()).then(|| self.slab.slice(run)));
        count
    }
}

/// Collects the frames of a tick.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    slab: BytesMut,
    frames: Vec<Frame>,
    reliable_bytes: usize,
}

impl BatchBuilder {
    /// Appends a packet that everybody but `from_alias` gets.
    pub(crate) fn push(&mut self, from_alias: u32, reliable: bool, packet: &rfc5::WsPacket) {
        let begin = self.slab.len();
        put_packet(&mut self.slab, packet);
        let end = self.slab.len();
        if reliable {
            self.reliable_bytes += end - begin;
        }
        self.frames.push(Frame { from_alias, end, reliable });
    }

    /// What was collected so far weighs this much.
    pub(crate) fn bytes(&self) -> usize {
        self.slab.len()
    }

    /// What was collected, if anything was; begins anew.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.frames.is_empty() {
            return None;
        }
        // Ticks resemble each other: the next one will need about as much room.
        let frames = Vec::with_capacity(self.frames.len());
        Some(Batch {
            slab: self.slab.split().freeze(),
            frames: std::mem::replace(&mut self.frames, frames),
            reliable_bytes: std::mem::take(&mut self.reliable_bytes),
        })
    }
}

/// A packet in a frame of its own, for one recipient.
pub(crate) fn packet_frame(packet: &rfc5::WsPacket) -> Bytes {
    let mut out = BytesMut::new();
    put_packet(&mut out, packet);
    out.freeze()
}

fn put_packet(out: &mut BytesMut, packet: &rfc5::WsPacket) {
    let length = packet.encoded_len();
    out.reserve(10 + length);
    put_header(out, OpCode::Binary, length);
    // The room was reserved above, and nothing else can fail.
    let _ = packet.encode(out);
}

/// Wraps a message for the room.
pub(crate) fn packet(message: rfc5::ws_packet::Message) -> rfc5::WsPacket {
    rfc5::WsPacket { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use protocol::rfc5::{WsPeerLeave, ws_packet::Message};

    use super::*;

    fn batch(frames: &[(u32, bool)]) -> Batch {
        let mut builder = BatchBuilder::default();
        for (index, &(from, reliable)) in frames.iter().enumerate() {
            let alias = index as u32 + 1;
            builder.push(from, reliable, &packet(Message::PeerLeaveMessage(WsPeerLeave { alias })));
        }
        let batch = builder.take().unwrap();
        assert!(builder.take().is_none());
        batch
    }

    /// Which frames, by their number, a recipient gets, and in how many slices.
    fn sent(batch: &Batch, alias: u32, reliable_only: bool) -> (Vec<u8>, usize) {
        let mut slices: Vec<Bytes> = Vec::new();
        let count = batch.slices_for(alias, reliable_only, &mut slices);
        // A frame here is two bytes of header and four of packet, of which the last is the number.
        let numbers: Vec<u8> = slices.concat().chunks(6).map(|frame| frame[5]).collect();
        assert_eq!(count, numbers.len() as u64);
        (numbers, slices.len())
    }

    #[test]
    fn everybody_gets_the_frames_of_the_others_in_order() {
        let batch = batch(&[(7, true), (8, true), (8, false), (9, true)]);
        assert_eq!(sent(&batch, 1, false), (vec![1, 2, 3, 4], 1));
        assert_eq!(sent(&batch, 7, false), (vec![2, 3, 4], 1));
        assert_eq!(sent(&batch, 8, false), (vec![1, 4], 2));
        assert_eq!(sent(&batch, 9, false), (vec![1, 2, 3], 1));
    }

    #[test]
    fn only_unreliable_frames_are_left_out_for_a_slow_reader() {
        let batch = batch(&[(7, false), (8, true), (9, false), (7, true)]);
        assert_eq!(sent(&batch, 1, true), (vec![2, 4], 2));
        assert_eq!(sent(&batch, 8, true), (vec![4], 1));
        assert_eq!(batch.reliable_bytes(), 12);
        assert_eq!(batch.bytes(), 24);
    }
}
