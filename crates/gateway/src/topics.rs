//! The topic subscriptions of a gateway, and the delivery of topic messages to them.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use protocol::{Address, Message as _, SceneTopic, SystemTopic, Topic, TopicPattern, bff};

use crate::rpc_socket::SubscriptionQueues;

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

#[derive(Debug, Clone)]
struct Subscriber {
    queues: Arc<SubscriptionQueues>,
    id: u32,
}

/// A node of the trie: the patterns that begin with the segments on the way to it.
#[derive(Debug, Default)]
struct TopicNode {
    subscribers: Vec<Subscriber>,
    children: HashMap<Box<str>, TopicNode>,
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
        let mut root = self.tree(publisher).write().unwrap_or_else(PoisonError::into_inner);
        let mut node = &mut *root;
        for segment in pattern.as_str().split('.') {
            node = node.children.entry(segment.into()).or_default();
        }
        node.subscribers.push(subscriber.clone());
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
            tree.read().unwrap_or_else(PoisonError::into_inner).record_missed(count);
        }
    }

    fn deliver(&self, publisher: PublisherKind, topic: &Topic, encode: impl FnOnce() -> Bytes) {
        let segments: Vec<&str> = topic.as_str().split('.').collect();
        let root = self.tree(publisher).read().unwrap_or_else(PoisonError::into_inner);
        let mut subscribers = Vec::new();
        root.collect_matching(&segments, topic.mailbox().is_none(), &mut subscribers);
        if subscribers.is_empty() {
            return;
        }
        // Encoded once for all subscribers.
        let message = encode();
        metrics::counter!("atoll_gateway_topic_deliveries_total").increment(subscribers.len() as u64);
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
fn peer_element(sender: Option<Address>, topic: &Topic, payload: &Bytes) -> Bytes {
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
        let mut root = self.topics.tree(self.publisher).write().unwrap_or_else(PoisonError::into_inner);
        let segments: Vec<&str> = self.pattern.as_str().split('.').collect();
        root.remove(&segments, &self.subscriber);
        self.topics.count.fetch_sub(1, Ordering::Relaxed);
        self.subscriber.queues.close(self.subscriber.id);
    }
}

impl TopicNode {
    /// Collects the subscribers that match the topic `segments`. `star`: whether a `*` in a pattern may match
    /// the first segment, which it may not if that is the address of a mailbox.
    fn collect_matching<'a>(&'a self, segments: &[&str], star: bool, found: &mut Vec<&'a Subscriber>) {
        let Some((first, rest)) = segments.split_first() else {
            found.extend(&self.subscribers);
            return;
        };
        if let Some(node) = self.children.get(*first) {
            node.collect_matching(rest, true, found);
        }
        if star && let Some(node) = self.children.get("*") {
            node.collect_matching(rest, true, found);
        }
    }

    fn record_missed(&self, count: u64) {
        self.subscribers.iter().for_each(|subscriber| subscriber.queues.record_missed(subscriber.id, count));
        self.children.values().for_each(|node| node.record_missed(count));
    }

    /// Removes a subscriber, and the nodes that have neither subscribers nor children then.
    fn remove(&mut self, segments: &[&str], subscriber: &Subscriber) {
        let Some((first, rest)) = segments.split_first() else {
            self.subscribers
                .retain(|other| other.id != subscriber.id || !Arc::ptr_eq(&other.queues, &subscriber.queues));
            return;
        };
        if let Some(node) = self.children.get_mut(*first) {
            node.remove(rest, subscriber);
            if node.subscribers.is_empty() && node.children.is_empty() {
                self.children.remove(*first);
            }
        }
    }
}

#[cfg(test)]
mod tests;
