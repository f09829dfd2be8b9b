//! The queue of frames that wait to be written to one member.

use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

use bytes::{Buf, Bytes};
use parking_lot::{Mutex, MutexGuard};
use protocol::Close;
use ws::{close_answer, close_frame};

use crate::batch::{Batch, Fanout};

/// Limits of one member's queue, in bytes of memory. They are compared with the queue before a batch is
/// added, so that one large batch does not close a reader that keeps up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// If the queue is larger than this, unreliable frames are dropped.
    pub(crate) drop_unreliable_above: usize,
    /// If the queue is larger than this, the member is closed as too slow.
    pub(crate) close_above: usize,
}

/// The frames that wait to be written to one member, up to a close frame.
#[derive(Debug)]
pub(crate) struct SendQueue {
    queue: Mutex<Queue>,
    /// Memory of the queued items, and of the frames that were taken but not completely written. Only
    /// additions need the queue lock.
    bytes: AtomicUsize,
    limits: QueueLimits,
    /// Reports to the shard of the member that there is something to write.
    waker: Waker,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// The last item is a close frame; no item may follow it.
    finished: bool,
    /// The close code, if the server closed the queue.
    close_reason: Option<Close>,
}

#[derive(Debug)]
enum Item {
    Shared(Arc<Batch>),
    Single(Bytes),
}

/// Memory of a single frame beside its bytes: the header of the allocation and the item.
const SINGLE_OVERHEAD: usize = 128;

impl Item {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Shared(batch) => batch.memory_bytes(),
            Self::Single(frame) => frame.len() + SINGLE_OVERHEAD,
        }
    }
}

/// The result of queueing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushOutcome {
    /// Queued with all its frames.
    Whole,
    /// Queued without its unreliable frames, because the reader is slow.
    ReliableOnly,
    /// Not queued: the member is closed, or is being closed as too slow.
    Closed,
}

/// Frames that were taken from the queue to be written.
#[derive(Debug, Default)]
pub(crate) struct PendingWrite {
    /// In queue order.
    pub(crate) slices: Slices,
    /// Their size when they were taken, in bytes.
    pub(crate) bytes: usize,
    /// The number of frames of other members among them.
    pub(crate) relayed_frames: u64,
    memory_bytes: usize,
}

impl SendQueue {
    /// An empty queue, which calls `waker` when something is queued.
    pub(crate) fn new(limits: QueueLimits, waker: Waker) -> Self {
        Self { queue: Mutex::default(), bytes: AtomicUsize::default(), limits, waker }
    }

    /// Queues a batch.
    pub(crate) fn push_batch(&self, fanout: &Fanout) -> PushOutcome {
        let queue = self.queue.lock();
        if queue.finished {
            return PushOutcome::Closed;
        }
        let bytes = self.bytes.load(Relaxed);
        let is_slow = bytes > self.limits.drop_unreliable_above;
        let batch = if is_slow { fanout.reliable() } else { Some(fanout.whole()) };
        if let Some(batch) = batch {
            if bytes > self.limits.close_above {
                self.abandon_locked(queue);
                return PushOutcome::Closed;
            }
            self.push_locked(queue, Item::Shared(batch.clone()));
        }
        if is_slow && fanout.has_unreliable() { PushOutcome::ReliableOnly } else { PushOutcome::Whole }
    }

    /// Queues a frame for this member alone.
    pub(crate) fn push_single(&self, frame: Bytes) {
        let queue = self.queue.lock();
        if queue.finished {
            return;
        }
        if self.bytes.load(Relaxed) > self.limits.close_above {
            return self.abandon_locked(queue);
        }
        self.push_locked(queue, Item::Single(frame));
    }

    /// Releases the lock before it calls the waker, so that the shard does not wait for the lock.
    fn push_locked(&self, mut queue: MutexGuard<'_, Queue>, item: Item) {
        self.bytes.fetch_add(item.memory_bytes(), Relaxed);
        queue.items.push_back(item);
        drop(queue);
        self.waker.wake_by_ref();
    }

    /// Closes the queue: the queued frames are still written, then the close frame, and nothing more.
    pub(crate) fn close(&self, close: Close, reason: &str) {
        let queue = self.queue.lock();
        if !queue.finished {
            self.close_locked(queue, close, reason);
        }
    }

    fn close_locked(&self, mut queue: MutexGuard<'_, Queue>, close: Close, reason: &str) {
        queue.close_reason = Some(close);
        self.finish_locked(queue, close_frame(close.code(), reason));
    }

    fn finish_locked(&self, mut queue: MutexGuard<'_, Queue>, frame: Bytes) {
        queue.finished = true;
        self.push_locked(queue, Item::Single(frame));
    }

    /// Closes the queue with the reply to the client's close frame.
    pub(crate) fn answer_close(&self, code: Option<u16>) {
        let queue = self.queue.lock();
        if !queue.finished {
            self.finish_locked(queue, close_answer(code));
        }
    }

    /// Whether the queue has been closed, by either side.
    pub(crate) fn is_finished(&self) -> bool {
        self.queue.lock().finished
    }

    /// Closes the queue of a reader that reads nothing: the queued frames are dropped.
    pub(crate) fn abandon(&self) {
        let queue = self.queue.lock();
        if !queue.finished {
            self.abandon_locked(queue);
        }
    }

    fn abandon_locked(&self, mut queue: MutexGuard<'_, Queue>) {
        let discarded = queue.items.drain(..).map(|item| item.memory_bytes()).sum();
        self.bytes.fetch_sub(discarded, Relaxed);
        self.close_locked(queue, Close::TooSlow, Close::TooSlow.reason());
    }

    /// The close code, if the server closed the queue.
    pub(crate) fn close_reason(&self) -> Option<Close> {
        self.queue.lock().close_reason
    }

    /// Takes all queued frames that are for `alias`; none if the queue is empty, or if all of them came from the
    /// member itself.
    pub(crate) fn take(&self, alias: u32) -> PendingWrite {
        let mut queue = self.queue.lock();
        let mut pending = PendingWrite::default();
        for item in queue.items.drain(..) {
            pending.memory_bytes += item.memory_bytes();
            match item {
                Item::Shared(batch) => {
                    pending.relayed_frames += batch.slices_for(alias, &mut pending.slices.0)
                }
                Item::Single(frame) => pending.slices.0.push_back(frame),
            }
        }
        pending.bytes = pending.slices.remaining();
        if pending.bytes == 0 {
            // Nothing will be written.
            self.mark_written(&pending);
            pending.memory_bytes = 0;
        }
        pending
    }

    /// Frees the memory of taken frames after they have been written.
    pub(crate) fn mark_written(&self, pending: &PendingWrite) {
        self.bytes.fetch_sub(pending.memory_bytes, Relaxed);
    }
}

/// Slices that are written with vectored writes, as many at a time as the kernel accepts.
#[derive(Debug, Default)]
pub(crate) struct Slices(VecDeque<Bytes>);

impl Buf for Slices {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |slice| &slice[..])
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (target, slice) in out.iter_mut().zip(&self.0) {
            *target = IoSlice::new(slice);
            filled += 1;
        }
        filled
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.0.front_mut() {
            if count < front.len() {
                return front.advance(count);
            }
            count -= front.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::rfc5::{WsPeerUpdate, ws_packet::Message};

    use super::*;
    use crate::batch::{BatchBuilder, FrameKind, SlabBytes, packet};

    const LIMITS: QueueLimits = QueueLimits { drop_unreliable_above: 500, close_above: 1_000 };

    /// Queues a batch of one frame.
    fn push(queue: &SendQueue, reliable: bool, body: usize) -> PushOutcome {
        let (mut builder, slabs) = (BatchBuilder::default(), SlabBytes::default());
        builder.set_newest_alias(2);
        let body = vec![0; body].into();
        let update = WsPeerUpdate { from_alias: 2, body, unreliable: !reliable };
        let kind = if reliable { FrameKind::Reliable } else { FrameKind::Unreliable };
        builder.push(2, kind, &packet(Message::PeerUpdateMessage(update)));
        queue.push_batch(&Fanout::new(builder.take(&slabs).unwrap(), &slabs))
    }

    #[test]
    fn slow_reader_loses_unreliable_frames_and_then_is_closed() {
        let queue = SendQueue::new(LIMITS, Waker::noop().clone());
        assert_eq!(push(&queue, false, 600), PushOutcome::Whole);
        assert_eq!(push(&queue, false, 400), PushOutcome::ReliableOnly);
        assert_eq!(push(&queue, true, 400), PushOutcome::Whole);
        assert_eq!(push(&queue, false, 400), PushOutcome::ReliableOnly, "only unreliable frames are dropped");
        assert_eq!(push(&queue, true, 400), PushOutcome::Closed);
        assert_eq!(queue.close_reason(), Some(Close::TooSlow));
        let mut pending = queue.take(1);
        assert!(queue.is_finished());
        assert_eq!((pending.relayed_frames, pending.slices.0.len()), (0, 1), "only the close frame remains");
        assert_eq!(pending.slices.copy_to_bytes(4)[2..], Close::TooSlow.code().to_be_bytes());
        assert_eq!(push(&queue, true, 1), PushOutcome::Closed);
    }

    #[test]
    fn taken_frames_count_until_they_are_written() {
        let queue = SendQueue::new(LIMITS, Waker::noop().clone());
        push(&queue, true, 600);
        let pending = queue.take(1);
        assert_eq!(push(&queue, false, 400), PushOutcome::ReliableOnly);
        queue.mark_written(&pending);
        assert_eq!(push(&queue, false, 400), PushOutcome::Whole);
    }

    #[test]
    fn large_batch_does_not_close_a_reader_that_keeps_up() {
        let queue = SendQueue::new(LIMITS, Waker::noop().clone());
        for reliable in [true, false] {
            assert_eq!(push(&queue, reliable, 10_000), PushOutcome::Whole);
            queue.mark_written(&queue.take(1));
        }
    }

    #[test]
    fn queued_frames_are_written_before_the_close_frame() {
        let queue = SendQueue::new(LIMITS, Waker::noop().clone());
        push(&queue, true, 10);
        queue.close(Close::Moved, "away");
        queue.close(Close::TooSlow, "only the first counts");
        let pending = queue.take(1);
        assert_eq!((pending.relayed_frames, pending.slices.0.len()), (1, 2));
        assert_eq!(queue.close_reason(), Some(Close::Moved));
    }

    #[test]
    fn batches_of_own_frames_free_their_queue_bytes() {
        let queue = SendQueue::new(LIMITS, Waker::noop().clone());
        for _ in 0..100 {
            assert_eq!(push(&queue, true, 400), PushOutcome::Whole);
            assert!(!queue.take(2).slices.has_remaining());
        }
        assert_eq!(queue.bytes.load(Relaxed), 0);
    }

    #[test]
    fn small_single_frames_reach_the_limit() {
        let queue = SendQueue::new(LIMITS, Waker::noop().clone());
        let fits = (0..100).take_while(|_| {
            queue.push_single(Bytes::from_static(&[0x8a, 0]));
            !queue.is_finished()
        });
        assert_eq!(fits.count(), LIMITS.close_above / (SINGLE_OVERHEAD + 2) + 1);
    }
}
