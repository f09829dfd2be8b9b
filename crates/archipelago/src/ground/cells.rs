//! The squares that the ground is cut into, and the lists that groups and spots are in.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::{Cell, Ground, Group, Key, Point, Spot};
use crate::slab::NONE;

/// Cells are a little wider than the distance, so that rounding never hides a neighbour.
pub(super) const CELL_MARGIN: f64 = 1.001;
/// The eight cells around one; the opposite of the n-th is the (7 − n)-th.
pub(super) const AROUND: [(i32, i32); 8] =
    [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];

fn hash(key: Key) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Ground {
    pub(super) fn key(&self, at: Point) -> Key {
        let cell = |metres: f32| (f64::from(metres) / self.cell_side_m).floor() as i32;
        (cell(at.x), cell(at.z))
    }

    pub(super) fn find_cell(&self, key: Key) -> u32 {
        self.index.find(hash(key), |&cell| self.cells[cell].key == key).copied().unwrap_or(NONE)
    }

    pub(super) fn open_cell(&mut self, key: Key) -> u32 {
        match self.find_cell(key) {
            NONE => self.add_cell(key),
            cell => cell,
        }
    }

    pub(super) fn add_cell(&mut self, key: Key) -> u32 {
        let around = AROUND.map(|by| self.find_cell(offset(key, by)));
        let cell = self.cells.insert(Cell { key, first_group: NONE, around });
        for (direction, &neighbour) in around.iter().enumerate() {
            if neighbour != NONE {
                self.cells[neighbour].around[7 - direction] = cell;
            }
        }
        let cells = &self.cells;
        self.index.insert_unique(hash(key), cell, |&cell| hash(cells[cell].key));
        cell
    }

    pub(super) fn remove_cell(&mut self, cell: u32) {
        let Cell { key, around, .. } = self.cells[cell];
        for (direction, &neighbour) in around.iter().enumerate() {
            if neighbour != NONE {
                self.cells[neighbour].around[7 - direction] = NONE;
            }
        }
        if let Ok(entry) = self.index.find_entry(hash(key), |&other| other == cell) {
            entry.remove();
        }
        self.cells.remove(cell);
    }

    pub(super) fn find_group(&self, cell: u32, island: u32, zone: u32) -> u32 {
        let is_it = |&group: &u32| (self.groups[group].island, self.groups[group].zone) == (island, zone);
        self.groups_in(cell).find(is_it).unwrap_or(NONE)
    }

    pub(super) fn link(&mut self, spot: u32, cell: u32, island: u32) {
        let group = self.find_group(cell, island, self.spots[spot].terms.zone());
        self.attach(spot, cell, island, group);
    }

    /// Adds a spot to a group, or to a new one if there is none.
    pub(super) fn attach(&mut self, spot: u32, cell: u32, island: u32, group: u32) {
        let zone = self.spots[spot].terms.zone();
        let group = if group == NONE { self.add_group(cell, island, zone) } else { group };
        let next = std::mem::replace(&mut self.groups[group].first_spot, spot);
        if next != NONE {
            self.spots[next].previous = spot;
        }
        let spot = &mut self.spots[spot];
        (spot.group, spot.previous, spot.next) = (group, NONE, next);
    }

    pub(super) fn detach(&mut self, spot: u32) {
        let Spot { group, previous, next, .. } = self.spots[spot];
        match previous {
            NONE => self.groups[group].first_spot = next,
            previous => self.spots[previous].next = next,
        }
        if next != NONE {
            self.spots[next].previous = previous;
        }
        self.spots[spot].group = NONE;
    }

    pub(super) fn unlink(&mut self, spot: u32) {
        let group = self.spots[spot].group;
        self.detach(spot);
        self.close_if_empty(group);
    }

    pub(super) fn add_group(&mut self, cell: u32, island: u32, zone: u32) -> u32 {
        self.disorder += 1;
        let next_in_cell = self.cells[cell].first_group;
        let group = self.groups.insert(Group {
            cell,
            island,
            zone,
            first_spot: NONE,
            next_in_cell,
            previous_in_island: NONE,
            next_in_island: NONE,
        });
        self.cells[cell].first_group = group;
        self.link_to_island(group, island);
        group
    }

    pub(super) fn link_to_island(&mut self, group: u32, island: u32) {
        let next = std::mem::replace(&mut self.tallies[island as usize].first_group, group);
        if next != NONE {
            self.groups[next].previous_in_island = group;
        }
        let group = &mut self.groups[group];
        (group.island, group.previous_in_island, group.next_in_island) = (island, NONE, next);
    }

    pub(super) fn unlink_from_island(&mut self, group: u32) {
        let Group { island, previous_in_island: previous, next_in_island: next, .. } = self.groups[group];
        match previous {
            NONE => self.tallies[island as usize].first_group = next,
            previous => self.groups[previous].next_in_island = next,
        }
        if next != NONE {
            self.groups[next].previous_in_island = previous;
        }
    }

    pub(super) fn close_if_empty(&mut self, group: u32) {
        if self.groups[group].first_spot != NONE {
            return;
        }
        self.unlink_from_island(group);
        let Group { cell, next_in_cell: next, .. } = self.groups[group];
        // Few islands are in a cell: to seek the one before costs less than for all to know theirs.
        let before = self.groups_in(cell).find(|&other| self.groups[other].next_in_cell == group);
        match before {
            None => self.cells[cell].first_group = next,
            Some(previous) => self.groups[previous].next_in_cell = next,
        }
        self.groups.remove(group);
        if self.cells[cell].first_group == NONE {
            self.remove_cell(cell);
        }
    }

    /// Moves all spots of a group into another of the same cell.
    pub(super) fn pour(&mut self, from: u32, into: u32) {
        let first = self.groups[from].first_spot;
        let mut last = first;
        let mut spot = first;
        while spot != NONE {
            last = spot;
            self.spots[spot].group = into;
            spot = self.spots[spot].next;
        }
        let next = std::mem::replace(&mut self.groups[into].first_spot, first);
        self.spots[last].next = next;
        if next != NONE {
            self.spots[next].previous = last;
        }
        self.groups[from].first_spot = NONE;
        self.close_if_empty(from);
    }
}

pub(super) fn offset((x, z): Key, (by_x, by_z): (i32, i32)) -> Key {
    (x + by_x, z + by_z)
}
