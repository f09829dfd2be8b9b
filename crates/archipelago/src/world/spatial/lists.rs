//! The linked lists of the grid: the groups of a cell and of an island, and the entries of a group.

use super::{index::SpatialIndex, member::Member};
use crate::ids::{CellIndex, EntryIndex, GroupIndex, IslandIndex};

impl SpatialIndex {
    pub(super) fn groups_of_island(&self, island: IslandIndex) -> impl Iterator<Item = GroupIndex> {
        let first = self.stats[island].first_group;
        std::iter::successors(first, |&group| self.groups[group].next_in_island)
    }

    /// The groups in a cell, if it exists.
    pub(super) fn groups_in_cell(&self, cell: Option<CellIndex>) -> impl Iterator<Item = GroupIndex> {
        let first = cell.and_then(|cell| self.cells[cell].first_group);
        std::iter::successors(first, |&group| self.groups[group].next_in_cell)
    }

    pub(super) fn entries_in_group(&self, group: GroupIndex) -> impl Iterator<Item = EntryIndex> {
        let first = self.groups[group].first_entry;
        std::iter::successors(first, |&entry| self.entries[entry].next)
    }

    pub(super) fn members_in_group(&self, group: GroupIndex) -> impl Iterator<Item = Member> {
        self.entries_in_group(group).map(|entry| self.entries[entry].member())
    }
}
