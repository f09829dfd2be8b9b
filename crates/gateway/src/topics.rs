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

use crate::bff::Backlogs;

/// The subscriptions of all sessions of a gateway.
///
/// They form two trees of segments, one for what peers say and one for what servers say, so that a
/// message costs as much as there are people who hear it.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    peers: RwLock<Node>,
    system: RwLock<Node>,
    count: AtomicUsize,
}

/// Who publishes what is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publisher {
    Peers,
    System,
}

/// A subscription, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    topics: Arc<Topics>,
    publisher: Publisher,
    pattern: TopicPattern,
    listener: Listener,
}

#[derive(Debug, Clone)]
struct Listener {
    backlogs: Arc<Backlogs>,
    id: u32,
}

/// What follows on the segments so far.
#[derive(Debug, Default)]
struct Node {
    listeners: Vec<Listener>,
    next: HashMap<Box<str>, Node>,
}

impl Topics {
    /// Begins to give a session what falls under `pattern`.
    pub(crate) fn listen(
        self: &Arc<Self>,
        publisher: Publisher,
        pattern: TopicPattern,
        backlogs: &Arc<Backlogs>,
        id: u32,
    ) -> Listening {
        backlogs.open(id);
        let listener = Listener { backlogs: backlogs.clone(), id };
        let mut root = self.tree(publisher).write().unwrap_or_else(PoisonError::into_inner);
        let mut node = &mut *root;
        for segment in pattern.as_str().split('.') {
            node = node.next.entry(segment.into()).or_default();
        }
        node.listeners.push(listener.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        Listening { topics: self.clone(), publisher, pattern, listener }
    }

    /// How many subscriptions there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// A peer said something under a topic.
    pub(crate) fn heard_peer(&self, sender: Address, topic: &Topic, payload: &Bytes) {
        self.give(Publisher::Peers, topic, || peer_element(Some(sender), topic, payload));
    }

    /// A server said something under a topic.
    pub(crate) fn heard_system(&self, topic: &SystemTopic, payload: &Bytes) {
        let topic = topic.topic();
        self.give(Publisher::System, topic, || system_element(topic, payload));
    }

    /// A peer, or a server where there is no sender, said something under a scene's topic. All who
    /// listen to peers hear both, those who listen to servers only these.
    pub(crate) fn heard_in_scene(&self, sender: Option<Address>, topic: &SceneTopic, payload: &Bytes) {
        let topic = topic.topic();
        self.give(Publisher::Peers, topic, || peer_element(sender, topic, payload));
        if sender.is_none() {
            self.give(Publisher::System, topic, || system_element(topic, payload));
        }
    }

    /// Messages did not get here, of which nobody knows what they were: everybody may have missed them.
    pub(crate) fn missed(&self, count: u64) {
        for tree in [&self.peers, &self.system] {
            tree.read().unwrap_or_else(PoisonError::into_inner).missed(count);
        }
    }

    fn give(&self, publisher: Publisher, topic: &Topic, encode: impl FnOnce() -> Bytes) {
        let segments: Vec<&str> = topic.as_str().split('.').collect();
        let root = self.tree(publisher).read().unwrap_or_else(PoisonError::into_inner);
        let mut listeners = Vec::new();
        root.find(&segments, topic.mailbox().is_none(), &mut listeners);
        if listeners.is_empty() {
            return;
        }
        // Encoded once for all who hear it.
        let message = encode();
        metrics::counter!("atoll_gateway_topic_deliveries_total").increment(listeners.len() as u64);
        listeners.iter().for_each(|listener| listener.backlogs.push(listener.id, &message));
    }

    fn tree(&self, publisher: Publisher) -> &RwLock<Node> {
        match publisher {
            Publisher::Peers => &self.peers,
            Publisher::System => &self.system,
        }
    }
}

impl Listening {
    /// Who publishes what it hears.
    pub(crate) fn publisher(&self) -> Publisher {
        self.publisher
    }

    /// Whether it hears what `publisher` says under a topic.
    pub(crate) fn hears(&self, publisher: Publisher, topic: &Topic) -> bool {
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

impl Drop for Listening {
    fn drop(&mut self) {
        let mut root = self.topics.tree(self.publisher).write().unwrap_or_else(PoisonError::into_inner);
        let segments: Vec<&str> = self.pattern.as_str().split('.').collect();
        root.remove(&segments, &self.listener);
        self.topics.count.fetch_sub(1, Ordering::Relaxed);
        self.listener.backlogs.close(self.listener.id);
    }
}

impl Node {
    /// Who hears what is published under `segments`, where `*` may stand for the first of them or
    /// not.
    fn find<'a>(&'a self, segments: &[&str], star: bool, found: &mut Vec<&'a Listener>) {
        let Some((first, rest)) = segments.split_first() else {
            found.extend(&self.listeners);
            return;
        };
        if let Some(node) = self.next.get(*first) {
            node.find(rest, true, found);
        }
        if star && let Some(node) = self.next.get("*") {
            node.find(rest, true, found);
        }
    }

    fn missed(&self, count: u64) {
        self.listeners.iter().for_each(|listener| listener.backlogs.miss(listener.id, count));
        self.next.values().for_each(|node| node.missed(count));
    }

    /// Takes a listener out, and with it what nobody else listens to.
    fn remove(&mut self, segments: &[&str], listener: &Listener) {
        let Some((first, rest)) = segments.split_first() else {
            self.listeners
                .retain(|other| other.id != listener.id || !Arc::ptr_eq(&other.backlogs, &listener.backlogs));
            return;
        };
        if let Some(node) = self.next.get_mut(*first) {
            node.remove(rest, listener);
            if node.listeners.is_empty() && node.next.is_empty() {
                self.next.remove(*first);
            }
        }
    }
}

#[cfg(test)]
mod tests;
