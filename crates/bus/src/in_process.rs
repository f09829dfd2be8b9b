//! The bus within one process.

use std::sync::Arc;

use parking_lot::RwLock;
use protocol::subject;
use tokio::sync::{mpsc, watch};

use crate::{envelope::Envelope, fencing::EpochFence, subscriber_queue::SubscriberQueue};

/// A list of subscribers.
///
/// Roles subscribe by pattern and there are about a dozen subscriptions in all, so that a scan of the list is
/// enough for routing.
#[derive(Debug, Default)]
pub(crate) struct InProcess {
    subscribers: RwLock<Vec<Subscriber>>,
    pub(crate) fence: Arc<EpochFence>,
    /// Always 0: there is no connection to lose.
    pub(crate) reconnects: watch::Sender<u64>,
}

#[derive(Debug)]
struct Subscriber {
    patterns: Vec<String>,
    queue: SubscriberQueue,
}

impl InProcess {
    pub(crate) fn publish(&self, envelope: Envelope) {
        let mut found_closed = false;
        for subscriber in self.subscribers.read().iter() {
            if subscriber.patterns.iter().any(|pattern| subject::matches(pattern, &envelope.subject)) {
                found_closed |= subscriber.queue.is_closed();
                subscriber.queue.offer(envelope.clone());
            }
        }
        if found_closed {
            self.subscribers.write().retain(|subscriber| !subscriber.queue.is_closed());
        }
    }

    pub(crate) fn subscribe(
        &self,
        name: &'static str,
        patterns: &[&str],
        capacity: usize,
    ) -> mpsc::Receiver<Envelope> {
        let (queue, receiver) = SubscriberQueue::new(name, capacity, self.fence.clone());
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        self.subscribers.write().push(Subscriber { patterns, queue });
        receiver
    }
}
