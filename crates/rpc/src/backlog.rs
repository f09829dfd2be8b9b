use std::collections::VecDeque;

use bytes::Bytes;

/// Elements that wait until a client wants them.
///
/// At the bound the newest is dropped and counted; the count goes with the next element that is
/// kept, so that whoever reads sees where something is missing, and how much.
#[derive(Debug)]
pub struct Backlog {
    elements: VecDeque<Element>,
    capacity: usize,
    bytes: usize,
    missed: u64,
}

/// An element that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// How many were dropped just before it.
    pub missed: u64,
    /// What it says.
    pub payload: Bytes,
}

/// As many elements wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backlog is full, the element was dropped")]
pub struct BacklogFull;

impl Backlog {
    /// A backlog of at most `bound` elements.
    pub fn new(capacity: usize) -> Self {
        Self { elements: VecDeque::new(), capacity, bytes: 0, missed: 0 }
    }

    /// Adds an element, or drops and counts it.
    pub fn push(&mut self, payload: Bytes) -> Result<(), BacklogFull> {
        if self.elements.len() >= self.capacity {
            self.miss(1);
            return Err(BacklogFull);
        }
        self.bytes += payload.len();
        self.elements.push_back(Element { missed: std::mem::take(&mut self.missed), payload });
        Ok(())
    }

    /// Counts elements that did not get here.
    pub fn miss(&mut self, count: u64) {
        self.missed = self.missed.saturating_add(count);
    }

    /// Puts an element in place of all that wait: only the newest counts.
    pub fn replace(&mut self, payload: Bytes) {
        self.elements.clear();
        self.bytes = payload.len();
        self.elements.push_back(Element { missed: 0, payload });
    }

    /// The oldest, to be sent.
    pub fn pop(&mut self) -> Option<Element> {
        let element = self.elements.pop_front()?;
        self.bytes -= element.payload.len();
        if self.elements.is_empty() {
            // What a burst took is given back.
            self.elements = VecDeque::new();
        }
        Some(element)
    }

    /// The bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_drops_the_newest_and_counts_it_in_the_next() {
        let mut backlog = Backlog::new(2);
        assert_eq!(backlog.push("a".into()), Ok(()));
        assert_eq!(backlog.push("b".into()), Ok(()));
        assert_eq!(backlog.push("c".into()), Err(BacklogFull));
        assert_eq!(backlog.push("d".into()), Err(BacklogFull));
        assert_eq!(backlog.bytes(), 2);
        assert_eq!(backlog.pop(), Some(Element { missed: 0, payload: "a".into() }));
        assert_eq!(backlog.push("e".into()), Ok(()));
        assert_eq!(backlog.pop(), Some(Element { missed: 0, payload: "b".into() }));
        assert_eq!(backlog.pop(), Some(Element { missed: 2, payload: "e".into() }));
        assert_eq!((backlog.pop(), backlog.bytes()), (None, 0));
    }

    #[test]
    fn replace_keeps_only_the_newest() {
        let mut backlog = Backlog::new(2);
        backlog.replace("first".into());
        backlog.replace("second".into());
        assert_eq!(backlog.pop(), Some(Element { missed: 0, payload: "second".into() }));
        assert_eq!(backlog.pop(), None);
    }
}
