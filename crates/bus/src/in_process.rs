use std::sync::{Arc, PoisonError, RwLock};

use protocol::subject;
use tokio::sync::{mpsc, watch};

use crate::{Envelope, epochs::Epochs, inbox::Inbox};

/// The bus of a realm in one process: a list of subscribers.
///
/// Roles subscribe by pattern, a dozen in all, so that a walk over the list is the whole routing.
#[derive(Debug, Default)]
pub(crate) struct InProcess {
    subscribers: RwLock<Vec<Subscriber>>,
    pub(crate) epochs: Arc<Epochs>,
    /// Never any.
    pub(crate) returns: watch::Sender<u64>,
}

#[derive(Debug)]
struct Subscriber {
    patterns: Vec<String>,
    inbox: Inbox,
}

impl InProcess {
    pub(crate) fn publish(&self, envelope: Envelope) {
        let mut gone = false;
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if subscriber.patterns.iter().any(|pattern| subject::matches(pattern, &envelope.subject)) {
                gone |= subscriber.inbox.is_closed();
                subscriber.inbox.offer(envelope.clone());
            }
        }
        if gone {
            let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
            subscribers.retain(|subscriber| !subscriber.inbox.is_closed());
        }
    }

    pub(crate) fn subscribe(
        &self,
        name: &'static str,
        patterns: &[&str],
        capacity: usize,
    ) -> mpsc::Receiver<Envelope> {
        let (inbox, receiver) = Inbox::new(name, capacity, self.epochs.clone());
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(Subscriber { patterns, inbox });
        receiver
    }
}
