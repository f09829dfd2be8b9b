use std::ops::{Index, IndexMut};

/// No entry: the end of a list, or nothing there.
pub(crate) const NONE: u32 = u32::MAX;

/// A vector whose places are used again. What is in a place that was given back is stale and
/// waits there for its next tenant.
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
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.entries[place as usize] = entry;
            return place;
        }
        let place = self.entries.len() as u32;
        assert!(place != NONE, "more than four billion entries");
        push_growing_by_eighth(&mut self.entries, entry);
        place
    }

    /// Gives a place back. Only once for each insertion.
    pub(crate) fn remove(&mut self, place: u32) {
        push_growing_by_eighth(&mut self.free, place);
    }

    /// All places, vacant ones too.
    pub(crate) fn slot_count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// All places, vacant ones too.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut()
    }

    /// Keeps the entries of these places, in this order, and no others. Returns for each place the
    /// one that its entry is in then.
    pub(crate) fn reorder(&mut self, order: &[u32]) -> Vec<u32>
    where
        T: Copy,
    {
        let mut places = vec![NONE; self.entries.len()];
        order.iter().zip(0..).for_each(|(&before, after)| places[before as usize] = after);
        self.entries = order.iter().map(|&place| self.entries[place as usize]).collect();
        self.free = Vec::new();
        places
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.entries[place as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.entries[place as usize]
    }
}

/// Pushes, and when there is no room makes an eighth more: doubling would leave half of the largest
/// tables empty.
pub(crate) fn push_growing_by_eighth<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact((entries.len() / 8).max(16));
    }
    entries.push(entry);
}
