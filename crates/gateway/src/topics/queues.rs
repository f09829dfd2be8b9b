//! The bounded message queues of the subscriptions of one session.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use rpc::{Backlog, Element};
use tokio::sync::Notify;

use crate::metrics;

/// The message queues of the subscriptions of one session, by subscription id.
///
/// A publisher adds messages without waiting; the session's task removes them as its client requests them.
#[derive(Debug)]
pub(crate) struct SubscriptionQueues {
    /// Bound of the queue of one subscription, in messages.
    max_messages: usize,
    state: Mutex<QueueState>,
    /// Notified when a message is added.
    message_added: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    by_id: HashMap<u32, Backlog>,
    bytes: usize,
}

/// Bound of all queues of one session together, in bytes. At either bound the newest message is dropped and
/// counted.
const MAX_SESSION_BYTES: usize = 1024 * 1024;

impl SubscriptionQueues {
    /// Without queues; each later one holds at most `max_messages`.
    pub(crate) fn new(max_messages: usize) -> Self {
        Self { max_messages, state: Mutex::default(), message_added: Notify::new() }
    }

    /// Creates the queue of a subscription.
    pub(crate) fn open(&self, id: u32) {
        self.state.lock().by_id.insert(id, Backlog::new(self.max_messages));
    }

    /// Removes the queue of a subscription with its messages.
    pub(crate) fn close(&self, id: u32) {
        let mut state = self.state.lock();
        if let Some(backlog) = state.by_id.remove(&id) {
            state.bytes -= backlog.bytes();
        }
    }

    /// Adds a message, or drops and counts it if a bound is reached.
    pub(crate) fn push(&self, id: u32, message: &Bytes) {
        if !self.try_push(id, message) {
            metrics::topic_messages_dropped().increment(1);
        }
    }

    /// Adds a message and returns true, or drops it if a bound is reached. The next message reports the drop.
    pub(crate) fn try_push(&self, id: u32, message: &Bytes) -> bool {
        let mut state = self.state.lock();
        let fits = state.bytes + message.len() <= MAX_SESSION_BYTES;
        let Some(backlog) = state.by_id.get_mut(&id) else { return true };
        let kept = match fits {
            true => backlog.push(message.clone()).is_ok(),
            false => {
                backlog.miss(1);
                false
            }
        };
        if kept {
            state.bytes += message.len();
            self.message_added.notify_one();
        }
        kept
    }

    /// Counts messages that were lost before they reached the queue.
    pub(crate) fn record_missed(&self, id: u32, count: u64) {
        if let Some(backlog) = self.state.lock().by_id.get_mut(&id) {
            backlog.miss(count);
        }
    }

    /// Replaces all messages of a queue by one, because only the newest matters. Not subject to the bounds.
    pub(crate) fn replace(&self, id: u32, message: &Bytes) {
        let mut state = self.state.lock();
        let Some(backlog) = state.by_id.get_mut(&id) else { return };
        let before = backlog.bytes();
        backlog.replace(message.clone());
        state.bytes = state.bytes - before + message.len();
        self.message_added.notify_one();
    }

    /// Removes and returns the oldest message.
    pub(crate) fn pop(&self, id: u32) -> Option<Element> {
        let mut state = self.state.lock();
        let element = state.by_id.get_mut(&id)?.pop()?;
        state.bytes -= element.payload.len();
        Some(element)
    }

    /// Waits until a message is added. Cancel-safe.
    pub(crate) async fn wait_for_message(&self) {
        self.message_added.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_queues_share_one_byte_limit() {
        let queues = SubscriptionQueues::new(50);
        let large = Bytes::from(vec![0; MAX_SESSION_BYTES / 2]);
        (1..=3).for_each(|id| queues.open(id));
        (1..=3).for_each(|id| queues.push(id, &large));
        assert!(queues.pop(3).is_none());
        queues.close(1);
        queues.push(3, &large);
        assert_eq!(queues.pop(3).unwrap().missed, 1);
        assert!(queues.pop(2).is_some());
        assert_eq!(queues.state.lock().bytes, 0);
        (0..60).for_each(|_| queues.push(2, &Bytes::from_static(b"x")));
        assert_eq!(queues.state.lock().bytes, 50);
        queues.replace(2, &large);
        assert_eq!(queues.state.lock().bytes, large.len());
    }
}
