//! A slab: a vector with reusable slots, and helpers for index-based tables.

use std::ops::{Index, IndexMut};

/// No index: the end of a list, or no element.
pub(crate) const NONE: u32 = u32::MAX;

/// A vector with reusable slots. A freed slot keeps its stale value until it is reused.
#[derive(Debug, Clone)]
pub(crate) struct Slab<T> {
    entries: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Inserts a value and returns its slot.
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = entry;
            return slot;
        }
        let slot = self.entries.len() as u32;
        assert!(slot != NONE, "more than four billion entries");
        push_growing_by_eighth(&mut self.entries, entry);
        slot
    }

    /// Frees a slot. It must be called at most once for each insertion.
    pub(crate) fn remove(&mut self, slot: u32) {
        push_growing_by_eighth(&mut self.free, slot);
    }

    /// The number of slots, free ones included.
    pub(crate) fn slot_count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The number of slots in use.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The values of all slots, free ones included.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut()
    }

    /// Keeps the values of these slots, in this order, and removes all others. Returns the new slot of
    /// each old one, or `NONE`.
    pub(crate) fn reorder(&mut self, order: &[u32]) -> Vec<u32>
    where
        T: Copy,
    {
        let mut slots = vec![NONE; self.entries.len()];
        order.iter().zip(0..).for_each(|(&before, after)| slots[before as usize] = after);
        self.entries = order.iter().map(|&slot| self.entries[slot as usize]).collect();
        self.free = Vec::new();
        slots
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, slot: u32) -> &T {
        &self.entries[slot as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.entries[slot as usize]
    }
}

/// Pushes a value. A full vector grows by an eighth (at least 16 elements): doubling would leave up to
/// half of the largest tables unused.
pub(crate) fn push_growing_by_eighth<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact((entries.len() / 8).max(16));
    }
    entries.push(entry);
}
