//! A slab: a vector with reusable slots.

use std::ops::{Index, IndexMut};

use crate::{
    ids::TableIndex,
    index_vec::{IndexVec, push_growing_by_eighth},
};

/// A vector with reusable slots. A freed slot keeps its stale value until it is reused.
#[derive(Debug, Clone)]
pub(crate) struct Slab<I, T> {
    entries: IndexVec<I, T>,
    free: Vec<I>,
}

impl<I, T> Default for Slab<I, T> {
    fn default() -> Self {
        Self { entries: IndexVec::default(), free: Vec::new() }
    }
}

impl<I: TableIndex, T> Slab<I, T> {
    /// Inserts a value and returns its slot.
    pub(crate) fn insert(&mut self, entry: T) -> I {
        match self.free.pop() {
            Some(slot) => {
                self.entries[slot] = entry;
                slot
            }
            None => self.entries.push(entry),
        }
    }

    /// Frees a slot. It must be called at most once for each insertion.
    pub(crate) fn remove(&mut self, slot: I) {
        push_growing_by_eighth(&mut self.free, slot);
    }

    /// All slots, free ones included.
    pub(crate) fn slots(&self) -> impl Iterator<Item = I> + use<I, T> {
        self.entries.indexes()
    }

    /// The slots in use.
    pub(crate) fn used_slots(&self) -> impl Iterator<Item = I> + use<I, T> {
        let mut used = IndexVec::<I, bool>::from(vec![true; self.entries.len()]);
        self.free.iter().for_each(|&slot| used[slot] = false);
        self.slots().filter(move |&slot| used[slot])
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
    /// each old one that was kept.
    pub(crate) fn reorder(&mut self, order: &[I]) -> IndexVec<I, Option<I>>
    where
        T: Copy,
    {
        let mut slots = IndexVec::from(vec![None; self.entries.len()]);
        order.iter().zip(I::first(order.len())).for_each(|(&before, after)| slots[before] = Some(after));
        self.entries = order.iter().map(|&slot| self.entries[slot]).collect::<Vec<T>>().into();
        self.free = Vec::new();
        slots
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes() + self.free.capacity() * size_of::<I>()
    }
}

impl<I: TableIndex, T> Index<I> for Slab<I, T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: I) -> &T {
        &self.entries[slot]
    }
}

impl<I: TableIndex, T> IndexMut<I> for Slab<I, T> {
    #[inline]
    fn index_mut(&mut self, slot: I) -> &mut T {
        &mut self.entries[slot]
    }
}
