//! The queues of the subscribers, by the subscriptions of the client library.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::subscriber_queue::SubscriberQueue;

/// Subscribers by the id that the client library assigns to the subscription of each pattern. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Subscribers(Arc<Mutex<Registered>>);

#[derive(Default)]
struct Registered {
    /// How many patterns were subscribed to.
    subscriptions: u64,
    queues: HashMap<u64, Arc<SubscriberQueue>>,
}

impl Subscribers {
    /// Records the queue of the next subscription. The client library numbers subscriptions from 1, and only
    /// the writer task creates them.
    pub(super) fn register(&self, queue: &Arc<SubscriberQueue>) {
        let mut registered = self.0.lock();
        registered.subscriptions += 1;
        registered.queues.retain(|_, queue| !queue.is_closed());
        let subscription = registered.subscriptions;
        registered.queues.insert(subscription, queue.clone());
    }

    /// The queue that this subscription belongs to.
    pub(super) fn get(&self, subscription: u64) -> Option<Arc<SubscriberQueue>> {
        self.0.lock().queues.get(&subscription).cloned()
    }
}
