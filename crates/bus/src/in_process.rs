use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

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
    /// Messages dropped since the last one that was kept.
    missed: AtomicU64,
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
        subscribers.push(Subscriber { name, patterns, queue, missed: AtomicU64::new(0) });
        receiver
    }
}

impl Subscriber {
    fn offer(&self, mut envelope: Envelope) {
        envelope.missed = self.missed.swap(0, Ordering::Relaxed);
        if let Err(TrySendError::Full(envelope)) = self.queue.try_send(envelope) {
            self.missed.fetch_add(envelope.missed + 1, Ordering::Relaxed);
            metrics::counter!("atoll_bus_dropped_total", "subscriber" => self.name).increment(1);
            tracing::debug!(subscriber = self.name, subject = %envelope.subject, "queue full, message dropped");
        }
    }
}
