//! A spatial hash grid of peer positions, grouped by island.
//!
//! Cells are squares as wide as the largest distance of any query, so all points within that distance
//! of a point are in its cell or in one of the eight around it. The members of one island and zone in
//! one cell form a *group*. Queries between islands compare group with group: members of one island are
//! never compared with each other, and where all peers are at one position there is one group per
//! island and zone, however many peers.

mod cells;
mod memory_order;
mod peer_traits;
mod queries;

use hashbrown::HashTable;

use crate::slab::{NONE, Slab, push_growing_by_eighth};

pub(crate) use self::peer_traits::{
    Capabilities, DistanceTable, MAX_CAPABILITIES, MAX_ZONES, PeerTraits, ZoneDistances,
};
use self::{cells::CELL_MARGIN, peer_traits::MIXED_ZONES, queries::VisitedIslands};

/// Sums of coordinates are integers in units of this fraction of a metre. Integer sums are exact, so
/// the centre of an island does not depend on the order in which its members joined.
const UNITS_PER_M: f64 = 1_024.0;

/// A point on the ground, in metres.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Point {
    pub(crate) x: f32,
    pub(crate) z: f32,
}

impl Point {
    pub(crate) fn distance_squared(self, other: Self) -> f32 {
        let (dx, dz) = (self.x - other.x, self.z - other.z);
        dx * dx + dz * dz
    }
}

/// A member of an island, with its position and traits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) peer: u32,
    pub(crate) at: Point,
    pub(crate) traits: PeerTraits,
}

/// The spatial hash grid. Peers, islands and zones are referred to by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpatialIndex {
    cell_side_m: f64,
    /// Cells by their key.
    cell_index: HashTable<u32>,
    cells: Slab<Cell>,
    groups: Slab<Group>,
    entries: Slab<PeerEntry>,
    /// The index in `entries`, by peer.
    entry_by_peer: Vec<u32>,
    /// Size, sums and common traits, by island.
    stats: Vec<IslandStats>,
    visited: VisitedIslands,
    /// Join and leave distances, by zone.
    pub(crate) distances: DistanceTable,
    /// The number of groups created since the tables were last sorted by position.
    unsorted: usize,
}

type CellKey = (i32, i32);

#[derive(Debug, Clone, Copy)]
struct Cell {
    key: CellKey,
    first_group: u32,
    neighbours: [u32; 8],
}

/// The members of one island and one zone in one cell. It is in two linked lists: of its cell, and of
/// its island.
#[derive(Debug, Clone, Copy)]
struct Group {
    cell: u32,
    island: u32,
    zone: u32,
    first_entry: u32,
    next_in_cell: u32,
    previous_in_island: u32,
    next_in_island: u32,
}

/// The position of a peer, and its links in the list of its group. A peer without a group is in no
/// island.
#[derive(Debug, Clone, Copy)]
struct PeerEntry {
    at: Point,
    peer: u32,
    group: u32,
    previous: u32,
    next: u32,
    traits: PeerTraits,
}

/// The number of members of an island, the sums of their coordinates, and what they have in common.
#[derive(Debug, Clone, Copy)]
struct IslandStats {
    first_group: u32,
    size: u32,
    /// The zone of all members, or `MIXED_ZONES` if they may be in several.
    zone: u32,
    /// The number of members that lack each capability.
    missing: [u16; MAX_CAPABILITIES],
    sum_x: i64,
    sum_z: i64,
}

const EMPTY_STATS: IslandStats = IslandStats {
    first_group: NONE,
    size: 0,
    zone: MIXED_ZONES,
    missing: [0; MAX_CAPABILITIES],
    sum_x: 0,
    sum_z: 0,
};

fn to_fixed_point(metres: f32) -> i64 {
    (f64::from(metres) * UNITS_PER_M).round() as i64
}

impl SpatialIndex {
    /// An index for queries with distances of up to `max_distance_m`.
    pub(crate) fn new(max_distance_m: f32) -> Self {
        Self { cell_side_m: f64::from(max_distance_m) * CELL_MARGIN, ..Self::default() }
    }

    /// Adds a peer that is in no island yet.
    pub(crate) fn add_peer(&mut self, peer: u32, traits: PeerTraits) {
        let unplaced =
            PeerEntry { at: Point::default(), peer, group: NONE, previous: NONE, next: NONE, traits };
        let entry = self.entries.insert(unplaced);
        if peer as usize == self.entry_by_peer.len() {
            push_growing_by_eighth(&mut self.entry_by_peer, entry);
        } else {
            self.entry_by_peer[peer as usize] = entry;
        }
    }

    /// Removes a peer that is in no island.
    pub(crate) fn remove_peer(&mut self, peer: u32) {
        let entry = self.entry_by_peer[peer as usize];
        self.entries[entry].peer = NONE;
        self.entries.remove(entry);
    }

    /// Adds an island without members.
    pub(crate) fn add_island(&mut self, island: u32) {
        if island as usize == self.stats.len() {
            push_growing_by_eighth(&mut self.stats, EMPTY_STATS);
        } else {
            self.stats[island as usize] = EMPTY_STATS;
        }
    }

    /// The position of a peer, whether it is in an island or not.
    pub(crate) fn position(&self, peer: u32) -> Point {
        self.entries[self.entry_by_peer[peer as usize]].at
    }

    /// The island of a peer, or `NONE`.
    pub(crate) fn island_of(&self, peer: u32) -> u32 {
        match self.entries[self.entry_by_peer[peer as usize]].group {
            NONE => NONE,
            group => self.groups[group].island,
        }
    }

    /// The peer as a member, whether it is in an island or not.
    pub(crate) fn member(&self, peer: u32) -> Member {
        let PeerEntry { at, traits, .. } = self.entries[self.entry_by_peer[peer as usize]];
        Member { peer, at, traits }
    }

    pub(crate) fn traits(&self, peer: u32) -> PeerTraits {
        self.entries[self.entry_by_peer[peer as usize]].traits
    }

    /// Changes the zone and the capabilities of a peer, in an island or not.
    pub(crate) fn set_traits(&mut self, peer: u32, traits: PeerTraits) {
        let entry = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, traits: before, .. } = self.entries[entry];
        self.entries[entry].traits = traits;
        if group == NONE || before == traits {
            return;
        }
        let Group { cell, island, .. } = self.groups[group];
        self.remove_from_stats(at, island, before);
        self.add_to_stats(at, island, traits);
        if before.zone() != traits.zone() {
            // The new group is created before the old one is removed, so that the cell stays in between.
            self.detach(entry);
            let kept = self.find_group(cell, island, traits.zone());
            self.attach(entry, cell, island, kept);
            self.remove_group_if_empty(group);
        }
    }

    /// Rebuilds the grid for queries with distances of up to `max_distance_m`, if that changes the size
    /// of the cells.
    pub(crate) fn set_max_distance(&mut self, max_distance_m: f32) {
        let side_m = f64::from(max_distance_m) * CELL_MARGIN;
        if side_m == self.cell_side_m {
            return;
        }
        let placed: Vec<(u32, u32)> = (0..self.entries.slot_count())
            .filter(|&entry| self.entries[entry].peer != NONE && self.entries[entry].group != NONE)
            .map(|entry| (entry, self.groups[self.entries[entry].group].island))
            .collect();
        self.cell_side_m = side_m;
        (self.cell_index, self.cells, self.groups) = Default::default();
        self.stats.iter_mut().for_each(|stats| stats.first_group = NONE);
        for (entry, island) in placed {
            let cell = self.find_or_add_cell(self.cell_key(self.entries[entry].at));
            self.link(entry, cell, island);
        }
    }

    /// The zone of all members of an island; `None` if they may be in several.
    pub(crate) fn single_zone(&self, island: u32) -> Option<u32> {
        Some(self.stats[island as usize].zone).filter(|&zone| zone != MIXED_ZONES)
    }

    /// The transports that every member of an island can join. A member with the traits `excluding` is
    /// not counted.
    pub(crate) fn capabilities(&self, island: u32, excluding: Option<PeerTraits>) -> Capabilities {
        let IslandStats { missing, .. } = &self.stats[island as usize];
        let excluded_lacks =
            |bit: usize| excluding.is_some_and(|traits| traits.capabilities().0 >> bit & 1 == 0);
        let bits =
            missing.iter().enumerate().filter(|&(bit, &count)| count == u16::from(excluded_lacks(bit)));
        Capabilities(bits.fold(0, |bits, (bit, _)| bits | 1 << bit))
    }

    /// The zone of most members of an island; of several with the same count, the one whose `areas`
    /// come first. Zone numbers are not used to decide, because they depend on which peer arrived
    /// first.
    pub(crate) fn majority_zone<'a>(&self, island: u32, areas: impl Fn(u32) -> &'a [u32]) -> u32 {
        if let Some(zone) = self.single_zone(island) {
            return zone;
        }
        let mut counts: Vec<(u32, usize)> = Vec::new();
        for group in self.groups_of_island(island) {
            let (zone, size) = (self.groups[group].zone, self.entries_in_group(group).count());
            match counts.iter_mut().find(|(other, _)| *other == zone) {
                Some((_, count)) => *count += size,
                None => counts.push((zone, size)),
            }
        }
        let most = counts.into_iter().max_by_key(|&(zone, count)| (count, std::cmp::Reverse(areas(zone))));
        most.map_or(0, |(zone, _)| zone)
    }

    /// The zones of the members of an island, each once or more often, not counting the member
    /// `excluding`.
    pub(crate) fn member_zones(&self, island: u32, excluding: Option<u32>) -> impl Iterator<Item = u32> {
        let excluded = excluding.map(|peer| self.entry_by_peer[peer as usize]);
        let groups = self.groups_of_island(island).filter(move |&group| {
            excluded.is_none_or(|entry| self.entries_in_group(group).any(|other| other != entry))
        });
        groups.map(|group| self.groups[group].zone)
    }

    pub(crate) fn size(&self, island: u32) -> u32 {
        self.stats[island as usize].size
    }

    /// The mean of the members' positions, x and z in metres; the origin for an empty island.
    pub(crate) fn centre(&self, island: u32) -> (f64, f64) {
        let stats = &self.stats[island as usize];
        let scale = 1.0 / (f64::from(stats.size.max(1)) * UNITS_PER_M);
        (stats.sum_x as f64 * scale, stats.sum_z as f64 * scale)
    }

    /// The Morton code of an island's centre: near islands mostly have near codes.
    pub(crate) fn morton_code(&self, island: u32) -> u64 {
        let (x, z) = self.centre(island);
        memory_order::morton_code(self.cell_key(Point { x: x as f32, z: z as f32 }))
    }

    /// Changes the position of a peer. It stays in its island.
    pub(crate) fn set_position(&mut self, peer: u32, to: Point) {
        let entry = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, .. } = self.entries[entry];
        self.entries[entry].at = to;
        if group == NONE {
            return;
        }
        let island = self.groups[group].island;
        let stats = &mut self.stats[island as usize];
        stats.sum_x += to_fixed_point(to.x) - to_fixed_point(at.x);
        stats.sum_z += to_fixed_point(to.z) - to_fixed_point(at.z);
        let key = self.cell_key(to);
        if self.cells[self.groups[group].cell].key != key {
            self.unlink(entry);
            let cell = self.find_or_add_cell(key);
            self.link(entry, cell, island);
        }
    }

    /// Adds a peer that is in no island to an island.
    pub(crate) fn add_member(&mut self, peer: u32, island: u32) {
        let entry = self.entry_by_peer[peer as usize];
        let PeerEntry { at, traits, .. } = self.entries[entry];
        let cell = self.find_or_add_cell(self.cell_key(at));
        self.link(entry, cell, island);
        self.add_to_stats(at, island, traits);
    }

    /// Removes a peer from its island. It keeps its position.
    pub(crate) fn remove_member(&mut self, peer: u32) {
        let entry = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, traits, .. } = self.entries[entry];
        let island = self.groups[group].island;
        self.unlink(entry);
        self.remove_from_stats(at, island, traits);
    }

    /// Moves a peer from its island to another.
    pub(crate) fn transfer(&mut self, peer: u32, island: u32) {
        let entry = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, traits, .. } = self.entries[entry];
        let Group { cell, island: before, .. } = self.groups[group];
        // The new group is created before the old one is removed, so that the cell stays in between.
        self.detach(entry);
        let kept = self.find_group(cell, island, traits.zone());
        self.attach(entry, cell, island, kept);
        self.remove_group_if_empty(group);
        self.remove_from_stats(at, before, traits);
        self.add_to_stats(at, island, traits);
    }

    /// Moves all members of one island to another.
    pub(crate) fn merge_islands(&mut self, from: u32, into: u32) {
        let mut group = self.stats[from as usize].first_group;
        while group != NONE {
            let Group { cell, zone, next_in_island, .. } = self.groups[group];
            match self.find_group(cell, into, zone) {
                NONE => {
                    self.unlink_from_island(group);
                    self.link_to_island(group, into);
                }
                other => self.merge_groups(group, other),
            }
            group = next_in_island;
        }
        let IslandStats { size, zone, missing, sum_x, sum_z, .. } =
            std::mem::replace(&mut self.stats[from as usize], EMPTY_STATS);
        let stats = &mut self.stats[into as usize];
        if stats.zone != zone {
            stats.zone = MIXED_ZONES;
        }
        stats.missing.iter_mut().zip(missing).for_each(|(count, more)| *count += more);
        stats.size += size;
        stats.sum_x += sum_x;
        stats.sum_z += sum_z;
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.cell_index.allocation_size()
            + self.cells.bytes()
            + self.groups.bytes()
            + self.entries.bytes()
            + self.entry_by_peer.capacity() * size_of::<u32>()
            + self.stats.capacity() * size_of::<IslandStats>()
            + self.visited.stamps.capacity() * size_of::<u32>()
    }

    fn add_to_stats(&mut self, at: Point, island: u32, traits: PeerTraits) {
        let stats = &mut self.stats[island as usize];
        if stats.size == 0 {
            stats.zone = traits.zone();
        } else if stats.zone != traits.zone() {
            stats.zone = MIXED_ZONES;
        }
        traits.capabilities().missing_bits().for_each(|bit| stats.missing[bit] += 1);
        stats.size += 1;
        stats.sum_x += to_fixed_point(at.x);
        stats.sum_z += to_fixed_point(at.z);
    }

    fn remove_from_stats(&mut self, at: Point, island: u32, traits: PeerTraits) {
        let stats = &mut self.stats[island as usize];
        traits.capabilities().missing_bits().for_each(|bit| stats.missing[bit] -= 1);
        stats.size -= 1;
        stats.sum_x -= to_fixed_point(at.x);
        stats.sum_z -= to_fixed_point(at.z);
    }
}

/// The elements of a linked list from `first` on, until `NONE`.
fn iter_list(first: u32, next: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
    let some = |index: u32| (index != NONE).then_some(index);
    std::iter::successors(some(first), move |&index| some(next(index)))
}
