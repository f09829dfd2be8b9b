//! Who listens to which topics here, and what they are given.

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
/// They form two trees of segments, one for what peers say and one for what servers say, so that a
/// message costs as much as there are people who hear it.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    peers: RwLock<TopicNode>,
    system: RwLock<TopicNode>,
    count: AtomicUsize,
}

/// Who publishes what is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublisherKind {
    Peers,
    System,
}

/// A subscription, which ends when this is dropped.
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

/// What follows on the segments so far.
#[derive(Debug, Default)]
struct TopicNode {
    subscribers: Vec<Subscriber>,
    children: HashMap<Box<str>, TopicNode>,
}

impl Topics {
    /// Begins to give a session what falls under `pattern`.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        publisher: PublisherKind,
        pattern: TopicPattern,
        backlogs: &Arc<SubscriptionQueues>,
        id: u32,
    ) -> TopicSubscription {
        backlogs.open(id);
        let listener = Subscriber { queues: backlogs.clone(), id };
        let mut root = self.tree(publisher).write().unwrap_or_else(PoisonError::into_inner);
        let mut node = &mut *root;
        for segment in pattern.as_str().split('.') {
            node = node.children.entry(segment.into()).or_default();
        }
        node.subscribers.push(listener.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        TopicSubscription { topics: self.clone(), publisher, pattern, subscriber: listener }
    }

    /// How many subscriptions there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// A peer said something under a topic.
    pub(crate) fn deliver_peer(&self, sender: Address, topic: &Topic, payload: &Bytes) {
        self.deliver(PublisherKind::Peers, topic, || peer_element(Some(sender), topic, payload));
    }

    /// A server said something under a topic.
    pub(crate) fn deliver_system(&self, topic: &SystemTopic, payload: &Bytes) {
        let topic = topic.topic();
        self.deliver(PublisherKind::System, topic, || system_element(topic, payload));
    }

    /// A peer, or a server where there is no sender, said something under a scene's topic. All who
    /// listen to peers hear both, those who listen to servers only these.
    pub(crate) fn deliver_scene(&self, sender: Option<Address>, topic: &SceneTopic, payload: &Bytes) {
        let topic = topic.topic();
        self.deliver(PublisherKind::Peers, topic, || peer_element(sender, topic, payload));
        if sender.is_none() {
            self.deliver(PublisherKind::System, topic, || system_element(topic, payload));
        }
    }

    /// Messages did not get here, of which nobody knows what they were: everybody may have missed them.
    pub(crate) fn record_missed(&self, count: u64) {
        for tree in [&self.peers, &self.system] {
            tree.read().unwrap_or_else(PoisonError::into_inner).record_missed(count);
        }
    }

    fn deliver(&self, publisher: PublisherKind, topic: &Topic, encode: impl FnOnce() -> Bytes) {
        let segments: Vec<&str> = topic.as_str().split('.').collect();
        let root = self.tree(publisher).read().unwrap_or_else(PoisonError::into_inner);
        let mut listeners = Vec::new();
        root.collect_matching(&segments, topic.mailbox().is_none(), &mut listeners);
        if listeners.is_empty() {
            return;
        }
        // Encoded once for all who hear it.
        let message = encode();
        metrics::counter!("atoll_gateway_topic_deliveries_total").increment(listeners.len() as u64);
        listeners.iter().for_each(|listener| listener.queues.push(listener.id, &message));
    }

    fn tree(&self, publisher: PublisherKind) -> &RwLock<TopicNode> {
        match publisher {
            PublisherKind::Peers => &self.peers,
            PublisherKind::System => &self.system,
        }
    }
}

impl TopicSubscription {
    /// Who publishes what it hears.
    pub(crate) fn publisher(&self) -> PublisherKind {
        self.publisher
    }

    /// Whether it hears what `publisher` says under a topic.
    pub(crate) fn matches(&self, publisher: PublisherKind, topic: &Topic) -> bool {
        self.publisher == publisher && self.pattern.matches(topic)
    }
}

/// What a subscription is given of what a peer said, or a server in a scene, encoded.
fn peer_element(sender: Option<Address>, topic: &Topic, payload: &Bytes) -> Bytes {
    let (payload, topic) = (payload.clone(), topic.as_str().to_owned());
    let sender = sender.map(|sender| sender.to_string()).unwrap_or_default();
    bff::PeerTopicSubscriptionResultElem { payload, topic, sender, missed: 0 }.encode_to_vec().into()
}

/// What a subscription is given of what a server said, encoded.
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
    /// Who hears what is published under `segments`, where `*` may stand for the first of them or
    /// not.
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
        self.subscribers.iter().for_each(|listener| listener.queues.record_missed(listener.id, count));
        self.children.values().for_each(|node| node.record_missed(count));
    }

    /// Takes a listener out, and with it what nobody else listens to.
    fn remove(&mut self, segments: &[&str], listener: &Subscriber) {
        let Some((first, rest)) = segments.split_first() else {
            self.subscribers
                .retain(|other| other.id != listener.id || !Arc::ptr_eq(&other.queues, &listener.queues));
            return;
        };
        if let Some(node) = self.children.get_mut(*first) {
            node.remove(rest, listener);
            if node.subscribers.is_empty() && node.children.is_empty() {
                self.children.remove(*first);
            }
        }
    }
}

#[cfg(test)]
mod tests;
