//! The topic subscriptions of a gateway, and the delivery of topic messages to them.

pub(crate) mod queues;
mod trie;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use parking_lot::RwLock;
use protocol::{Address, Message as _, SceneTopic, SystemTopic, Topic, TopicPattern, bff};

use crate::metrics;
use queues::SubscriptionQueues;
use trie::{Subscriber, TopicNode};

/// The subscriptions of all sessions of a gateway.
///
/// They form two tries over topic segments, one for messages of peers and one for messages of servers, so
/// that the cost of a message depends on its subscribers, not on the number of subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    peers: RwLock<TopicNode>,
    system: RwLock<TopicNode>,
    count: AtomicUsize,
}

/// The kind of publisher that a subscription receives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublisherKind {
    Peers,
    System,
}

/// A topic subscription. Dropping it unsubscribes.
#[derive(Debug)]
pub(crate) struct TopicSubscription {
    topics: Arc<Topics>,
    publisher: PublisherKind,
    pattern: TopicPattern,
    subscriber: Subscriber,
}

impl Topics {
    /// Subscribes a session: messages that match `pattern` are added to the queue `id` of `queues`.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        publisher: PublisherKind,
        pattern: TopicPattern,
        queues: &Arc<SubscriptionQueues>,
        id: u32,
    ) -> TopicSubscription {
        queues.open(id);
        let subscriber = Subscriber { queues: queues.clone(), id };
        self.tree(publisher).write().insert(pattern.as_str(), subscriber.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        TopicSubscription { topics: self.clone(), publisher, pattern, subscriber }
    }

    /// Number of subscriptions.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Delivers a message that a peer published under a topic.
    pub(crate) fn deliver_peer(&self, sender: Address, topic: &Topic, payload: &Bytes) {
        self.deliver(PublisherKind::Peers, topic, || peer_element(Some(sender), topic, payload));
    }

    /// Delivers a message that a server published under a topic.
    pub(crate) fn deliver_system(&self, topic: &SystemTopic, payload: &Bytes) {
        let topic = topic.topic();
        self.deliver(PublisherKind::System, topic, || system_element(topic, payload));
    }

    /// Delivers a message under a scene's topic, of a peer or, without a sender, of a server. Subscriptions
    /// to peers receive both, subscriptions to servers only messages of servers.
    pub(crate) fn deliver_scene(&self, sender: Option<Address>, topic: &SceneTopic, payload: &Bytes) {
        let topic = topic.topic();
        self.deliver(PublisherKind::Peers, topic, || peer_element(sender, topic, payload));
        if sender.is_none() {
            self.deliver(PublisherKind::System, topic, || system_element(topic, payload));
        }
    }

    /// Records that the bus dropped messages before this gateway. Their topics are unknown, so every
    /// subscription counts them as missed.
    pub(crate) fn record_missed(&self, count: u64) {
        for tree in [&self.peers, &self.system] {
            tree.read().record_missed(count);
        }
    }

    fn deliver(&self, publisher: PublisherKind, topic: &Topic, encode: impl FnOnce() -> Bytes) {
        let segments: Vec<&str> = topic.as_str().split('.').collect();
        let root = self.tree(publisher).read();
        let mut subscribers = Vec::new();
        root.collect_matching(&segments, topic.mailbox().is_none(), &mut subscribers);
        if subscribers.is_empty() {
            return;
        }
        // Encoded once for all subscribers.
        let message = encode();
        metrics::topic_deliveries().increment(subscribers.len() as u64);
        subscribers.iter().for_each(|subscriber| subscriber.queues.push(subscriber.id, &message));
    }

    fn tree(&self, publisher: PublisherKind) -> &RwLock<TopicNode> {
        match publisher {
            PublisherKind::Peers => &self.peers,
            PublisherKind::System => &self.system,
        }
    }
}

impl TopicSubscription {
    /// The kind of publisher that it receives from.
    pub(crate) fn publisher(&self) -> PublisherKind {
        self.publisher
    }

    /// Whether it receives messages of `publisher` under a topic.
    pub(crate) fn matches(&self, publisher: PublisherKind, topic: &Topic) -> bool {
        self.publisher == publisher && self.pattern.matches(topic)
    }
}

/// Encodes a message as an element of a stream of peer messages. Without a sender it is a message of a server
/// in a scene.
pub(crate) fn peer_element(sender: Option<Address>, topic: &Topic, payload: &Bytes) -> Bytes {
    let (payload, topic) = (payload.clone(), topic.as_str().to_owned());
    let sender = sender.map(|sender| sender.to_string()).unwrap_or_default();
    bff::PeerTopicSubscriptionResultElem { payload, topic, sender, missed: 0 }.encode_to_vec().into()
}

/// Encodes a message as an element of a stream of system messages.
pub(crate) fn system_element(topic: &Topic, payload: &Bytes) -> Bytes {
    let (payload, topic) = (payload.clone(), topic.as_str().to_owned());
    bff::SystemTopicSubscriptionResultElem { payload, topic, missed: 0 }.encode_to_vec().into()
}

impl Drop for TopicSubscription {
    fn drop(&mut self) {
        let segments: Vec<&str> = self.pattern.as_str().split('.').collect();
        self.topics.tree(self.publisher).write().remove(&segments, &self.subscriber);
        self.topics.count.fetch_sub(1, Ordering::Relaxed);
        self.subscriber.queues.close(self.subscriber.id);
    }
}

#[cfg(test)]
mod tests;
