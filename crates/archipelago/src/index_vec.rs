//! A vector with a typed index.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

use crate::ids::TableIndex;

/// A vector with entries that are found by an index type of their own.
#[derive(Debug, Clone)]
pub(crate) struct IndexVec<I, T> {
    entries: Vec<T>,
    index: PhantomData<fn(I)>,
}

impl<I, T> Default for IndexVec<I, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), index: PhantomData }
    }
}

impl<I, T> From<Vec<T>> for IndexVec<I, T> {
    fn from(entries: Vec<T>) -> Self {
        Self { entries, index: PhantomData }
    }
}

impl<I: TableIndex, T> IndexVec<I, T> {
    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Clears the vector. It keeps memory for up to twice as many entries.
    pub(crate) fn recycle(&mut self) {
        recycle(&mut self.entries);
    }

    pub(crate) fn get(&self, index: I) -> Option<&T> {
        self.entries.get(index.position())
    }

    pub(crate) fn get_mut(&mut self, index: I) -> Option<&mut T> {
        self.entries.get_mut(index.position())
    }

    /// Appends an entry and returns its index.
    pub(crate) fn push(&mut self, entry: T) -> I {
        let index = I::new(self.entries.len());
        push_growing_by_eighth(&mut self.entries, entry);
        index
    }

    /// Sets an existing entry, or appends it if it is the next.
    pub(crate) fn set_or_push(&mut self, index: I, entry: T) {
        match self.get_mut(index) {
            Some(existing) => *existing = entry,
            None => {
                debug_assert_eq!(index.position(), self.len());
                push_growing_by_eighth(&mut self.entries, entry);
            }
        }
    }

    /// An entry, after the vector was filled up to it with `filler` if it was shorter.
    pub(crate) fn grow_to(&mut self, index: I, filler: T) -> &mut T
    where
        T: Clone,
    {
        if self.entries.len() <= index.position() {
            self.entries.resize(index.position() + 1, filler);
        }
        &mut self.entries[index.position()]
    }

    /// Fills the vector with `filler` up to this number of entries.
    pub(crate) fn fill_to(&mut self, count: usize, filler: T)
    where
        T: Clone,
    {
        if self.entries.len() < count {
            self.entries.resize(count, filler);
        }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.entries.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.entries.iter_mut()
    }

    /// The indexes of all entries.
    pub(crate) fn indexes(&self) -> impl DoubleEndedIterator<Item = I> + use<I, T> {
        I::first(self.entries.len())
    }

    /// All entries with their indexes.
    pub(crate) fn enumerate(&self) -> impl DoubleEndedIterator<Item = (I, &T)> {
        self.entries.iter().enumerate().map(|(position, entry)| (I::new(position), entry))
    }

    /// Bytes held by the vector itself.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<T>()
    }
}

impl<I: TableIndex, T> Index<I> for IndexVec<I, T> {
    type Output = T;

    #[inline]
    fn index(&self, index: I) -> &T {
        &self.entries[index.position()]
    }
}

impl<I: TableIndex, T> IndexMut<I> for IndexVec<I, T> {
    #[inline]
    fn index_mut(&mut self, index: I) -> &mut T {
        &mut self.entries[index.position()]
    }
}

/// Clears a list. It keeps memory for up to twice as many entries.
pub(crate) fn recycle<T>(list: &mut Vec<T>) {
    list.shrink_to(2 * list.len());
    list.clear();
}

/// Pushes a value. A full vector grows by an eighth (at least 16 elements): doubling would leave up to
/// half of the largest tables unused.
pub(crate) fn push_growing_by_eighth<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact((entries.len() / 8).max(16));
    }
    entries.push(entry);
}
