//! The cells of the grid, and the groups and peer entries that are linked into them.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::index::{Cell, CellKey, Group, PeerEntry, SpatialIndex};
use crate::ids::{CellIndex, EntryIndex, GroupIndex, IslandIndex, ZoneIndex};

/// The offsets of the eight cells around a cell; the opposite of the n-th is the (7 − n)-th.
pub(super) const NEIGHBOUR_OFFSETS: [(i32, i32); 8] =
    [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];

fn hash(key: CellKey) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl SpatialIndex {
    pub(super) fn find_cell(&self, key: CellKey) -> Option<CellIndex> {
        self.cell_index.find(hash(key), |&cell| self.cells[cell].key == key).copied()
    }

    pub(super) fn find_or_add_cell(&mut self, key: CellKey) -> CellIndex {
        self.find_cell(key).unwrap_or_else(|| self.add_cell(key))
    }

    fn add_cell(&mut self, key: CellKey) -> CellIndex {
        let neighbours = NEIGHBOUR_OFFSETS.map(|by| self.find_cell(offset_key(key, by)));
        let cell = self.cells.insert(Cell { key, first_group: None, neighbours });
        self.link_neighbours(neighbours, Some(cell));
        let cells = &self.cells;
        self.cell_index.insert_unique(hash(key), cell, |&cell| hash(cells[cell].key));
        cell
    }

    /// Sets the link from each neighbour of a cell back to it.
    fn link_neighbours(&mut self, neighbours: [Option<CellIndex>; 8], cell: Option<CellIndex>) {
        for (direction, neighbour) in neighbours.into_iter().enumerate() {
            if let Some(neighbour) = neighbour {
                self.cells[neighbour].neighbours[7 - direction] = cell;
            }
        }
    }

    fn remove_cell(&mut self, cell: CellIndex) {
        let Cell { key, neighbours, .. } = self.cells[cell];
        self.link_neighbours(neighbours, None);
        if let Ok(entry) = self.cell_index.find_entry(hash(key), |&other| other == cell) {
            entry.remove();
        }
        self.cells.remove(cell);
    }

    pub(super) fn find_group(
        &self,
        cell: CellIndex,
        island: IslandIndex,
        zone: ZoneIndex,
    ) -> Option<GroupIndex> {
        let is_it =
            |&group: &GroupIndex| (self.groups[group].island, self.groups[group].zone) == (island, zone);
        self.groups_in_cell(Some(cell)).find(is_it)
    }

    pub(super) fn link(&mut self, entry: EntryIndex, cell: CellIndex, island: IslandIndex) {
        let zone = self.entries[entry].traits.zone();
        let group = self.find_group(cell, island, zone).unwrap_or_else(|| self.add_group(cell, island, zone));
        let next = self.groups[group].first_entry.replace(entry);
        if let Some(next) = next {
            self.entries[next].previous = Some(entry);
        }
        let links = &mut self.entries[entry];
        (links.group, links.previous, links.next) = (Some(group), None, next);
    }

    /// Removes an entry from the list of its group, which may become empty.
    fn detach(&mut self, entry: EntryIndex, group: GroupIndex) {
        let PeerEntry { previous, next, .. } = self.entries[entry];
        match previous {
            None => self.groups[group].first_entry = next,
            Some(previous) => self.entries[previous].next = next,
        }
        if let Some(next) = next {
            self.entries[next].previous = previous;
        }
        self.entries[entry].group = None;
    }

    /// Removes an entry from its group, and an empty group from its cell and island.
    pub(super) fn unlink(&mut self, entry: EntryIndex, group: GroupIndex) {
        self.detach(entry, group);
        self.remove_group_if_empty(group);
    }

    /// Moves an entry to the group of another island or zone in the same cell.
    pub(super) fn relink(&mut self, entry: EntryIndex, group: GroupIndex, island: IslandIndex) {
        // The new group is created before the old one is removed, so that the cell stays in between.
        self.detach(entry, group);
        self.link(entry, self.groups[group].cell, island);
        self.remove_group_if_empty(group);
    }

    fn add_group(&mut self, cell: CellIndex, island: IslandIndex, zone: ZoneIndex) -> GroupIndex {
        self.unsorted += 1;
        let next_in_cell = self.cells[cell].first_group;
        let group = self.groups.insert(Group {
            cell,
            island,
            zone,
            first_entry: None,
            next_in_cell,
            previous_in_island: None,
            next_in_island: None,
        });
        self.cells[cell].first_group = Some(group);
        self.link_to_island(group, island);
        group
    }

    pub(super) fn link_to_island(&mut self, group: GroupIndex, island: IslandIndex) {
        let next = self.stats[island].first_group.replace(group);
        if let Some(next) = next {
            self.groups[next].previous_in_island = Some(group);
        }
        let group = &mut self.groups[group];
        (group.island, group.previous_in_island, group.next_in_island) = (island, None, next);
    }

    pub(super) fn unlink_from_island(&mut self, group: GroupIndex) {
        let Group { island, previous_in_island: previous, next_in_island: next, .. } = self.groups[group];
        match previous {
            None => self.stats[island].first_group = next,
            Some(previous) => self.groups[previous].next_in_island = next,
        }
        if let Some(next) = next {
            self.groups[next].previous_in_island = previous;
        }
    }

    fn remove_group_if_empty(&mut self, group: GroupIndex) {
        if self.groups[group].first_entry.is_some() {
            return;
        }
        self.unlink_from_island(group);
        let Group { cell, next_in_cell: next, .. } = self.groups[group];
        // A cell has few groups: searching for the previous one costs less than a back link in each
        // group.
        let before =
            self.groups_in_cell(Some(cell)).find(|&other| self.groups[other].next_in_cell == Some(group));
        match before {
            None => self.cells[cell].first_group = next,
            Some(previous) => self.groups[previous].next_in_cell = next,
        }
        self.groups.remove(group);
        if self.cells[cell].first_group.is_none() {
            self.remove_cell(cell);
        }
    }

    /// Moves all entries of a group into another group of the same cell.
    pub(super) fn merge_groups(&mut self, from: GroupIndex, into: GroupIndex) {
        let first = self.groups[from].first_entry.take();
        let (mut last, mut entry) = (None, first);
        while let Some(current) = entry {
            last = entry;
            self.entries[current].group = Some(into);
            entry = self.entries[current].next;
        }
        if let Some(last) = last {
            let next = std::mem::replace(&mut self.groups[into].first_entry, first);
            self.entries[last].next = next;
            if let Some(next) = next {
                self.entries[next].previous = Some(last);
            }
        }
        self.remove_group_if_empty(from);
    }
}

pub(super) fn offset_key((x, z): CellKey, (by_x, by_z): (i32, i32)) -> CellKey {
    (x + by_x, z + by_z)
}
