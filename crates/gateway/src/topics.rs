//! Who listens to which topics here, and what they are given.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use protocol::{Address, Message as _, SystemTopic, Topic, TopicPattern, bff};

use crate::bff::Backlogs;

/// The subscriptions of all sessions of a gateway.
///
/// They form two trees of segments, one for what peers say and one for what servers say, so that a
/// message costs as much as there are people who hear it.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    peers: RwLock<Node>,
    system: RwLock<Node>,
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
        Listening { topics: self.clone(), publisher, pattern, listener }
    }

    /// A peer said something under a topic.
    pub(crate) fn heard_peer(&self, sender: Address, topic: &Topic, payload: &Bytes) {
        let (payload, sender) = (payload.clone(), sender.to_string());
        let topic_text = topic.as_str().to_owned();
        let message = bff::PeerTopicSubscriptionResultElem { payload, topic: topic_text, sender, missed: 0 };
        self.give(Publisher::Peers, topic, || message.encode_to_vec().into());
    }

    /// A server said something under a topic.
    pub(crate) fn heard_system(&self, topic: &SystemTopic, payload: &Bytes) {
        let (payload, topic) = (payload.clone(), topic.topic());
        let topic_text = topic.as_str().to_owned();
        let message = bff::SystemTopicSubscriptionResultElem { payload, topic: topic_text, missed: 0 };
        self.give(Publisher::System, topic, || message.encode_to_vec().into());
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
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut root = self.topics.tree(self.publisher).write().unwrap_or_else(PoisonError::into_inner);
        let segments: Vec<&str> = self.pattern.as_str().split('.').collect();
        root.remove(&segments, &self.listener);
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
