//! Sorts the tables of the grid by Morton code (Z-order curve), so that neighbours on the ground are
//! near each other in memory.

use super::index::{Cell, CellKey, Group, PeerEntry, SpatialIndex};
use crate::{
    ids::{CellIndex, EntryIndex, GroupIndex, IslandIndex, TableIndex},
    index_vec::IndexVec,
    point::Point,
};

/// Fewer new groups than this never cause a sort.
const MIN_UNSORTED: usize = 4_096;

impl SpatialIndex {
    /// Sorts cells, groups and entries by position if many groups were created since the last sort.
    /// Queries step from neighbour to neighbour; with millions of entries in random order, each step
    /// would be a cache miss.
    pub(crate) fn reorder_memory(&mut self) {
        if self.unsorted < MIN_UNSORTED.max(self.groups.len() / 2) {
            return;
        }
        self.unsorted = 0;
        let cells = self.cells_in_morton_order();
        let groups: Vec<GroupIndex> =
            cells.iter().flat_map(|&cell| self.groups_in_cell(Some(cell))).collect();
        let mut entries: Vec<EntryIndex> =
            groups.iter().flat_map(|&group| self.entries_in_group(group)).collect();
        entries.extend(self.entries.used_slots().filter(|&entry| self.entries[entry].group.is_none()));
        self.renumber(&cells, &groups, &entries);
    }

    fn cells_in_morton_order(&self) -> Vec<CellIndex> {
        let mut cells: Vec<(u64, CellIndex)> =
            self.cell_index.iter().map(|&cell| (morton_code(self.cells[cell].key), cell)).collect();
        cells.sort_unstable();
        cells.into_iter().map(|(_, cell)| cell).collect()
    }

    fn renumber(&mut self, cells: &[CellIndex], groups: &[GroupIndex], entries: &[EntryIndex]) {
        let cells = self.cells.reorder(cells);
        let groups = self.groups.reorder(groups);
        let entries = self.entries.reorder(entries);
        for Cell { first_group, neighbours, .. } in self.cells.iter_mut() {
            renumber_link(&groups, first_group);
            neighbours.iter_mut().for_each(|cell| renumber_link(&cells, cell));
        }
        for Group { cell, first_entry, next_in_cell, previous_in_island, next_in_island, .. } in
            self.groups.iter_mut()
        {
            renumber(&cells, cell);
            renumber_link(&entries, first_entry);
            [next_in_cell, previous_in_island, next_in_island]
                .into_iter()
                .for_each(|group| renumber_link(&groups, group));
        }
        for PeerEntry { group, previous, next, .. } in self.entries.iter_mut() {
            renumber_link(&groups, group);
            renumber_link(&entries, previous);
            renumber_link(&entries, next);
        }
        self.stats.iter_mut().for_each(|stats| renumber_link(&groups, &mut stats.first_group));
        self.cell_index.iter_mut().for_each(|cell| renumber(&cells, cell));
        for entry in self.entries.slots() {
            self.entry_by_peer[self.entries[entry].peer] = entry;
        }
    }

    /// The Morton code of an island's centre: near islands mostly have near codes.
    pub(crate) fn morton_code(&self, island: IslandIndex) -> u64 {
        let (x, z) = self.centre(island);
        morton_code(self.cell_key(Point { x: x as f32, z: z as f32 }))
    }
}

fn renumber<I: TableIndex>(slots: &IndexVec<I, Option<I>>, index: &mut I) {
    *index = slots[*index].expect("linked slots were kept");
}

fn renumber_link<I: TableIndex>(slots: &IndexVec<I, Option<I>>, link: &mut Option<I>) {
    if let Some(index) = link {
        renumber(slots, index);
    }
}

/// The Morton code of a cell: the bits of both coordinates interleaved. Near cells mostly have near
/// codes.
fn morton_code((x, z): CellKey) -> u64 {
    let spread = |number: i32| {
        // Flips the sign bit, so that the unsigned order is the order from the least to the greatest
        // coordinate.
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
