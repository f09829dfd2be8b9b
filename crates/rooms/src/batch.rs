//! Batches: the frames of a room between two flushes, encoded once and shared by all recipients.

use std::{
    cell::OnceCell,
    mem,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::{Bytes, BytesMut};
use protocol::{Message, rfc5};
use ws::{OpCode, put_header};

/// The frames of one room and one tick, encoded once and shared by all recipients.
///
/// Each recipient is sent the slab without the frames that it sent itself and without the frames from before
/// it entered. Each slab is an allocation of its own, exactly as large as its frames: a slow reader that
/// holds one batch keeps no bytes of another one alive.
#[derive(Debug)]
pub(crate) struct Batch {
    slab: Bytes,
    frames: Vec<Frame>,
    reliable_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    from_alias: u32,
    /// The newest member when the frame was queued. Members that entered later are not sent the frame.
    newest_alias: u32,
    /// The end of the frame in the slab. It begins at the end of the previous frame.
    end: u32,
    kind: FrameKind,
}

/// The recipients of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// All members, but a slow reader may lose it.
    Unreliable,
    /// All members.
    Reliable,
    /// Reliable, but only for members newer than the sender: the older ones were never sent its join.
    NewerOnly,
}

impl Frame {
    fn is_addressed_to(self, alias: u32) -> bool {
        self.from_alias != alias
            && !is_newer(alias, self.newest_alias)
            && (self.kind != FrameKind::NewerOnly || is_newer(alias, self.from_alias))
    }

    fn is_reliable(self) -> bool {
        self.kind != FrameKind::Unreliable
    }
}

/// Whether `alias` was assigned after `other`. Aliases wrap at 2^32: serial number arithmetic (RFC 1982).
pub(crate) fn is_newer(alias: u32, other: u32) -> bool {
    alias != other && alias.wrapping_sub(other) < 1 << 31
}

/// The frames with their ranges in the slab.
fn ranges(frames: &[Frame]) -> impl Iterator<Item = (Frame, Range<usize>)> {
    frames.iter().scan(0, |begin, &frame| {
        let end = frame.end as usize;
        Some((frame, mem::replace(begin, end)..end))
    })
}

/// Memory of a queued batch beside slab and frames: headers of its allocations and reference counts.
const BATCH_OVERHEAD: usize = 128;

impl Batch {
    /// The memory that the batch occupies.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.slab.len() + self.frames.len() * size_of::<Frame>() + BATCH_OVERHEAD
    }

    /// Copies the reliable frames to a slab of their own; `None` if there are none.
    fn reliable(&self, slabs: &SlabBytes) -> Option<Self> {
        let mut slab = Vec::with_capacity(self.reliable_bytes);
        let mut frames = Vec::new();
        for (frame, range) in ranges(&self.frames).filter(|(frame, _)| frame.is_reliable()) {
            slab.extend_from_slice(&self.slab[range]);
            frames.push(Frame { end: slab.len() as u32, ..frame });
        }
        frames.shrink_to_fit();
        let reliable_bytes = slab.len();
        (!frames.is_empty()).then(|| Self { slab: slabs.slab(slab.into()), frames, reliable_bytes })
    }

    /// Appends the part of the slab that `alias` is sent to `out`, in as few slices as possible. Returns the
    /// number of frames.
    pub(crate) fn slices_for(&self, alias: u32, out: &mut impl Extend<Bytes>) -> u64 {
        let (mut run, mut begin, mut count) = (0..0, 0, 0);
        for frame in &self.frames {
            let end = frame.end as usize;
            if frame.is_addressed_to(alias) {
                if run.end != begin {
                    out.extend((!run.is_empty()).then(|| self.slab.slice(run.clone())));
                    run.start = begin;
                }
                run.end = end;
                count += 1;
            }
            begin = end;
        }
        out.extend((!run.is_empty()).then(|| self.slab.slice(run)));
        count
    }
}

/// A batch that is being queued for the members of a room.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    whole: Arc<Batch>,
    /// The reliable frames, for slow readers. Copied for the first of them and shared by all, so that slow
    /// readers do not keep the slab of the whole batch alive.
    reliable: OnceCell<Option<Arc<Batch>>>,
    slabs: &'a SlabBytes,
}

impl<'a> Fanout<'a> {
    pub(crate) fn new(batch: Batch, slabs: &'a SlabBytes) -> Self {
        Self { whole: Arc::new(batch), reliable: OnceCell::new(), slabs }
    }

    pub(crate) fn whole(&self) -> &Arc<Batch> {
        &self.whole
    }

    /// The part that must not be dropped; `None` if all frames are unreliable.
    pub(crate) fn reliable(&self) -> Option<&Arc<Batch>> {
        if !self.has_unreliable() {
            return Some(&self.whole);
        }
        self.reliable.get_or_init(|| self.whole.reliable(self.slabs).map(Arc::new)).as_ref()
    }

    pub(crate) fn has_unreliable(&self) -> bool {
        self.whole.reliable_bytes < self.whole.slab.len()
    }
}

/// The total size of all slabs that are still referenced, by queues or by writes in progress.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlabBytes(Arc<AtomicUsize>);

struct Slab {
    bytes: Box<[u8]>,
    total: SlabBytes,
}

impl SlabBytes {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn slab(&self, bytes: Box<[u8]>) -> Bytes {
        self.0.fetch_add(bytes.len(), Relaxed);
        Bytes::from_owner(Slab { bytes, total: self.clone() })
    }
}

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.total.0.fetch_sub(self.bytes.len(), Relaxed);
    }
}

/// Collects the frames of one tick.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    /// Never shared: each batch gets a copy. Splitting a `BytesMut` would keep the whole allocation alive as
    /// long as any batch that was cut from it.
    buffer: BytesMut,
    frames: Vec<Frame>,
    reliable_bytes: usize,
    newest_alias: u32,
}

/// A buffer with at most this capacity is never reallocated to a smaller one.
const MIN_BUFFER_BYTES: usize = 4096;

impl BatchBuilder {
    /// Records the newest member. It is sent the frames from now on.
    pub(crate) fn set_newest_alias(&mut self, alias: u32) {
        self.newest_alias = alias;
    }

    /// Appends a packet for all current members but `from_alias`.
    pub(crate) fn push(&mut self, from_alias: u32, kind: FrameKind, packet: &rfc5::WsPacket) {
        let begin = self.buffer.len();
        put_packet(&mut self.buffer, packet);
        // A room is flushed long before its batch reaches 4 GiB.
        let end = self.buffer.len() as u32;
        let frame = Frame { from_alias, newest_alias: self.newest_alias, end, kind };
        if frame.is_reliable() {
            self.reliable_bytes += self.buffer.len() - begin;
        }
        self.frames.push(frame);
    }

    /// The size of the collected frames, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The size of the collected frames that must not be dropped, in bytes.
    pub(crate) fn reliable_bytes(&self) -> usize {
        self.reliable_bytes
    }

    /// The number of queued reliable frames of an alias.
    pub(crate) fn reliable_count(&self, from_alias: u32) -> usize {
        self.frames.iter().filter(|frame| frame.from_alias == from_alias && frame.is_reliable()).count()
    }

    /// Removes all frames of an alias.
    pub(crate) fn remove(&mut self, from_alias: u32) {
        self.retain(|frame| frame.from_alias != from_alias);
    }

    /// Removes the unreliable frames; returns their number.
    pub(crate) fn remove_unreliable(&mut self) -> usize {
        self.retain(Frame::is_reliable)
    }

    fn retain(&mut self, keep: impl Fn(Frame) -> bool) -> usize {
        let count = self.frames.len();
        let (mut begin, mut kept) = (0, 0);
        self.reliable_bytes = 0;
        self.frames.retain_mut(|frame| {
            let range = mem::replace(&mut begin, frame.end as usize)..frame.end as usize;
            let keep = keep(*frame);
            if keep {
                let length = range.len();
                self.buffer.copy_within(range, kept);
                kept += length;
                frame.end = kept as u32;
                self.reliable_bytes += if frame.is_reliable() { length } else { 0 };
            }
            keep
        });
        self.buffer.truncate(kept);
        count - self.frames.len()
    }

    /// Returns the collected frames as a batch, if there are any, and starts a new one.
    pub(crate) fn take(&mut self, slabs: &SlabBytes) -> Option<Batch> {
        if self.frames.is_empty() {
            return None;
        }
        let slab = slabs.slab(Box::from(&self.buffer[..]));
        // Successive batches have similar sizes, so a buffer of more than four times this size is replaced by
        // a smaller one.
        if self.buffer.capacity() > MIN_BUFFER_BYTES.max(4 * slab.len()) {
            self.buffer = BytesMut::with_capacity(slab.len());
            self.frames.shrink_to(self.frames.len());
        }
        self.buffer.clear();
        let frames = self.frames.as_slice().to_vec();
        self.frames.clear();
        Some(Batch { slab, frames, reliable_bytes: mem::take(&mut self.reliable_bytes) })
    }
}

/// Encodes a packet as a frame for a single recipient.
pub(crate) fn packet_frame(packet: &rfc5::WsPacket) -> Bytes {
    let mut out = BytesMut::new();
    put_packet(&mut out, packet);
    out.freeze()
}

fn put_packet(out: &mut BytesMut, packet: &rfc5::WsPacket) {
    let length = packet.encoded_len();
    out.reserve(10 + length);
    put_header(out, OpCode::Binary, length);
    // The space was reserved above, and encoding has no other error.
    let _ = packet.encode(out);
}

/// Wraps a message in a packet.
pub(crate) fn packet(message: rfc5::ws_packet::Message) -> rfc5::WsPacket {
    rfc5::WsPacket { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use protocol::rfc5::{WsPeerLeave, ws_packet::Message};

    use super::{FrameKind::*, *};

    fn push(builder: &mut BatchBuilder, from: u32, kind: FrameKind) {
        let alias = builder.frames.len() as u32 + 1;
        builder.push(from, kind, &packet(Message::PeerLeaveMessage(WsPeerLeave { alias })));
    }

    fn batch(frames: &[(u32, FrameKind)]) -> Batch {
        let mut builder = BatchBuilder::default();
        builder.set_newest_alias(9);
        frames.iter().for_each(|&(from, kind)| push(&mut builder, from, kind));
        let batch = builder.take(&SlabBytes::default()).unwrap();
        assert!(builder.take(&SlabBytes::default()).is_none());
        batch
    }

    /// The frames that a recipient is sent, by number, and the number of slices.
    fn frames_for(batch: &Batch, alias: u32) -> (Vec<u8>, usize) {
        let mut slices: Vec<Bytes> = Vec::new();
        let count = batch.slices_for(alias, &mut slices);
        // Each frame of these tests is two bytes of header and four of packet; the last byte is the number.
        let numbers: Vec<u8> = slices.concat().chunks(6).map(|frame| frame[5]).collect();
        assert_eq!(count, numbers.len() as u64);
        (numbers, slices.len())
    }

    #[test]
    fn each_member_gets_the_frames_of_all_others_in_order() {
        let batch = batch(&[(7, Reliable), (8, Reliable), (8, Unreliable), (9, Reliable)]);
        assert_eq!(frames_for(&batch, 1), (vec![1, 2, 3, 4], 1));
        assert_eq!(frames_for(&batch, 7), (vec![2, 3, 4], 1));
        assert_eq!(frames_for(&batch, 8), (vec![1, 4], 2));
        assert_eq!(frames_for(&batch, 9), (vec![1, 2, 3], 1));
    }

    #[test]
    fn slow_reader_loses_only_unreliable_frames() {
        let frames = [(7, Unreliable), (8, Reliable), (9, Unreliable), (7, Reliable)];
        let (whole, slabs) = (batch(&frames), SlabBytes::default());
        let fanout = Fanout::new(whole, &slabs);
        let reliable = fanout.reliable().unwrap().clone();
        assert_eq!(frames_for(&reliable, 1), (vec![2, 4], 1));
        assert_eq!(frames_for(&reliable, 8), (vec![4], 1));
        assert!(Arc::ptr_eq(&reliable, fanout.reliable().unwrap()), "slow readers share one copy");
        assert_eq!(slabs.get(), 12);
        assert!(Fanout::new(batch(&[(7, Unreliable)]), &slabs).reliable().is_none());
        let all_reliable = Fanout::new(batch(&[(7, Reliable)]), &slabs);
        assert!(Arc::ptr_eq(all_reliable.whole(), all_reliable.reliable().unwrap()));
    }

    #[test]
    fn new_member_gets_only_frames_queued_after_it_joined() {
        let mut builder = BatchBuilder::default();
        builder.set_newest_alias(u32::MAX);
        push(&mut builder, 7, Reliable);
        // The alias wraps around.
        builder.set_newest_alias(1);
        push(&mut builder, 7, Reliable);
        push(&mut builder, u32::MAX, NewerOnly);
        let batch = builder.take(&SlabBytes::default()).unwrap();
        assert_eq!(frames_for(&batch, 1), (vec![2, 3], 1));
        assert_eq!(frames_for(&batch, u32::MAX - 1), (vec![1, 2], 1));
    }

    #[test]
    fn removed_frames_leave_no_bytes_behind() {
        let mut builder = BatchBuilder::default();
        builder.set_newest_alias(9);
        for (from, kind) in [(7, Reliable), (8, Reliable), (7, Unreliable), (8, Unreliable), (9, Reliable)] {
            push(&mut builder, from, kind);
        }
        assert_eq!((builder.reliable_count(7), builder.reliable_bytes()), (1, 18));
        builder.remove(7);
        assert_eq!((builder.bytes(), builder.reliable_bytes()), (18, 12));
        assert_eq!(builder.remove_unreliable(), 1);
        assert_eq!((builder.bytes(), builder.reliable_bytes()), (12, 12));
        assert_eq!(frames_for(&builder.take(&SlabBytes::default()).unwrap(), 1), (vec![2, 5], 1));
    }

    #[test]
    fn small_batches_share_no_allocation() {
        let (mut builder, slabs) = (BatchBuilder::default(), SlabBytes::default());
        let mut held = Vec::new();
        for round in 0..1_000 {
            (0..100).for_each(|_| push(&mut builder, 7, Reliable));
            let large = builder.take(&slabs);
            push(&mut builder, 7, Reliable);
            held.extend(builder.take(&slabs));
            drop(large);
            assert_eq!(slabs.get(), (round + 1) * 6);
        }
    }
}
