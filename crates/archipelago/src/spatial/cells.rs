//! The cells of the grid, and the linked lists of groups and peer entries in them.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::{Cell, CellKey, Group, PeerEntry, Point, SpatialIndex};
use crate::slab::NONE;

/// Cells are wider than the largest query distance by this factor, so that rounding never hides a
/// neighbour.
pub(super) const CELL_MARGIN: f64 = 1.001;
/// The offsets of the eight cells around a cell; the opposite of the n-th is the (7 − n)-th.
pub(super) const NEIGHBOUR_OFFSETS: [(i32, i32); 8] =
    [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];

fn hash(key: CellKey) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl SpatialIndex {
    pub(super) fn cell_key(&self, at: Point) -> CellKey {
        let cell = |metres: f32| (f64::from(metres) / self.cell_side_m).floor() as i32;
        (cell(at.x), cell(at.z))
    }

    pub(super) fn find_cell(&self, key: CellKey) -> u32 {
        self.cell_index.find(hash(key), |&cell| self.cells[cell].key == key).copied().unwrap_or(NONE)
    }

    pub(super) fn find_or_add_cell(&mut self, key: CellKey) -> u32 {
        match self.find_cell(key) {
            NONE => self.add_cell(key),
            cell => cell,
        }
    }

    pub(super) fn add_cell(&mut self, key: CellKey) -> u32 {
        let neighbours = NEIGHBOUR_OFFSETS.map(|by| self.find_cell(offset_key(key, by)));
        let cell = self.cells.insert(Cell { key, first_group: NONE, neighbours });
        for (direction, &neighbour) in neighbours.iter().enumerate() {
            if neighbour != NONE {
                self.cells[neighbour].neighbours[7 - direction] = cell;
            }
        }
        let cells = &self.cells;
        self.cell_index.insert_unique(hash(key), cell, |&cell| hash(cells[cell].key));
        cell
    }

    pub(super) fn remove_cell(&mut self, cell: u32) {
        let Cell { key, neighbours, .. } = self.cells[cell];
        for (direction, &neighbour) in neighbours.iter().enumerate() {
            if neighbour != NONE {
                self.cells[neighbour].neighbours[7 - direction] = NONE;
            }
        }
        if let Ok(entry) = self.cell_index.find_entry(hash(key), |&other| other == cell) {
            entry.remove();
        }
        self.cells.remove(cell);
    }

    pub(super) fn find_group(&self, cell: u32, island: u32, zone: u32) -> u32 {
        let is_it = |&group: &u32| (self.groups[group].island, self.groups[group].zone) == (island, zone);
        self.groups_in_cell(cell).find(is_it).unwrap_or(NONE)
    }

    pub(super) fn link(&mut self, entry: u32, cell: u32, island: u32) {
        let group = self.find_group(cell, island, self.entries[entry].traits.zone());
        self.attach(entry, cell, island, group);
    }

    /// Adds a peer entry to a group, or to a new group if `group` is `NONE`.
    pub(super) fn attach(&mut self, entry: u32, cell: u32, island: u32, group: u32) {
        let zone = self.entries[entry].traits.zone();
        let group = if group == NONE { self.add_group(cell, island, zone) } else { group };
        let next = std::mem::replace(&mut self.groups[group].first_entry, entry);
        if next != NONE {
            self.entries[next].previous = entry;
        }
        let links = &mut self.entries[entry];
        (links.group, links.previous, links.next) = (group, NONE, next);
    }

    /// Removes an entry from the list of its group, which may become empty.
    pub(super) fn detach(&mut self, entry: u32) {
        let PeerEntry { group, previous, next, .. } = self.entries[entry];
        match previous {
            NONE => self.groups[group].first_entry = next,
            previous => self.entries[previous].next = next,
        }
        if next != NONE {
            self.entries[next].previous = previous;
        }
        self.entries[entry].group = NONE;
    }

    /// Removes an entry from its group, and an empty group from its cell and island.
    pub(super) fn unlink(&mut self, entry: u32) {
        let group = self.entries[entry].group;
        self.detach(entry);
        self.remove_group_if_empty(group);
    }

    pub(super) fn add_group(&mut self, cell: u32, island: u32, zone: u32) -> u32 {
        self.unsorted += 1;
        let next_in_cell = self.cells[cell].first_group;
        let group = self.groups.insert(Group {
            cell,
            island,
            zone,
            first_entry: NONE,
            next_in_cell,
            previous_in_island: NONE,
            next_in_island: NONE,
        });
        self.cells[cell].first_group = group;
        self.link_to_island(group, island);
        group
    }

    pub(super) fn link_to_island(&mut self, group: u32, island: u32) {
        let next = std::mem::replace(&mut self.stats[island as usize].first_group, group);
        if next != NONE {
            self.groups[next].previous_in_island = group;
        }
        let group = &mut self.groups[group];
        (group.island, group.previous_in_island, group.next_in_island) = (island, NONE, next);
    }

    pub(super) fn unlink_from_island(&mut self, group: u32) {
        let Group { island, previous_in_island: previous, next_in_island: next, .. } = self.groups[group];
        match previous {
            NONE => self.stats[island as usize].first_group = next,
            previous => self.groups[previous].next_in_island = next,
        }
        if next != NONE {
            self.groups[next].previous_in_island = previous;
        }
    }

    pub(super) fn remove_group_if_empty(&mut self, group: u32) {
        if self.groups[group].first_entry != NONE {
            return;
        }
        self.unlink_from_island(group);
        let Group { cell, next_in_cell: next, .. } = self.groups[group];
        // A cell has few groups: searching for the previous one costs less than a back link in each
        // group.
        let before = self.groups_in_cell(cell).find(|&other| self.groups[other].next_in_cell == group);
        match before {
            None => self.cells[cell].first_group = next,
            Some(previous) => self.groups[previous].next_in_cell = next,
        }
        self.groups.remove(group);
        if self.cells[cell].first_group == NONE {
            self.remove_cell(cell);
        }
    }

    /// Moves all entries of a group into another group of the same cell.
    pub(super) fn merge_groups(&mut self, from: u32, into: u32) {
        let first = self.groups[from].first_entry;
        let mut last = first;
        let mut entry = first;
        while entry != NONE {
            last = entry;
            self.entries[entry].group = into;
            entry = self.entries[entry].next;
        }
        let next = std::mem::replace(&mut self.groups[into].first_entry, first);
        self.entries[last].next = next;
        if next != NONE {
            self.entries[next].previous = last;
        }
        self.groups[from].first_entry = NONE;
        self.remove_group_if_empty(from);
    }
}

pub(super) fn offset_key((x, z): CellKey, (by_x, by_z): (i32, i32)) -> CellKey {
    (x + by_x, z + by_z)
}
