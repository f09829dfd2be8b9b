use std::sync::{PoisonError, RwLock};

use protocol::subject;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::Envelope;

/// The bus of a realm in one process: a list of subscribers.
///
/// Roles subscribe by pattern, a dozen in all, so that a walk over the list is the whole routing.
#[derive(Debug, Default)]
pub(crate) struct InProcess {
    subscribers: RwLock<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    name: &'static str,
    patterns: Vec<String>,
    queue: mpsc::Sender<Envelope>,
}

impl InProcess {
    pub(crate) fn publish(&self, envelope: Envelope) {
        let mut gone = false;
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if subscriber.patterns.iter().any(|pattern| subject::matches(pattern, &envelope.subject)) {
                gone |= subscriber.queue.is_closed();
                subscriber.offer(envelope.clone());
            }
        }
        if gone {
            let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
            subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        }
    }

    pub(crate) fn subscribe(
        &self,
        name: &'static str,
        patterns: &[&str],
        capacity: usize,
    ) -> mpsc::Receiver<Envelope> {
        let (queue, receiver) = mpsc::channel(capacity);
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(Subscriber { name, patterns, queue });
        receiver
    }
}

impl Subscriber {
    fn offer(&self, envelope: Envelope) {
        if let Err(TrySendError::Full(envelope)) = self.queue.try_send(envelope) {
            metrics::counter!("atoll_bus_dropped_total", "subscriber" => self.name).increment(1);
            tracing::debug!(subscriber = self.name, subject = %envelope.subject, "queue full, message dropped");
        }
    }
}
