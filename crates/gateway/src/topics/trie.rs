//! A trie of topic patterns, by their segments.

use std::{collections::HashMap, sync::Arc};

use crate::topics::queues::SubscriptionQueues;

/// The queue of one subscription.
#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) queues: Arc<SubscriptionQueues>,
    pub(super) id: u32,
}

/// A node of the trie: the patterns that begin with the segments on the way to it.
#[derive(Debug, Default)]
pub(super) struct TopicNode {
    subscribers: Vec<Subscriber>,
    children: HashMap<Box<str>, TopicNode>,
}

impl TopicNode {
    /// Adds a subscriber to the pattern.
    pub(super) fn insert(&mut self, pattern: &str, subscriber: Subscriber) {
        let mut node = self;
        for segment in pattern.split('.') {
            node = node.children.entry(segment.into()).or_default();
        }
        node.subscribers.push(subscriber);
    }

    /// Collects the subscribers that match the topic `segments`. `star`: whether a `*` in a pattern may match
    /// the first segment, which it may not if that is the address of a mailbox.
    pub(super) fn collect_matching<'a>(
        &'a self,
        segments: &[&str],
        star: bool,
        found: &mut Vec<&'a Subscriber>,
    ) {
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

    /// Counts messages that were lost before they reached any of the queues.
    pub(super) fn record_missed(&self, count: u64) {
        self.subscribers.iter().for_each(|subscriber| subscriber.queues.record_missed(subscriber.id, count));
        self.children.values().for_each(|node| node.record_missed(count));
    }

    /// Removes a subscriber, and the nodes that have neither subscribers nor children then.
    pub(super) fn remove(&mut self, segments: &[&str], subscriber: &Subscriber) {
        let Some((first, rest)) = segments.split_first() else {
            self.subscribers
                .retain(|other| other.id != subscriber.id || !Arc::ptr_eq(&other.queues, &subscriber.queues));
            return;
        };
        if let Some(node) = self.children.get_mut(*first) {
            node.remove(rest, subscriber);
            if node.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    /// Whether the node has neither subscribers nor children.
    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.children.is_empty()
    }
}
