//! The tables of the spatial hash grid.

use hashbrown::HashTable;

use super::{
    distances::DistanceTable, island_stats::IslandStats, member::Member, peer_traits::PeerTraits,
    visited_islands::VisitedIslands,
};
use crate::{
    ids::{CellIndex, EntryIndex, GroupIndex, IslandIndex, PeerIndex, ZoneIndex},
    index_vec::IndexVec,
    point::Point,
    slab::Slab,
};

/// Cells are wider than the largest query distance by this factor, so that rounding never hides a
/// neighbour.
const CELL_MARGIN: f64 = 1.001;

/// The spatial hash grid.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpatialIndex {
    pub(super) cell_side_m: f64,
    /// Cells by their key.
    pub(super) cell_index: HashTable<CellIndex>,
    pub(super) cells: Slab<CellIndex, Cell>,
    pub(super) groups: Slab<GroupIndex, Group>,
    pub(super) entries: Slab<EntryIndex, PeerEntry>,
    pub(super) entry_by_peer: IndexVec<PeerIndex, EntryIndex>,
    /// Size, sums and common traits of each island.
    pub(super) stats: IndexVec<IslandIndex, IslandStats>,
    pub(super) visited: VisitedIslands,
    /// Join and leave distances, by zone.
    pub(crate) distances: DistanceTable,
    /// The number of groups created since the tables were last sorted by position.
    pub(super) unsorted: usize,
}

pub(super) type CellKey = (i32, i32);

#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) key: CellKey,
    pub(super) first_group: Option<GroupIndex>,
    pub(super) neighbours: [Option<CellIndex>; 8],
}

/// The members of one island and one zone in one cell. It is in two linked lists: of its cell, and of
/// its island.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) cell: CellIndex,
    pub(super) island: IslandIndex,
    pub(super) zone: ZoneIndex,
    pub(super) first_entry: Option<EntryIndex>,
    pub(super) next_in_cell: Option<GroupIndex>,
    pub(super) previous_in_island: Option<GroupIndex>,
    pub(super) next_in_island: Option<GroupIndex>,
}

/// The position of a peer, and its links in the list of its group. A peer without a group is in no
/// island.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerEntry {
    pub(super) at: Point,
    pub(super) peer: PeerIndex,
    pub(super) group: Option<GroupIndex>,
    pub(super) previous: Option<EntryIndex>,
    pub(super) next: Option<EntryIndex>,
    pub(super) traits: PeerTraits,
}

const _: () = assert!(size_of::<Cell>() == 44 && size_of::<Group>() == 28 && size_of::<PeerEntry>() == 28);

impl PeerEntry {
    pub(super) fn member(self) -> Member {
        let Self { at, peer, traits, .. } = self;
        Member { peer, at, traits }
    }
}

impl SpatialIndex {
    /// An index for queries with distances of up to `max_distance_m`.
    pub(crate) fn new(max_distance_m: f32) -> Self {
        Self { cell_side_m: cell_side_m(max_distance_m), ..Self::default() }
    }

    /// The position of a peer, whether it is in an island or not.
    pub(crate) fn position(&self, peer: PeerIndex) -> Point {
        self.entries[self.entry_by_peer[peer]].at
    }

    /// The island of a peer, if it is in one.
    pub(crate) fn island_of(&self, peer: PeerIndex) -> Option<IslandIndex> {
        let group = self.entries[self.entry_by_peer[peer]].group?;
        Some(self.groups[group].island)
    }

    /// The peer as a member, whether it is in an island or not.
    pub(crate) fn member(&self, peer: PeerIndex) -> Member {
        self.entries[self.entry_by_peer[peer]].member()
    }

    pub(crate) fn traits(&self, peer: PeerIndex) -> PeerTraits {
        self.entries[self.entry_by_peer[peer]].traits
    }

    pub(super) fn cell_key(&self, at: Point) -> CellKey {
        let cell = |metres: f32| (f64::from(metres) / self.cell_side_m).floor() as i32;
        (cell(at.x), cell(at.z))
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.cell_index.allocation_size()
            + self.cells.bytes()
            + self.groups.bytes()
            + self.entries.bytes()
            + self.entry_by_peer.bytes()
            + self.stats.bytes()
            + self.visited.bytes()
    }
}

/// The side of cells for queries with distances of up to `max_distance_m`.
pub(super) fn cell_side_m(max_distance_m: f32) -> f64 {
    f64::from(max_distance_m) * CELL_MARGIN
}
