//! A bounded queue of the elements of a stream, which counts the elements that it drops.

use std::collections::VecDeque;

use bytes::Bytes;

/// The elements of a stream that the client has not requested yet.
///
/// When the backlog is full, the newest element is dropped and counted. The next element that is kept carries
/// the count, so that the client sees where elements are missing and how many.
#[derive(Debug)]
pub struct Backlog {
    elements: VecDeque<Element>,
    capacity: usize,
    bytes: usize,
    missed: u64,
}

/// An element of a [`Backlog`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The number of elements that were dropped directly before this one.
    pub missed: u64,
    /// The payload, encoded.
    pub payload: Bytes,
}

/// The backlog holds as many elements as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backlog is full, the element was dropped")]
pub struct BacklogFull;

impl Backlog {
    /// A backlog of at most `capacity` elements.
    pub fn new(capacity: usize) -> Self {
        Self { elements: VecDeque::new(), capacity, bytes: 0, missed: 0 }
    }

    /// Appends an element, or drops and counts it.
    ///
    /// # Errors
    /// [`BacklogFull`] if the element was dropped.
    pub fn push(&mut self, payload: Bytes) -> Result<(), BacklogFull> {
        if self.elements.len() >= self.capacity {
            self.miss(1);
            return Err(BacklogFull);
        }
        self.bytes += payload.len();
        self.elements.push_back(Element { missed: std::mem::take(&mut self.missed), payload });
        Ok(())
    }

    /// Counts elements that were lost before they reached this backlog.
    pub fn miss(&mut self, count: u64) {
        self.missed = self.missed.saturating_add(count);
    }

    /// Replaces all queued elements by this one, for streams of which only the newest element is valid.
    pub fn replace(&mut self, payload: Bytes) {
        self.elements.clear();
        self.bytes = payload.len();
        self.elements.push_back(Element { missed: 0, payload });
    }

    /// Removes the oldest element, to be sent.
    pub fn pop(&mut self) -> Option<Element> {
        let element = self.elements.pop_front()?;
        self.bytes -= element.payload.len();
        if self.elements.is_empty() {
            // Releases the memory that a burst allocated.
            self.elements = VecDeque::new();
        }
        Some(element)
    }

    /// The bytes of all queued payloads.
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
