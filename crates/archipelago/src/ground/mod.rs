//! Who stands where.
//!
//! The ground is cut into square cells as wide as the largest distance that is ever asked for, so
//! that whoever is within it stands in the same cell or in one of the eight around. In each cell the
//! members of one island form a *group*. Questions between islands are answered group by group:
//! people of one island are never compared with each other, and where everybody stands on one spot
//! there is one group for each island, however many people.

mod cells;
mod search;
mod terms;
mod tidy;

use hashbrown::HashTable;

use crate::slab::{NONE, Slab, push_tight};

pub(crate) use self::terms::{Capabilities, MOST_CAPABILITIES, MOST_ZONES, Reach, Reaches, Terms};
use self::{cells::CELL_MARGIN, search::Marks, terms::MIXED};

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
    pub(crate) terms: Terms,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Ground {
    cell_side_m: f64,
    index: HashTable<u32>,
    cells: Slab<Cell>,
    groups: Slab<Group>,
    spots: Slab<Spot>,
    /// By peer, where in `spots` it is.
    places: Vec<u32>,
    /// By island.
    tallies: Vec<Tally>,
    marks: Marks,
    /// How far people reach, by zone.
    pub(crate) reaches: Reaches,
    /// Cells and groups made since everything lay in order.
    disorder: usize,
}

type Key = (i32, i32);

#[derive(Debug, Clone, Copy)]
struct Cell {
    key: Key,
    first_group: u32,
    around: [u32; 8],
}

/// The members of one island and one zone in one cell. It is in two lists, the cell's and the island's.
#[derive(Debug, Clone, Copy)]
struct Group {
    cell: u32,
    island: u32,
    zone: u32,
    first_spot: u32,
    next_in_cell: u32,
    previous_in_island: u32,
    next_in_island: u32,
}

/// Where a peer stands, and its place in the list of its group. Without a group it stands nowhere.
#[derive(Debug, Clone, Copy)]
struct Spot {
    at: Point,
    peer: u32,
    group: u32,
    previous: u32,
    next: u32,
    terms: Terms,
}

/// How many members an island has, the sums of their coordinates, and what they have in common.
#[derive(Debug, Clone, Copy)]
struct Tally {
    first_group: u32,
    size: u32,
    /// The zone of all members, as far as is known, or `MIXED`.
    zone: u32,
    /// How many members lack each capability.
    lacking: [u16; MOST_CAPABILITIES],
    sum_x: i64,
    sum_z: i64,
}

const EMPTY: Tally =
    Tally { first_group: NONE, size: 0, zone: MIXED, lacking: [0; MOST_CAPABILITIES], sum_x: 0, sum_z: 0 };

fn units(metres: f32) -> i64 {
    (f64::from(metres) * UNITS_PER_M).round() as i64
}

impl Ground {
    /// Ground that answers questions about distances up to `reach_m`.
    pub(crate) fn new(reach_m: f32) -> Self {
        Self { cell_side_m: f64::from(reach_m) * CELL_MARGIN, ..Self::default() }
    }

    /// Makes room for one more peer, which stands nowhere yet.
    pub(crate) fn admit_peer(&mut self, peer: u32, terms: Terms) {
        let nowhere = Spot { at: Point::default(), peer, group: NONE, previous: NONE, next: NONE, terms };
        let spot = self.spots.insert(nowhere);
        if peer as usize == self.places.len() {
            push_tight(&mut self.places, spot);
        } else {
            self.places[peer as usize] = spot;
        }
    }

    /// Gives up the room of a peer that stands nowhere.
    pub(crate) fn dismiss_peer(&mut self, peer: u32) {
        let spot = self.places[peer as usize];
        self.spots[spot].peer = NONE;
        self.spots.remove(spot);
    }

    /// Makes room for one more island, empty yet.
    pub(crate) fn admit_island(&mut self, island: u32) {
        if island as usize == self.tallies.len() {
            push_tight(&mut self.tallies, EMPTY);
        } else {
            self.tallies[island as usize] = EMPTY;
        }
    }

    /// Where the peer stands, or would.
    pub(crate) fn spot(&self, peer: u32) -> Point {
        self.spots[self.places[peer as usize]].at
    }

    /// The island that the peer stands in, or `NONE`.
    pub(crate) fn island_of(&self, peer: u32) -> u32 {
        match self.spots[self.places[peer as usize]].group {
            NONE => NONE,
            group => self.groups[group].island,
        }
    }

    /// The peer as a member of the island that it stands in, or would stand in.
    pub(crate) fn member(&self, peer: u32) -> Member {
        let Spot { at, terms, .. } = self.spots[self.places[peer as usize]];
        Member { peer, at, terms }
    }

    pub(crate) fn terms(&self, peer: u32) -> Terms {
        self.spots[self.places[peer as usize]].terms
    }

    /// Changes what holds for a peer, wherever it stands.
    pub(crate) fn set_terms(&mut self, peer: u32, terms: Terms) {
        let spot = self.places[peer as usize];
        let Spot { at, group, terms: before, .. } = self.spots[spot];
        self.spots[spot].terms = terms;
        if group == NONE || before == terms {
            return;
        }
        let Group { cell, island, .. } = self.groups[group];
        self.count_out(at, island, before);
        self.count_in(at, island, terms);
        if before.zone() != terms.zone() {
            // The new group first: the cell must not be given up in between.
            self.detach(spot);
            let kept = self.find_group(cell, island, terms.zone());
            self.attach(spot, cell, island, kept);
            self.close_if_empty(group);
        }
    }

    /// Measures anew: questions are about distances up to `reach_m` from now on.
    pub(crate) fn set_reach(&mut self, reach_m: f32) {
        let side_m = f64::from(reach_m) * CELL_MARGIN;
        if side_m == self.cell_side_m {
            return;
        }
        let placed: Vec<(u32, u32)> = (0..self.spots.places())
            .filter(|&spot| self.spots[spot].peer != NONE && self.spots[spot].group != NONE)
            .map(|spot| (spot, self.groups[self.spots[spot].group].island))
            .collect();
        self.cell_side_m = side_m;
        (self.index, self.cells, self.groups) = Default::default();
        self.tallies.iter_mut().for_each(|tally| tally.first_group = NONE);
        for (spot, island) in placed {
            let cell = self.open_cell(self.key(self.spots[spot].at));
            self.link(spot, cell, island);
        }
    }

    /// The zone of all members of an island; `None` if they may be of several.
    pub(crate) fn only_zone(&self, island: u32) -> Option<u32> {
        Some(self.tallies[island as usize].zone).filter(|&zone| zone != MIXED)
    }

    /// The transports that every member of an island can join, leaving out one of them.
    pub(crate) fn capabilities(&self, island: u32, but: Option<Terms>) -> Capabilities {
        let Tally { lacking, .. } = &self.tallies[island as usize];
        let own = |place: usize| but.is_some_and(|terms| terms.capabilities().0 >> place & 1 == 0);
        let bits = lacking.iter().enumerate().filter(|&(place, &count)| count == u16::from(own(place)));
        Capabilities(bits.fold(0, |bits, (place, _)| bits | 1 << place))
    }

    /// The zone that most members of an island are counted to, of several alike the one whose `areas`
    /// come first: numbers of zones depend on who came first.
    pub(crate) fn main_zone<'a>(&self, island: u32, areas: impl Fn(u32) -> &'a [u32]) -> u32 {
        if let Some(zone) = self.only_zone(island) {
            return zone;
        }
        let mut counts: Vec<(u32, usize)> = Vec::new();
        for group in self.groups_of(island) {
            let (zone, size) = (self.groups[group].zone, self.spots_of(group).count());
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
    pub(crate) fn zones(&self, island: u32, but: Option<u32>) -> impl Iterator<Item = u32> {
        let alone = but.map(|peer| self.places[peer as usize]);
        let groups = self
            .groups_of(island)
            .filter(move |&group| alone.is_none_or(|spot| self.spots_of(group).any(|other| other != spot)));
        groups.map(|group| self.groups[group].zone)
    }

    pub(crate) fn size(&self, island: u32) -> u32 {
        self.tallies[island as usize].size
    }

    /// The mean of the members' places, in metres. Of an empty island, the origin.
    pub(crate) fn centre(&self, island: u32) -> (f64, f64) {
        let tally = &self.tallies[island as usize];
        let scale = 1.0 / (f64::from(tally.size.max(1)) * UNITS_PER_M);
        (tally.sum_x as f64 * scale, tally.sum_z as f64 * scale)
    }

    /// A number for the place of an island's centre: those of islands near each other are, mostly.
    pub(crate) fn district(&self, island: u32) -> u64 {
        let (x, z) = self.centre(island);
        tidy::interleave(self.key(Point { x: x as f32, z: z as f32 }))
    }

    /// Moves a peer to another place. It stays in its island.
    pub(crate) fn shift(&mut self, peer: u32, to: Point) {
        let spot = self.places[peer as usize];
        let Spot { at, group, .. } = self.spots[spot];
        self.spots[spot].at = to;
        if group == NONE {
            return;
        }
        let island = self.groups[group].island;
        let tally = &mut self.tallies[island as usize];
        tally.sum_x += units(to.x) - units(at.x);
        tally.sum_z += units(to.z) - units(at.z);
        let key = self.key(to);
        if self.cells[self.groups[group].cell].key != key {
            self.unlink(spot);
            let cell = self.open_cell(key);
            self.link(spot, cell, island);
        }
    }

    /// Puts a peer that stands nowhere into an island, at its place.
    pub(crate) fn put(&mut self, peer: u32, island: u32) {
        let spot = self.places[peer as usize];
        let Spot { at, terms, .. } = self.spots[spot];
        let cell = self.open_cell(self.key(at));
        self.link(spot, cell, island);
        self.count_in(at, island, terms);
    }

    /// Takes a peer out of its island. It keeps its place.
    pub(crate) fn take(&mut self, peer: u32) {
        let spot = self.places[peer as usize];
        let Spot { at, group, terms, .. } = self.spots[spot];
        let island = self.groups[group].island;
        self.unlink(spot);
        self.count_out(at, island, terms);
    }

    /// Hands a peer from its island to another.
    pub(crate) fn hand(&mut self, peer: u32, island: u32) {
        let spot = self.places[peer as usize];
        let Spot { at, group, terms, .. } = self.spots[spot];
        let Group { cell, island: before, .. } = self.groups[group];
        // The new group first: the cell must not be given up in between.
        self.detach(spot);
        let kept = self.find_group(cell, island, terms.zone());
        self.attach(spot, cell, island, kept);
        self.close_if_empty(group);
        self.count_out(at, before, terms);
        self.count_in(at, island, terms);
    }

    /// Hands all members of one island to another.
    pub(crate) fn absorb(&mut self, from: u32, into: u32) {
        let mut group = self.tallies[from as usize].first_group;
        while group != NONE {
            let Group { cell, zone, next_in_island, .. } = self.groups[group];
            match self.find_group(cell, into, zone) {
                NONE => {
                    self.unlink_from_island(group);
                    self.link_to_island(group, into);
                }
                other => self.pour(group, other),
            }
            group = next_in_island;
        }
        let Tally { size, zone, lacking, sum_x, sum_z, .. } =
            std::mem::replace(&mut self.tallies[from as usize], EMPTY);
        let tally = &mut self.tallies[into as usize];
        if tally.zone != zone {
            tally.zone = MIXED;
        }
        tally.lacking.iter_mut().zip(lacking).for_each(|(count, more)| *count += more);
        tally.size += size;
        tally.sum_x += sum_x;
        tally.sum_z += sum_z;
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.cells.bytes()
            + self.groups.bytes()
            + self.spots.bytes()
            + self.places.capacity() * size_of::<u32>()
            + self.tallies.capacity() * size_of::<Tally>()
            + self.marks.seen_in.capacity() * size_of::<u32>()
    }

    fn count_in(&mut self, at: Point, island: u32, terms: Terms) {
        let tally = &mut self.tallies[island as usize];
        if tally.size == 0 {
            tally.zone = terms.zone();
        } else if tally.zone != terms.zone() {
            tally.zone = MIXED;
        }
        terms.capabilities().lacking().for_each(|place| tally.lacking[place] += 1);
        tally.size += 1;
        tally.sum_x += units(at.x);
        tally.sum_z += units(at.z);
    }

    fn count_out(&mut self, at: Point, island: u32, terms: Terms) {
        let tally = &mut self.tallies[island as usize];
        terms.capabilities().lacking().for_each(|place| tally.lacking[place] -= 1);
        tally.size -= 1;
        tally.sum_x -= units(at.x);
        tally.sum_z -= units(at.z);
    }
}

fn chain(first: u32, next: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
    let some = |place: u32| (place != NONE).then_some(place);
    std::iter::successors(some(first), move |&place| some(next(place)))
}
