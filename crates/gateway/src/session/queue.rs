//! The bounded queue of messages from other tasks to one session.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};
use protocol::Close;

use crate::session::message::{IslandChange, MemberChange, MeshMessage, SessionMessage};

/// Bound of the message queue of one session. If an island change finds the queue full, the session ends,
/// because it must not miss its assignment.
pub(crate) const SESSION_QUEUE_MESSAGES: usize = 256;
/// Part of the queue that is reserved for island changes. A member change that would use it is dropped and
/// counted; the client learns of members from its room, too.
pub(crate) const RESERVED_FOR_ISLAND_CHANGES: usize = 32;
/// The rest, for all other messages.
const UNRESERVED_MESSAGES: usize = SESSION_QUEUE_MESSAGES - RESERVED_FOR_ISLAND_CHANGES;

/// The sending end of a session. Dropping it ends the session.
#[derive(Debug)]
pub(crate) struct SessionSender(Arc<Mutex<Queue>>);

/// The receiving end of a session: its queued messages, then the close code that ends it.
#[derive(Debug)]
pub(crate) struct SessionReceiver(Arc<Mutex<Queue>>);

/// A message found the queue of its session full.
#[derive(Debug)]
pub(crate) struct QueueFull;

/// The queue of a session. It has one allocation while it is empty: a channel of tokio would hold a block of
/// 32 messages for each idle session.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<SessionMessage>,
    /// The close code, once the sender has been closed or dropped.
    ended: Option<Close>,
    /// The session's task has ended: messages are discarded.
    receiver_dropped: bool,
    /// The task that waits for the next message.
    waker: Option<Waker>,
}

/// Creates the message queue of a session.
pub(crate) fn session_queue() -> (SessionSender, SessionReceiver) {
    let queue = Arc::<Mutex<Queue>>::default();
    (SessionSender(queue.clone()), SessionReceiver(queue))
}

impl SessionSender {
    /// Queues an island change. Does nothing if the session's task has ended already.
    pub(crate) fn send_island_change(&self, change: IslandChange) -> Result<(), QueueFull> {
        self.push(SessionMessage::IslandChanged(change), SESSION_QUEUE_MESSAGES)
    }

    /// Queues a member change, unless only the reserved part of the queue is free: then drops it and returns
    /// false.
    pub(crate) fn send_member_change(&self, change: &Arc<MemberChange>) -> bool {
        self.push(SessionMessage::MemberChanged(change.clone()), UNRESERVED_MESSAGES).is_ok()
    }

    /// Queues a message about the mesh; the same rule.
    pub(crate) fn send_mesh_message(&self, message: MeshMessage) -> bool {
        self.push(SessionMessage::Mesh(message), UNRESERVED_MESSAGES).is_ok()
    }

    /// Queues a message if the queue has fewer than `bound` messages.
    fn push(&self, message: SessionMessage, bound: usize) -> Result<(), QueueFull> {
        let mut queue = self.0.lock();
        if queue.receiver_dropped {
            return Ok(());
        }
        if queue.messages.len() >= bound {
            return Err(QueueFull);
        }
        queue.messages.push_back(message);
        wake(queue);
        Ok(())
    }

    /// Ends the session with this close code. Its queued messages are still sent before the close.
    pub(crate) fn close(self, close: Close) {
        self.0.lock().ended = Some(close);
    }
}

impl Drop for SessionSender {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        // The sender was dropped without a close reason: the queue overflowed.
        queue.ended.get_or_insert(Close::TooSlow);
        wake(queue);
    }
}

/// Wakes the session's task. Releases the lock first, so that the task does not wait for it.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl SessionReceiver {
    /// The next message, or the close code once the registry has ended the session and the queue is empty.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<SessionMessage, Close> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<SessionMessage, Close>> {
        let mut queue = self.0.lock();
        if let Some(message) = queue.messages.pop_front() {
            if queue.messages.is_empty() {
                // Frees the buffer, so that an idle session holds none.
                queue.messages = VecDeque::new();
            }
            return Poll::Ready(Ok(message));
        }
        if let Some(close) = queue.ended {
            return Poll::Ready(Err(close));
        }
        match &mut queue.waker {
            Some(waker) => waker.clone_from(context.waker()),
            waker @ None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for SessionReceiver {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.receiver_dropped = true;
        let (messages, waker) = (std::mem::take(&mut queue.messages), queue.waker.take());
        // Dropped without the lock.
        drop(queue);
        drop((messages, waker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn island_change() -> IslandChange {
        IslandChange {
            island: "I1".parse().unwrap(),
            node: None,
            is_mesh: false,
            message: Default::default(),
        }
    }

    fn member_change() -> Arc<MemberChange> {
        let topic = "island.I1.peer_join".parse().unwrap();
        Arc::new(MemberChange { joined: true, topic, message: Default::default() })
    }

    #[tokio::test]
    async fn member_changes_leave_the_reserved_part_to_island_changes() {
        let (sender, mut receiver) = session_queue();
        let bound = SESSION_QUEUE_MESSAGES - RESERVED_FOR_ISLAND_CHANGES;
        let change = member_change();
        let sent = (0..SESSION_QUEUE_MESSAGES).filter(|_| sender.send_member_change(&change)).count();
        assert_eq!(sent, bound);
        (0..RESERVED_FOR_ISLAND_CHANGES).for_each(|_| sender.send_island_change(island_change()).unwrap());
        assert!(sender.send_island_change(island_change()).is_err(), "the queue is full");
        drop(sender);
        for _ in 0..SESSION_QUEUE_MESSAGES {
            receiver.next().await.unwrap();
        }
        assert_eq!(receiver.next().await, Err(Close::TooSlow));
    }

    #[tokio::test]
    async fn empty_queue_holds_no_buffer() {
        let (sender, mut receiver) = session_queue();
        sender.send_island_change(island_change()).unwrap();
        receiver.next().await.unwrap();
        assert_eq!(receiver.0.lock().messages.capacity(), 0);
    }

    #[tokio::test]
    async fn waiting_receiver_is_woken_by_messages_and_the_close() {
        let (sender, mut receiver) = session_queue();
        let received = tokio::spawn(async move { (receiver.next().await, receiver.next().await) });
        tokio::task::yield_now().await;
        sender.send_island_change(island_change()).unwrap();
        tokio::task::yield_now().await;
        sender.close(Close::NewSession);
        let expected = (Ok(SessionMessage::IslandChanged(island_change())), Err(Close::NewSession));
        assert_eq!(received.await.unwrap(), expected);
    }

    #[test]
    fn messages_to_an_ended_task_are_discarded() {
        let (sender, receiver) = session_queue();
        drop(receiver);
        for _ in 0..=SESSION_QUEUE_MESSAGES {
            sender.send_island_change(island_change()).unwrap();
        }
        assert!(sender.0.lock().messages.is_empty());
    }
}
