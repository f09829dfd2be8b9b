use super::{Cell, CellKey, Group, PeerEntry, SpatialIndex};
use crate::slab::NONE;

/// Up to this many cells and groups out of order are left so in any case.
const MIN_UNSORTED: usize = 4_096;

impl SpatialIndex {
    /// Lays cells, groups and spots out in memory as they lie on the ground, if many of them came
    /// about since that was done last. Searches go from neighbour to neighbour; with millions of
    /// them each step would be a wait for memory otherwise.
    pub(crate) fn reorder_memory(&mut self) {
        if self.unsorted < MIN_UNSORTED.max(self.groups.len() / 2) {
            return;
        }
        self.unsorted = 0;
        let cells = self.cells_in_morton_order();
        let groups: Vec<u32> = cells.iter().flat_map(|&cell| self.groups_in_cell(cell)).collect();
        let mut spots: Vec<u32> = groups.iter().flat_map(|&group| self.entries_in_group(group)).collect();
        let nowhere = |&spot: &u32| self.entries[spot].group == NONE && self.entries[spot].peer != NONE;
        spots.extend((0..self.entries.slot_count()).filter(nowhere));
        self.renumber(&cells, &groups, &spots);
    }

    fn cells_in_morton_order(&self) -> Vec<u32> {
        let mut cells: Vec<(u64, u32)> =
            self.cell_index.iter().map(|&cell| (morton_code(self.cells[cell].key), cell)).collect();
        cells.sort_unstable();
        cells.into_iter().map(|(_, cell)| cell).collect()
    }

    fn renumber(&mut self, cells: &[u32], groups: &[u32], spots: &[u32]) {
        let cells = self.cells.reorder(cells);
        let groups = self.groups.reorder(groups);
        let spots = self.entries.reorder(spots);
        let rename = |names: &[u32], name: &mut u32| {
            if *name != NONE {
                *name = names[*name as usize];
            }
        };
        for Cell { first_group, neighbours: around, .. } in self.cells.iter_mut() {
            rename(&groups, first_group);
            around.iter_mut().for_each(|cell| rename(&cells, cell));
        }
        for Group {
            cell, first_entry: first_spot, next_in_cell, previous_in_island, next_in_island, ..
        } in self.groups.iter_mut()
        {
            rename(&cells, cell);
            rename(&spots, first_spot);
            [next_in_cell, previous_in_island, next_in_island]
                .into_iter()
                .for_each(|group| rename(&groups, group));
        }
        for PeerEntry { group, previous, next, .. } in self.entries.iter_mut() {
            rename(&groups, group);
            rename(&spots, previous);
            rename(&spots, next);
        }
        self.stats.iter_mut().for_each(|tally| rename(&groups, &mut tally.first_group));
        self.cell_index.iter_mut().for_each(|cell| rename(&cells, cell));
        for place in 0..self.entries.slot_count() {
            self.entry_by_peer[self.entries[place].peer as usize] = place;
        }
    }
}

/// The bits of both numbers in turn: cells that are near each other get numbers that are, mostly.
pub(super) fn morton_code((x, z): CellKey) -> u64 {
    let spread = |number: i32| {
        // The sign bit turned, so that the order goes from the least to the greatest.
        let mut bits = u64::from(number as u32 ^ 0x8000_0000);
        for (shift, mask) in [
            (16, 0x0000_ffff_0000_ffff),
            (8, 0x00ff_00ff_00ff_00ff),
            (4, 0x0f0f_0f0f_0f0f_0f0f),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555),
        ] {
            bits = (bits | (bits << shift)) & mask;
        }
        bits
    };
    spread(x) | spread(z) << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn morton_code_interleaves_coordinate_bits() {
        assert_eq!(morton_code((i32::MIN, i32::MIN)), 0);
        assert_eq!(morton_code((i32::MIN + 3, i32::MIN)), 0b0101);
        assert_eq!(morton_code((i32::MIN, i32::MIN + 3)), 0b1010);
        assert_eq!(morton_code((i32::MAX, i32::MAX)), u64::MAX);
    }
}
