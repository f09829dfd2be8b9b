use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rpc::{Backlog, Element};
use tokio::sync::Notify;

/// What waits for the subscriptions of one session, by their ids.
///
/// Whoever publishes puts it in and goes on; the session's task takes it out as its client wants it.
#[derive(Debug)]
pub(crate) struct SubscriptionQueues {
    /// Messages that may wait for one subscription.
    max_messages: usize,
    state: Mutex<QueueState>,
    /// Something came.
    message_added: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    by_id: HashMap<u32, Backlog>,
    bytes: usize,
}

/// Bytes that may wait for one session. At the bound the newest message is dropped, as at that of
/// one subscription.
const MAX_SESSION_BYTES: usize = 1024 * 1024;

impl SubscriptionQueues {
    /// No subscriptions yet, of at most `bound` waiting messages each.
    pub(crate) fn new(bound: usize) -> Self {
        Self { max_messages: bound, state: Mutex::default(), message_added: Notify::new() }
    }

    /// Begins to keep what comes for a subscription.
    pub(crate) fn open(&self, id: u32) {
        self.lock().by_id.insert(id, Backlog::new(self.max_messages));
    }

    /// Forgets a subscription, and what waits for it.
    pub(crate) fn close(&self, id: u32) {
        let mut state = self.lock();
        if let Some(backlog) = state.by_id.remove(&id) {
            state.bytes -= backlog.bytes();
        }
    }

    /// Keeps a message, or drops and counts it.
    pub(crate) fn push(&self, id: u32, message: &Bytes) {
        let mut state = self.lock();
        let fits = state.bytes + message.len() <= MAX_SESSION_BYTES;
        let Some(backlog) = state.by_id.get_mut(&id) else { return };
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
        } else {
            metrics::counter!("atoll_gateway_topic_messages_dropped_total").increment(1);
        }
    }

    /// Counts messages that did not get here.
    pub(crate) fn record_missed(&self, id: u32, count: u64) {
        if let Some(backlog) = self.lock().by_id.get_mut(&id) {
            backlog.miss(count);
        }
    }

    /// Keeps a message in place of all that wait: only the newest counts.
    pub(crate) fn replace(&self, id: u32, message: &Bytes) {
        let mut state = self.lock();
        let Some(backlog) = state.by_id.get_mut(&id) else { return };
        let before = backlog.bytes();
        backlog.replace(message.clone());
        state.bytes = state.bytes - before + message.len();
        self.message_added.notify_one();
    }

    /// The oldest message that waits.
    pub(crate) fn pop(&self, id: u32) -> Option<Element> {
        let mut state = self.lock();
        let element = state.by_id.get_mut(&id)?.pop()?;
        state.bytes -= element.payload.len();
        Some(element)
    }

    /// Waits until something came. Cancel-safe.
    pub(crate) async fn wait_for_message(&self) {
        self.message_added.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_queues_share_one_byte_limit() {
        let backlogs = SubscriptionQueues::new(50);
        let large = Bytes::from(vec![0; MAX_SESSION_BYTES / 2]);
        (1..=3).for_each(|id| backlogs.open(id));
        (1..=3).for_each(|id| backlogs.push(id, &large));
        assert!(backlogs.pop(3).is_none());
        backlogs.close(1);
        backlogs.push(3, &large);
        assert_eq!(backlogs.pop(3).unwrap().missed, 1);
        assert!(backlogs.pop(2).is_some());
        assert_eq!(backlogs.lock().bytes, 0);
        (0..60).for_each(|_| backlogs.push(2, &Bytes::from_static(b"x")));
        assert_eq!(backlogs.lock().bytes, 50);
        backlogs.replace(2, &large);
        assert_eq!(backlogs.lock().bytes, large.len());
    }
}
