//! Who stands where.
//!
//! The ground is cut into square cells as wide as the largest distance that is ever asked for, so
//! that whoever is within it stands in the same cell or in one of the eight around. In each cell the
//! members of one island form a *group*. Questions between islands are answered group by group:
//! people of one island are never compared with each other, and where everybody stands on one spot
//! there is one group for each island, however many people.

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

/// Sums of coordinates are kept in this part of a metre, as integers: they are exact, so that the
/// centre of an island does not depend on the order in which its members came.
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

/// A member of an island and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) peer: u32,
    pub(crate) at: Point,
    pub(crate) traits: PeerTraits,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SpatialIndex {
    cell_side_m: f64,
    cell_index: HashTable<u32>,
    cells: Slab<Cell>,
    groups: Slab<Group>,
    entries: Slab<PeerEntry>,
    /// By peer, where in `spots` it is.
    entry_by_peer: Vec<u32>,
    /// By island.
    stats: Vec<IslandStats>,
    visited: VisitedIslands,
    /// How far people reach, by zone.
    pub(crate) distances: DistanceTable,
    /// Cells and groups made since everything lay in order.
    unsorted: usize,
}

type CellKey = (i32, i32);

#[derive(Debug, Clone, Copy)]
struct Cell {
    key: CellKey,
    first_group: u32,
    neighbours: [u32; 8],
}

/// The members of one island and one zone in one cell. It is in two lists, the cell's and the island's.
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

/// Where a peer stands, and its place in the list of its group. Without a group it stands nowhere.
#[derive(Debug, Clone, Copy)]
struct PeerEntry {
    at: Point,
    peer: u32,
    group: u32,
    previous: u32,
    next: u32,
    traits: PeerTraits,
}

/// How many members an island has, the sums of their coordinates, and what they have in common.
#[derive(Debug, Clone, Copy)]
struct IslandStats {
    first_group: u32,
    size: u32,
    /// The zone of all members, as far as is known, or `MIXED_ZONES`.
    zone: u32,
    /// How many members lack each capability.
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
    /// Ground that answers questions about distances up to `max_distance_m`.
    pub(crate) fn new(max_distance_m: f32) -> Self {
        Self { cell_side_m: f64::from(max_distance_m) * CELL_MARGIN, ..Self::default() }
    }

    /// Makes room for one more peer, which stands nowhere yet.
    pub(crate) fn add_peer(&mut self, peer: u32, traits: PeerTraits) {
        let nowhere =
            PeerEntry { at: Point::default(), peer, group: NONE, previous: NONE, next: NONE, traits };
        let spot = self.entries.insert(nowhere);
        if peer as usize == self.entry_by_peer.len() {
            push_growing_by_eighth(&mut self.entry_by_peer, spot);
        } else {
            self.entry_by_peer[peer as usize] = spot;
        }
    }

    /// Gives up the room of a peer that stands nowhere.
    pub(crate) fn remove_peer(&mut self, peer: u32) {
        let spot = self.entry_by_peer[peer as usize];
        self.entries[spot].peer = NONE;
        self.entries.remove(spot);
    }

    /// Makes room for one more island, empty yet.
    pub(crate) fn add_island(&mut self, island: u32) {
        if island as usize == self.stats.len() {
            push_growing_by_eighth(&mut self.stats, EMPTY_STATS);
        } else {
            self.stats[island as usize] = EMPTY_STATS;
        }
    }

    /// Where the peer stands, or would.
    pub(crate) fn position(&self, peer: u32) -> Point {
        self.entries[self.entry_by_peer[peer as usize]].at
    }

    /// The island that the peer stands in, or `NONE`.
    pub(crate) fn island_of(&self, peer: u32) -> u32 {
        match self.entries[self.entry_by_peer[peer as usize]].group {
            NONE => NONE,
            group => self.groups[group].island,
        }
    }

    /// The peer as a member of the island that it stands in, or would stand in.
    pub(crate) fn member(&self, peer: u32) -> Member {
        let PeerEntry { at, traits: terms, .. } = self.entries[self.entry_by_peer[peer as usize]];
        Member { peer, at, traits: terms }
    }

    pub(crate) fn traits(&self, peer: u32) -> PeerTraits {
        self.entries[self.entry_by_peer[peer as usize]].traits
    }

    /// Changes what holds for a peer, wherever it stands.
    pub(crate) fn set_traits(&mut self, peer: u32, traits: PeerTraits) {
        let spot = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, traits: before, .. } = self.entries[spot];
        self.entries[spot].traits = traits;
        if group == NONE || before == traits {
            return;
        }
        let Group { cell, island, .. } = self.groups[group];
        self.remove_from_stats(at, island, before);
        self.add_to_stats(at, island, traits);
        if before.zone() != traits.zone() {
            // The new group first: the cell must not be given up in between.
            self.detach(spot);
            let kept = self.find_group(cell, island, traits.zone());
            self.attach(spot, cell, island, kept);
            self.remove_group_if_empty(group);
        }
    }

    /// Measures anew: questions are about distances up to `max_distance_m` from now on.
    pub(crate) fn set_max_distance(&mut self, max_distance_m: f32) {
        let side_m = f64::from(max_distance_m) * CELL_MARGIN;
        if side_m == self.cell_side_m {
            return;
        }
        let placed: Vec<(u32, u32)> = (0..self.entries.slot_count())
            .filter(|&spot| self.entries[spot].peer != NONE && self.entries[spot].group != NONE)
            .map(|spot| (spot, self.groups[self.entries[spot].group].island))
            .collect();
        self.cell_side_m = side_m;
        (self.cell_index, self.cells, self.groups) = Default::default();
        self.stats.iter_mut().for_each(|tally| tally.first_group = NONE);
        for (spot, island) in placed {
            let cell = self.find_or_add_cell(self.cell_key(self.entries[spot].at));
            self.link(spot, cell, island);
        }
    }

    /// The zone of all members of an island; `None` if they may be of several.
    pub(crate) fn single_zone(&self, island: u32) -> Option<u32> {
        Some(self.stats[island as usize].zone).filter(|&zone| zone != MIXED_ZONES)
    }

    /// The transports that every member of an island can join, leaving out one of them.
    pub(crate) fn capabilities(&self, island: u32, excluding: Option<PeerTraits>) -> Capabilities {
        let IslandStats { missing: lacking, .. } = &self.stats[island as usize];
        let own = |place: usize| excluding.is_some_and(|terms| terms.capabilities().0 >> place & 1 == 0);
        let bits = lacking.iter().enumerate().filter(|&(place, &count)| count == u16::from(own(place)));
        Capabilities(bits.fold(0, |bits, (place, _)| bits | 1 << place))
    }

    /// The zone that most members of an island are counted to, of several alike the one whose `areas`
    /// come first: numbers of zones depend on who came first.
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

    /// What zones members of an island are counted to, each once or more often, leaving out one
    /// member.
    pub(crate) fn member_zones(&self, island: u32, excluding: Option<u32>) -> impl Iterator<Item = u32> {
        let alone = excluding.map(|peer| self.entry_by_peer[peer as usize]);
        let groups = self.groups_of_island(island).filter(move |&group| {
            alone.is_none_or(|spot| self.entries_in_group(group).any(|other| other != spot))
        });
        groups.map(|group| self.groups[group].zone)
    }

    pub(crate) fn size(&self, island: u32) -> u32 {
        self.stats[island as usize].size
    }

    /// The mean of the members' places, in metres. Of an empty island, the origin.
    pub(crate) fn centre(&self, island: u32) -> (f64, f64) {
        let tally = &self.stats[island as usize];
        let scale = 1.0 / (f64::from(tally.size.max(1)) * UNITS_PER_M);
        (tally.sum_x as f64 * scale, tally.sum_z as f64 * scale)
    }

    /// A number for the place of an island's centre: those of islands near each other are, mostly.
    pub(crate) fn morton_code(&self, island: u32) -> u64 {
        let (x, z) = self.centre(island);
        memory_order::morton_code(self.cell_key(Point { x: x as f32, z: z as f32 }))
    }

    /// Moves a peer to another place. It stays in its island.
    pub(crate) fn set_position(&mut self, peer: u32, to: Point) {
        let spot = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, .. } = self.entries[spot];
        self.entries[spot].at = to;
        if group == NONE {
            return;
        }
        let island = self.groups[group].island;
        let tally = &mut self.stats[island as usize];
        tally.sum_x += to_fixed_point(to.x) - to_fixed_point(at.x);
        tally.sum_z += to_fixed_point(to.z) - to_fixed_point(at.z);
        let key = self.cell_key(to);
        if self.cells[self.groups[group].cell].key != key {
            self.unlink(spot);
            let cell = self.find_or_add_cell(key);
            self.link(spot, cell, island);
        }
    }

    /// Puts a peer that stands nowhere into an island, at its place.
    pub(crate) fn add_member(&mut self, peer: u32, island: u32) {
        let spot = self.entry_by_peer[peer as usize];
        let PeerEntry { at, traits: terms, .. } = self.entries[spot];
        let cell = self.find_or_add_cell(self.cell_key(at));
        self.link(spot, cell, island);
        self.add_to_stats(at, island, terms);
    }

    /// Takes a peer out of its island. It keeps its place.
    pub(crate) fn remove_member(&mut self, peer: u32) {
        let spot = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, traits: terms, .. } = self.entries[spot];
        let island = self.groups[group].island;
        self.unlink(spot);
        self.remove_from_stats(at, island, terms);
    }

    /// Hands a peer from its island to another.
    pub(crate) fn transfer(&mut self, peer: u32, island: u32) {
        let spot = self.entry_by_peer[peer as usize];
        let PeerEntry { at, group, traits: terms, .. } = self.entries[spot];
        let Group { cell, island: before, .. } = self.groups[group];
        // The new group first: the cell must not be given up in between.
        self.detach(spot);
        let kept = self.find_group(cell, island, terms.zone());
        self.attach(spot, cell, island, kept);
        self.remove_group_if_empty(group);
        self.remove_from_stats(at, before, terms);
        self.add_to_stats(at, island, terms);
    }

    /// Hands all members of one island to another.
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
        let IslandStats { size, zone, missing: lacking, sum_x, sum_z, .. } =
            std::mem::replace(&mut self.stats[from as usize], EMPTY_STATS);
        let tally = &mut self.stats[into as usize];
        if tally.zone != zone {
            tally.zone = MIXED_ZONES;
        }
        tally.missing.iter_mut().zip(lacking).for_each(|(count, more)| *count += more);
        tally.size += size;
        tally.sum_x += sum_x;
        tally.sum_z += sum_z;
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
        let tally = &mut self.stats[island as usize];
        if tally.size == 0 {
            tally.zone = traits.zone();
        } else if tally.zone != traits.zone() {
            tally.zone = MIXED_ZONES;
        }
        traits.capabilities().missing_bits().for_each(|place| tally.missing[place] += 1);
        tally.size += 1;
        tally.sum_x += to_fixed_point(at.x);
        tally.sum_z += to_fixed_point(at.z);
    }

    fn remove_from_stats(&mut self, at: Point, island: u32, traits: PeerTraits) {
        let tally = &mut self.stats[island as usize];
        traits.capabilities().missing_bits().for_each(|place| tally.missing[place] -= 1);
        tally.size -= 1;
        tally.sum_x -= to_fixed_point(at.x);
        tally.sum_z -= to_fixed_point(at.z);
    }
}

fn iter_list(first: u32, next: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
    let some = |place: u32| (place != NONE).then_some(place);
    std::iter::successors(some(first), move |&place| some(next(place)))
}
