use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes};
use protocol::Close;
use tokio::sync::Notify;
use ws::{close_answer, close_frame};

use crate::batch::{Batch, Fanout};

/// Bounds of one member's queue, in bytes of memory. They are held against what waits already, so that
/// one large batch ends nobody who keeps up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Above this, unreliable frames are dropped.
    pub(crate) drop_unreliable_above: usize,
    /// Above this, the member is closed as too slow.
    pub(crate) close_above: usize,
}

/// What waits to be written to one member.
#[derive(Debug)]
pub(crate) struct SendQueue {
    queue: Mutex<Queue>,
    limits: QueueLimits,
    ready: Notify,
    close_notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Memory of the items, and of what was taken and is not written yet.
    bytes: usize,
    /// Its last item is a close frame, and nothing comes after it.
    finished: bool,
    /// Why, where the server ends it.
    close_reason: Option<Close>,
}

#[derive(Debug)]
enum Item {
    Shared(Arc<Batch>),
    Single(Bytes),
}

/// What a frame for one member takes beside its bytes: the allocation's header and the item.
const SINGLE_OVERHEAD: usize = 128;

impl Item {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Shared(batch) => batch.memory_bytes(),
            Self::Single(frame) => frame.len() + SINGLE_OVERHEAD,
        }
    }
}

/// How a batch was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushOutcome {
    Whole,
    /// Without its unreliable frames: the reader is slow.
    ReliableOnly,
    /// Not at all: the member is, or now gets, closed.
    Closed,
}

/// What was taken to be written.
#[derive(Debug, Default)]
pub(crate) struct PendingWrite {
    /// In order.
    pub(crate) slices: Slices,
    /// How many frames of others are among them.
    pub(crate) relayed_frames: u64,
    memory_bytes: usize,
    /// Nothing comes after it.
    pub(crate) is_last: bool,
}

impl SendQueue {
    pub(crate) fn new(bounds: QueueLimits) -> Self {
        Self { queue: Mutex::default(), limits: bounds, ready: Notify::new(), close_notify: Notify::new() }
    }

    /// Queues the frames of a tick.
    pub(crate) fn push_batch(&self, fanout: &Fanout) -> PushOutcome {
        let mut queue = self.lock();
        if queue.finished {
            return PushOutcome::Closed;
        }
        let is_slow = queue.bytes > self.limits.drop_unreliable_above;
        let batch = if is_slow { fanout.reliable() } else { Some(fanout.whole()) };
        if let Some(batch) = batch {
            if queue.bytes > self.limits.close_above {
                self.close_locked(&mut queue, Close::TooSlow, Close::TooSlow.reason(), true);
                return PushOutcome::Closed;
            }
            self.push_locked(&mut queue, Item::Shared(batch.clone()));
        }
        if is_slow && fanout.has_unreliable() { PushOutcome::ReliableOnly } else { PushOutcome::Whole }
    }

    /// Queues a frame for this member alone.
    pub(crate) fn push_single(&self, frame: Bytes) {
        let mut queue = self.lock();
        if queue.finished {
            return;
        }
        if queue.bytes > self.limits.close_above {
            return self.close_locked(&mut queue, Close::TooSlow, Close::TooSlow.reason(), true);
        }
        self.push_locked(&mut queue, Item::Single(frame));
    }

    fn push_locked(&self, queue: &mut Queue, item: Item) {
        queue.bytes += item.memory_bytes();
        queue.items.push_back(item);
        self.ready.notify_one();
    }

    /// Ends the queue: what waits is still written, then the close frame, and nothing more.
    pub(crate) fn close(&self, close: Close, reason: &str) {
        let mut queue = self.lock();
        if !queue.finished {
            self.close_locked(&mut queue, close, reason, false);
        }
    }

    fn close_locked(&self, queue: &mut Queue, close: Close, reason: &str, discard: bool) {
        if discard {
            queue.bytes -= queue.items.iter().map(Item::memory_bytes).sum::<usize>();
            queue.items.clear();
        }
        queue.close_reason = Some(close);
        self.finish_locked(queue, close_frame(close.code(), reason));
        self.close_notify.notify_one();
    }

    fn finish_locked(&self, queue: &mut Queue, frame: Bytes) {
        self.push_locked(queue, Item::Single(frame));
        queue.finished = true;
    }

    /// Ends the queue with the answer to the client's close frame.
    pub(crate) fn answer_close(&self, code: Option<u16>) {
        let mut queue = self.lock();
        if !queue.finished {
            self.finish_locked(&mut queue, close_answer(code));
        }
    }

    /// Whether the queue has been ended, by either side.
    pub(crate) fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// Ends the queue for a reader that takes nothing: nothing more is written.
    pub(crate) fn abandon(&self) {
        let mut queue = self.lock();
        if !queue.finished {
            self.close_locked(&mut queue, Close::TooSlow, Close::TooSlow.reason(), true);
        }
    }

    /// Why the queue has been ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<Close> {
        self.lock().close_reason
    }

    /// Waits until the queue has been ended, and says why it was.
    pub(crate) async fn closed(&self) -> Close {
        loop {
            if let Some(close) = self.lock().close_reason {
                return close;
            }
            self.close_notify.notified().await;
        }
    }

    /// Waits until there is something to write for `alias`, and takes all of it.
    pub(crate) async fn take(&self, alias: u32) -> PendingWrite {
        loop {
            let taken = self.try_take(alias);
            if !taken.slices.0.is_empty() || taken.is_last {
                return taken;
            }
            self.ready.notified().await;
        }
    }

    fn try_take(&self, alias: u32) -> PendingWrite {
        let mut queue = self.lock();
        let mut taken = PendingWrite { is_last: queue.finished, ..PendingWrite::default() };
        for item in queue.items.drain(..) {
            taken.memory_bytes += item.memory_bytes();
            match item {
                Item::Shared(batch) => taken.relayed_frames += batch.slices_for(alias, &mut taken.slices.0),
                Item::Single(frame) => taken.slices.0.push_back(frame),
            }
        }
        if taken.slices.0.is_empty() {
            // All of it was the member's own.
            queue.bytes -= taken.memory_bytes;
        }
        taken
    }

    /// Says that what was taken has been written.
    pub(crate) fn mark_written(&self, taken: &PendingWrite) {
        self.lock().bytes -= taken.memory_bytes;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slices that are written with as few system calls as the kernel takes.
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
        for (place, slice) in out.iter_mut().zip(&self.0) {
            *place = IoSlice::new(slice);
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

    const BOUNDS: QueueLimits = QueueLimits { drop_unreliable_above: 500, close_above: 1_000 };

    /// Queues a batch of one frame.
    fn push(outbox: &SendQueue, reliable: bool, body: usize) -> PushOutcome {
        let (mut builder, slabs) = (BatchBuilder::default(), SlabBytes::default());
        builder.set_newest_alias(2);
        let body = vec![0; body].into();
        let update = WsPeerUpdate { from_alias: 2, body, unreliable: !reliable };
        let kind = if reliable { FrameKind::Reliable } else { FrameKind::Unreliable };
        builder.push(2, kind, &packet(Message::PeerUpdateMessage(update)));
        outbox.push_batch(&Fanout::new(builder.take(&slabs).unwrap(), &slabs))
    }

    #[tokio::test]
    async fn slow_reader_loses_unreliable_frames_and_then_is_closed() {
        let outbox = SendQueue::new(BOUNDS);
        assert_eq!(push(&outbox, false, 600), PushOutcome::Whole);
        assert_eq!(push(&outbox, false, 400), PushOutcome::ReliableOnly);
        assert_eq!(push(&outbox, true, 400), PushOutcome::Whole);
        assert_eq!(push(&outbox, false, 400), PushOutcome::ReliableOnly, "nothing that it must not miss");
        assert_eq!(push(&outbox, true, 400), PushOutcome::Closed);
        assert_eq!(outbox.closed().await, Close::TooSlow);
        let mut taken = outbox.take(1).await;
        assert!(taken.is_last);
        assert_eq!((taken.relayed_frames, taken.slices.0.len()), (0, 1), "only the close frame is left");
        assert_eq!(taken.slices.copy_to_bytes(4)[2..], Close::TooSlow.code().to_be_bytes());
        assert_eq!(push(&outbox, true, 1), PushOutcome::Closed);
    }

    #[tokio::test]
    async fn taken_frames_count_until_they_are_written() {
        let outbox = SendQueue::new(BOUNDS);
        push(&outbox, true, 600);
        let taken = outbox.take(1).await;
        assert_eq!(push(&outbox, false, 400), PushOutcome::ReliableOnly);
        outbox.mark_written(&taken);
        assert_eq!(push(&outbox, false, 400), PushOutcome::Whole);
    }

    #[tokio::test]
    async fn large_batch_does_not_close_a_reader_that_keeps_up() {
        let outbox = SendQueue::new(BOUNDS);
        for reliable in [true, false] {
            assert_eq!(push(&outbox, reliable, 10_000), PushOutcome::Whole);
            outbox.mark_written(&outbox.take(1).await);
        }
    }

    #[tokio::test]
    async fn queued_frames_are_written_before_the_close_frame() {
        let outbox = SendQueue::new(BOUNDS);
        push(&outbox, true, 10);
        outbox.close(Close::Moved, "away");
        outbox.close(Close::TooSlow, "only the first counts");
        let taken = outbox.take(1).await;
        assert_eq!((taken.relayed_frames, taken.slices.0.len(), taken.is_last), (1, 2, true));
        assert_eq!(outbox.closed().await, Close::Moved);
    }

    #[tokio::test]
    async fn batches_of_own_frames_free_their_queue_bytes() {
        let outbox = SendQueue::new(BOUNDS);
        for _ in 0..100 {
            assert_eq!(push(&outbox, true, 400), PushOutcome::Whole);
            assert!(!outbox.try_take(2).is_last);
        }
        assert_eq!(outbox.lock().bytes, 0);
    }
    #[test]
    fn small_single_frames_reach_the_limit() {
        let outbox = SendQueue::new(BOUNDS);
        let fits = (0..100).take_while(|_| {
            outbox.push_single(Bytes::from_static(&[0x8a, 0]));
            !outbox.is_finished()
        });
        assert_eq!(fits.count(), BOUNDS.close_above / (SINGLE_OVERHEAD + 2) + 1);
    }
}
