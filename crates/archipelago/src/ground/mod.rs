//! Who stands where.
//!
//! The ground is cut into square cells as wide as the largest distance that is ever asked for, so
//! that whoever is within it stands in the same cell or in one of the eight around. In each cell the
//! members of one island form a *group*. Questions between islands are answered group by group:
//! people of one island are never compared with each other, and where everybody stands on one spot
//! there is one group for each island, however many people.

mod tidy;

use std::hash::{Hash, Hasher};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::slab::{NONE, Slab, push_tight};

/// Cells are a little wider than the distance, so that rounding never hides a neighbour.
const CELL_MARGIN: f64 = 1.001;
/// Sums of coordinates are kept in this part of a metre, as integers: they are exact, so that the
/// centre of an island does not depend on the order in which its members came.
const UNITS_PER_M: f64 = 1_024.0;
/// The eight cells around one; the opposite of the n-th is the (7 − n)-th.
const AROUND: [(i32, i32); 8] = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];

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
}

#[derive(Debug, Default)]
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

/// The members of one island in one cell. It is in two lists, the cell's and the island's.
#[derive(Debug, Clone, Copy)]
struct Group {
    cell: u32,
    island: u32,
    first_spot: u32,
    previous_in_cell: u32,
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
}

/// How many members an island has, and the sums of their coordinates.
#[derive(Debug, Clone, Copy)]
struct Tally {
    first_group: u32,
    size: u32,
    sum_x: i64,
    sum_z: i64,
}

const EMPTY: Tally = Tally { first_group: NONE, size: 0, sum_x: 0, sum_z: 0 };

/// Remembers which islands were seen in the present search, without being cleared for the next.
#[derive(Debug, Default)]
struct Marks {
    seen_in: Vec<u32>,
    search: u32,
}

impl Marks {
    fn begin(&mut self, islands: usize) {
        if self.search == u32::MAX {
            self.seen_in.clear();
            self.search = 0;
        }
        self.search += 1;
        if self.seen_in.len() < islands {
            self.seen_in.resize(islands, 0);
        }
    }

    fn is_marked(&self, island: u32) -> bool {
        self.seen_in[island as usize] == self.search
    }

    fn mark(&mut self, island: u32) {
        self.seen_in[island as usize] = self.search;
    }
}

fn units(metres: f32) -> i64 {
    (f64::from(metres) * UNITS_PER_M).round() as i64
}

fn hash(key: Key) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Ground {
    /// Ground that answers questions about distances up to `reach_m`.
    pub(crate) fn new(reach_m: f32) -> Self {
        Self { cell_side_m: f64::from(reach_m) * CELL_MARGIN, ..Self::default() }
    }

    /// Makes room for one more peer, which stands nowhere yet.
    pub(crate) fn admit_peer(&mut self, peer: u32) {
        let nowhere = Spot { at: Point::default(), peer, group: NONE, previous: NONE, next: NONE };
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
        let at = self.spots[spot].at;
        let cell = self.open_cell(self.key(at));
        self.link(spot, cell, island);
        self.count_in(at, island);
    }

    /// Takes a peer out of its island. It keeps its place.
    pub(crate) fn take(&mut self, peer: u32) {
        let spot = self.places[peer as usize];
        let Spot { at, group, .. } = self.spots[spot];
        let island = self.groups[group].island;
        self.unlink(spot);
        self.count_out(at, island);
    }

    /// Hands a peer from its island to another.
    pub(crate) fn hand(&mut self, peer: u32, island: u32) {
        let spot = self.places[peer as usize];
        let Spot { at, group, .. } = self.spots[spot];
        let Group { cell, island: before, .. } = self.groups[group];
        // The new group first: the cell must not be given up in between.
        self.detach(spot);
        let kept = self.find_group(cell, island);
        self.attach(spot, cell, island, kept);
        self.close_if_empty(group);
        self.count_out(at, before);
        self.count_in(at, island);
    }

    /// Hands all members of one island to another.
    pub(crate) fn absorb(&mut self, from: u32, into: u32) {
        let mut group = self.tallies[from as usize].first_group;
        while group != NONE {
            let Group { cell, next_in_island, .. } = self.groups[group];
            match self.find_group(cell, into) {
                NONE => {
                    self.unlink_from_island(group);
                    self.link_to_island(group, into);
                }
                other => self.pour(group, other),
            }
            group = next_in_island;
        }
        let Tally { size, sum_x, sum_z, .. } = std::mem::replace(&mut self.tallies[from as usize], EMPTY);
        let tally = &mut self.tallies[into as usize];
        tally.size += size;
        tally.sum_x += sum_x;
        tally.sum_z += sum_z;
    }

    /// The members of an island, in no order that means anything (but the same for the same inputs).
    pub(crate) fn members(&self, island: u32) -> impl Iterator<Item = Member> {
        self.groups_of(island).flat_map(|group| self.peers_of(group))
    }

    /// Adds the members of an island to a list, in the order of [`members`](Self::members).
    pub(crate) fn gather(&self, island: u32, members: &mut Vec<Member>) {
        members.reserve(self.size(island) as usize);
        let mut group = self.tallies[island as usize].first_group;
        while group != NONE {
            let Group { first_spot, next_in_island, .. } = self.groups[group];
            let mut spot = first_spot;
            while spot != NONE {
                let Spot { at, peer, next, .. } = self.spots[spot];
                members.push(Member { peer, at });
                spot = next;
            }
            group = next_in_island;
        }
    }

    /// Adds the members of an island that stand in the cell of a point or in one of those around.
    pub(crate) fn gather_around(&self, island: u32, point: Point, members: &mut Vec<Member>) {
        for cell in self.cells_around(point) {
            let group = self.find_group(cell, island);
            if group != NONE {
                members.extend(self.peers_of(group));
            }
        }
    }

    /// Adds to `found` each island of at most `max_size` members, but this one, that has a member
    /// within the distance of a member of this one.
    pub(crate) fn touching(&mut self, island: u32, distance_m: f32, max_size: u32, found: &mut Vec<u32>) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.begin(self.tallies.len());
        marks.mark(island);
        for group in self.groups_of(island) {
            for other in self.groups_near(self.groups[group].cell) {
                let candidate = self.groups[other].island;
                if !marks.is_marked(candidate)
                    && self.size(candidate) <= max_size
                    && self.groups_touch(group, other, distance_m * distance_m)
                {
                    marks.mark(candidate);
                    found.push(candidate);
                }
            }
        }
        self.marks = marks;
    }

    /// Adds to `found` each island of at most `max_size` members that has one within the distance of
    /// a point.
    pub(crate) fn touching_point(
        &mut self,
        point: Point,
        distance_m: f32,
        max_size: u32,
        found: &mut Vec<u32>,
    ) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.begin(self.tallies.len());
        for cell in self.cells_around(point) {
            for group in self.groups_in(cell) {
                let candidate = self.groups[group].island;
                if !marks.is_marked(candidate)
                    && self.size(candidate) <= max_size
                    && self.group_touches(group, point, distance_m * distance_m)
                {
                    marks.mark(candidate);
                    found.push(candidate);
                }
            }
        }
        self.marks = marks;
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

    /// Whether an island has a member within the distance of a point.
    pub(crate) fn touches(&self, island: u32, point: Point, distance_m: f32) -> bool {
        let key = self.key(point);
        let around = AROUND.iter().map(|&by| offset(key, by));
        std::iter::once(key).chain(around).any(|key| {
            let group = self.find_group(self.find_cell(key), island);
            group != NONE && self.group_touches(group, point, distance_m * distance_m)
        })
    }

    fn groups_touch(&self, group: u32, other: u32, squared: f32) -> bool {
        self.peers_of(group).any(|member| self.group_touches(other, member.at, squared))
    }

    fn group_touches(&self, group: u32, point: Point, squared: f32) -> bool {
        self.peers_of(group).any(|member| member.at.distance_squared(point) <= squared)
    }

    fn groups_of(&self, island: u32) -> impl Iterator<Item = u32> {
        chain(self.tallies[island as usize].first_group, |group| self.groups[group].next_in_island)
    }

    fn groups_in(&self, cell: u32) -> impl Iterator<Item = u32> {
        let first = if cell == NONE { NONE } else { self.cells[cell].first_group };
        chain(first, |group| self.groups[group].next_in_cell)
    }

    fn groups_near(&self, cell: u32) -> impl Iterator<Item = u32> {
        self.cells_near(cell).flat_map(|cell| self.groups_in(cell))
    }

    /// The cell that a point lies in and those around it, with `NONE` for those that are not there.
    fn cells_around(&self, point: Point) -> [u32; 9] {
        let key = self.key(point);
        let cell = self.find_cell(key);
        let around = match cell {
            NONE => AROUND.map(|by| self.find_cell(offset(key, by))),
            cell => self.cells[cell].around,
        };
        let mut cells = [cell; 9];
        cells[1..].copy_from_slice(&around);
        cells
    }

    fn cells_near(&self, cell: u32) -> impl Iterator<Item = u32> {
        std::iter::once(cell).chain(self.cells[cell].around)
    }

    fn peers_of(&self, group: u32) -> impl Iterator<Item = Member> {
        self.spots_of(group).map(|spot| Member { peer: self.spots[spot].peer, at: self.spots[spot].at })
    }

    fn spots_of(&self, group: u32) -> impl Iterator<Item = u32> {
        chain(self.groups[group].first_spot, |spot| self.spots[spot].next)
    }

    fn key(&self, at: Point) -> Key {
        let cell = |metres: f32| (f64::from(metres) / self.cell_side_m).floor() as i32;
        (cell(at.x), cell(at.z))
    }

    fn find_cell(&self, key: Key) -> u32 {
        self.index.find(hash(key), |&cell| self.cells[cell].key == key).copied().unwrap_or(NONE)
    }

    fn open_cell(&mut self, key: Key) -> u32 {
        match self.find_cell(key) {
            NONE => self.add_cell(key),
            cell => cell,
        }
    }

    fn add_cell(&mut self, key: Key) -> u32 {
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

    fn remove_cell(&mut self, cell: u32) {
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

    fn find_group(&self, cell: u32, island: u32) -> u32 {
        self.groups_in(cell).find(|&group| self.groups[group].island == island).unwrap_or(NONE)
    }

    fn link(&mut self, spot: u32, cell: u32, island: u32) {
        let group = self.find_group(cell, island);
        self.attach(spot, cell, island, group);
    }

    /// Adds a spot to a group, or to a new one if there is none.
    fn attach(&mut self, spot: u32, cell: u32, island: u32, group: u32) {
        let group = if group == NONE { self.add_group(cell, island) } else { group };
        let next = std::mem::replace(&mut self.groups[group].first_spot, spot);
        if next != NONE {
            self.spots[next].previous = spot;
        }
        let spot = &mut self.spots[spot];
        (spot.group, spot.previous, spot.next) = (group, NONE, next);
    }

    fn detach(&mut self, spot: u32) {
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

    fn unlink(&mut self, spot: u32) {
        let group = self.spots[spot].group;
        self.detach(spot);
        self.close_if_empty(group);
    }

    fn add_group(&mut self, cell: u32, island: u32) -> u32 {
        self.disorder += 1;
        let next_in_cell = self.cells[cell].first_group;
        let group = self.groups.insert(Group {
            cell,
            island,
            first_spot: NONE,
            previous_in_cell: NONE,
            next_in_cell,
            previous_in_island: NONE,
            next_in_island: NONE,
        });
        if next_in_cell != NONE {
            self.groups[next_in_cell].previous_in_cell = group;
        }
        self.cells[cell].first_group = group;
        self.link_to_island(group, island);
        group
    }

    fn link_to_island(&mut self, group: u32, island: u32) {
        let next = std::mem::replace(&mut self.tallies[island as usize].first_group, group);
        if next != NONE {
            self.groups[next].previous_in_island = group;
        }
        let group = &mut self.groups[group];
        (group.island, group.previous_in_island, group.next_in_island) = (island, NONE, next);
    }

    fn unlink_from_island(&mut self, group: u32) {
        let Group { island, previous_in_island: previous, next_in_island: next, .. } = self.groups[group];
        match previous {
            NONE => self.tallies[island as usize].first_group = next,
            previous => self.groups[previous].next_in_island = next,
        }
        if next != NONE {
            self.groups[next].previous_in_island = previous;
        }
    }

    fn close_if_empty(&mut self, group: u32) {
        if self.groups[group].first_spot != NONE {
            return;
        }
        self.unlink_from_island(group);
        let Group { cell, previous_in_cell: previous, next_in_cell: next, .. } = self.groups[group];
        match previous {
            NONE => self.cells[cell].first_group = next,
            previous => self.groups[previous].next_in_cell = next,
        }
        if next != NONE {
            self.groups[next].previous_in_cell = previous;
        }
        self.groups.remove(group);
        if self.cells[cell].first_group == NONE {
            self.remove_cell(cell);
        }
    }

    /// Moves all spots of a group into another of the same cell.
    fn pour(&mut self, from: u32, into: u32) {
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

    fn count_in(&mut self, at: Point, island: u32) {
        let tally = &mut self.tallies[island as usize];
        tally.size += 1;
        tally.sum_x += units(at.x);
        tally.sum_z += units(at.z);
    }

    fn count_out(&mut self, at: Point, island: u32) {
        let tally = &mut self.tallies[island as usize];
        tally.size -= 1;
        tally.sum_x -= units(at.x);
        tally.sum_z -= units(at.z);
    }
}

fn offset((x, z): Key, (by_x, by_z): (i32, i32)) -> Key {
    (x + by_x, z + by_z)
}

fn chain(first: u32, next: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
    let some = |place: u32| (place != NONE).then_some(place);
    std::iter::successors(some(first), move |&place| some(next(place)))
}
