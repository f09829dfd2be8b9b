//! The ids of the events that arrived last.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

/// Remembers the ids of the last events, so that a repeated event is recognised.
///
/// It holds at most [`CAPACITY`](Self::CAPACITY) ids. A new id replaces the oldest one; an event that is
/// repeated after that counts as new. A server delivers from a queue of 200 events and drops them after
/// 30 s, so the capacity is exceeded only above 130 events a second.
#[derive(Debug, Clone, Default)]
pub struct RecentIds {
    known: HashSet<Arc<str>>,
    /// The same ids, the oldest first.
    in_order: VecDeque<Arc<str>>,
}

impl RecentIds {
    /// The maximum number of ids.
    pub const CAPACITY: usize = 4_096;

    /// Remembers an id. Returns `false` if it is known: the event is a repetition. An empty id identifies no
    /// event: it is not remembered and always counts as new.
    pub fn insert(&mut self, id: &str) -> bool {
        if id.is_empty() {
            return true;
        }
        if self.known.contains(id) {
            return false;
        }
        if self.in_order.len() >= Self::CAPACITY
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.known.insert(id.clone());
        self.in_order.push_back(id);
        true
    }
}
