//! The islands that a search has visited.

use crate::{ids::IslandIndex, index_vec::IndexVec};

/// A set of visited islands that is cleared in O(1): each island has the number of the search that
/// visited it last.
#[derive(Debug, Clone, Default)]
pub(super) struct VisitedIslands {
    stamps: IndexVec<IslandIndex, u32>,
    current: u32,
}

impl VisitedIslands {
    /// Begins a search among this number of islands.
    pub(super) fn begin(&mut self, islands: usize) {
        if self.current == u32::MAX {
            self.stamps.clear();
            self.current = 0;
        }
        self.current += 1;
        self.stamps.fill_to(islands, 0);
    }

    pub(super) fn contains(&self, island: IslandIndex) -> bool {
        self.stamps[island] == self.current
    }

    pub(super) fn insert(&mut self, island: IslandIndex) {
        self.stamps[island] = self.current;
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.stamps.bytes()
    }
}
