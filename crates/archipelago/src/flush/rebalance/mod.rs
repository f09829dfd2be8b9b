//! Crowds are cut by place.
//!
//! People who are connected and more than fit an island are held as several, the pieces. Placing
//! everybody where there is room leaves pieces that lie across each other; here single members are
//! handed to, or exchanged with, a piece near by whose centre is nearer to them, until no such step
//! is left.
//!
//! Each step lowers the sum, over all members, of the square of the distance to the centre of their
//! piece, and there are only so many ways to divide people: it ends. Pieces become compact, with
//! straight borders between them. A step is taken only if it leads clearly past the middle between
//! two centres (see [`exchange`]), so that who stands at a border is not sent to and fro; and as
//! nothing but places decides, whoever stands still is left where they are.
//!
//! No step leaves a piece that falls apart, nor two near each other that would fit together. At
//! least one of the two pieces of a step holds somebody who moved, came or left.

mod exchange;
mod piece_cache;

use std::collections::VecDeque;

use crate::{engine::Engine, slab::NONE, spatial::Point};

use piece_cache::PieceCache;

/// With how many of the pieces near it a piece exchanges members: the nearest. More are near only
/// where very many people stand in one spot.
const MAX_NEIGHBOURS: usize = 12;
/// Steps in a flush for each piece looked at, on average, before the rest is left to the next.
const MAX_STEPS_PER_PIECE: usize = 400;

/// Memory that one flush leaves to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    pieces: PieceCache,
    queue: VecDeque<u32>,
    neighbours: Vec<u32>,
    exchange: exchange::Scratch,
}

impl Scratch {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.bytes() + self.queue.capacity() * size_of::<u32>()
    }
}

/// Improves the pieces of crowds, beginning at the active islands and those whose members changed.
pub(super) fn run(engine: &mut Engine, active: &[u32]) {
    let mut changed = engine.pending.changed.clone();
    super::sort_by_locality(engine, &mut changed);
    let scratch = std::mem::take(&mut engine.scratch.rebalance);
    let mut work = Rebalance { engine, scratch };
    active.iter().chain(&changed).for_each(|&island| work.enqueue(island));
    // Those that were surveyed before others changed do not know them yet.
    changed.iter().for_each(|&island| work.register_with_neighbours(island));
    let mut steps = work.scratch.queue.len() * MAX_STEPS_PER_PIECE;
    while let Some(piece) = work.scratch.queue.pop_front() {
        let taken = work.improve(piece);
        if taken > steps {
            break;
        }
        steps -= taken;
    }
    let Rebalance { engine, mut scratch } = work;
    scratch.queue.clear();
    scratch.pieces.clear();
    engine.scratch.rebalance = scratch;
}

/// Whether somebody at a place, in the one of two islands, would be handed to the other if nothing
/// but places counted.
pub(super) fn is_past_midpoint(engine: &Engine, at: Point, one: u32, other: u32) -> bool {
    let centres = (engine.spatial.centre(one), engine.spatial.centre(other));
    exchange::CentreLine::between(centres.0, centres.1).is_some_and(|line| line.is_past_midpoint(at))
}

/// A refinement under way.
struct Rebalance<'a> {
    engine: &'a mut Engine,
    scratch: Scratch,
}

impl Rebalance<'_> {
    /// Puts an island in line, if there are others near it.
    fn enqueue(&mut self, island: u32) {
        if !self.engine.islands.is_populated(island) || self.scratch.pieces.contains(island) {
            return;
        }
        if let Some(index) = self.scratch.pieces.load_unless_isolated(self.engine, island) {
            let sheet = &mut self.scratch.pieces[index];
            (sheet.active, sheet.queued) = (true, true);
            self.scratch.queue.push_back(island);
        }
    }

    /// Has those near an island know it.
    fn register_with_neighbours(&mut self, island: u32) {
        let index = self.scratch.pieces.find(island);
        if index == NONE {
            return;
        }
        let contacts = std::mem::take(&mut self.scratch.pieces[index].neighbours);
        contacts.iter().for_each(|&contact| self.scratch.pieces.add_neighbour(contact, island));
        self.scratch.pieces[index].neighbours = contacts;
    }

    /// Takes all steps between a piece and those near it. Returns how many they were.
    fn improve(&mut self, piece: u32) -> usize {
        let sheet = self.scratch.pieces.get_or_load(self.engine, piece);
        self.scratch.pieces[sheet].queued = false;
        let mut neighbours = std::mem::take(&mut self.scratch.neighbours);
        self.nearest_neighbours(piece, sheet, &mut neighbours);
        let mut taken = 0;
        for &neighbour in &neighbours {
            let steps = self.exchange(piece, neighbour);
            if steps > 0 {
                self.requeue_around(piece);
                self.requeue_around(neighbour);
            }
            taken += steps;
        }
        self.scratch.neighbours = neighbours;
        taken
    }

    /// The pieces to exchange members with, the nearest first.
    fn nearest_neighbours(&mut self, piece: u32, sheet: u32, neighbours: &mut Vec<u32>) {
        let centre = self.engine.spatial.centre(piece);
        let rank = |&island: &u32| {
            let (x, z) = self.engine.spatial.centre(island);
            let squared = (x - centre.0).powi(2) + (z - centre.1).powi(2);
            (squared, self.engine.islands[island].age)
        };
        neighbours.clear();
        neighbours.extend(&self.scratch.pieces[sheet].neighbours);
        neighbours.sort_by(|a, b| {
            let ((a, a_age), (b, b_age)) = (rank(a), rank(b));
            a.total_cmp(&b).then(a_age.cmp(&b_age))
        });
        if neighbours.len() > MAX_NEIGHBOURS {
            neighbours.retain(|&neighbour| self.is_near(piece, neighbour, NONE));
            neighbours.truncate(MAX_NEIGHBOURS);
        }
    }

    /// Whether two pieces, without one of the members of the first, are within the join distance.
    fn is_near(&mut self, one: u32, other: u32, excluding: u32) -> bool {
        let sheets = &mut self.scratch.pieces;
        let (one, other) =
            (sheets.get_or_load_members(self.engine, one), sheets.get_or_load_members(self.engine, other));
        sheets[one].is_near(&sheets[other], &self.engine.spatial.distances, excluding)
    }

    /// Looks again at a piece that has changed, and at those near it that had to leave something
    /// undone lest two pieces fit together, of which it was one.
    fn requeue_around(&mut self, piece: u32) {
        let index = self.scratch.pieces.get_or_load(self.engine, piece);
        self.requeue(piece);
        let contacts = std::mem::take(&mut self.scratch.pieces[index].neighbours);
        // Two more than the limit: each of both may have been one less a moment ago.
        let room = self.engine.max_merge_size(piece).saturating_add(2);
        for &contact in &contacts {
            let sheet = self.scratch.pieces.find(contact);
            if sheet != NONE && self.has_neighbour_up_to(sheet, contact, room) {
                self.requeue(contact);
            }
        }
        self.scratch.pieces[index].neighbours = contacts;
    }

    fn has_neighbour_up_to(&self, sheet: u32, island: u32, size: u32) -> bool {
        let fits = |&island: &u32| self.engine.spatial.size(island) <= size;
        fits(&island) || self.scratch.pieces[sheet].neighbours.iter().any(fits)
    }

    /// Looks at a piece again, if it is one of those that this flush is about.
    fn requeue(&mut self, piece: u32) {
        let index = self.scratch.pieces.find(piece);
        if index == NONE {
            return;
        }
        let sheet = &mut self.scratch.pieces[index];
        if sheet.active && !std::mem::replace(&mut sheet.queued, true) {
            self.scratch.queue.push_back(piece);
        }
    }
}
