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
mod sheet;

use std::collections::VecDeque;

use crate::{engine::Engine, ground::Point, slab::NONE};

use sheet::Sheets;

/// With how many of the pieces near it a piece exchanges members: the nearest. More are near only
/// where very many people stand in one spot.
const NEIGHBOURS: usize = 12;
/// Steps in a flush for each piece looked at, on average, before the rest is left to the next.
const STEPS_PER_PIECE: usize = 400;

/// Memory that one flush leaves to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    sheets: Sheets,
    queue: VecDeque<u32>,
    neighbours: Vec<u32>,
    exchange: exchange::Scratch,
}

impl Scratch {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.sheets.bytes() + self.queue.capacity() * size_of::<u32>()
    }
}

/// Improves the pieces of crowds, beginning at the active islands and those whose members changed.
pub(super) fn run(engine: &mut Engine, active: &[u32]) {
    let mut changed = engine.pending.changed.clone();
    super::sort_by_place(engine, &mut changed);
    let scratch = std::mem::take(&mut engine.scratch.refine);
    let mut work = Work { engine, scratch };
    active.iter().chain(&changed).for_each(|&island| work.enqueue(island));
    // Those that were surveyed before others changed do not know them yet.
    changed.iter().for_each(|&island| work.introduce(island));
    let mut steps = work.scratch.queue.len() * STEPS_PER_PIECE;
    while let Some(piece) = work.scratch.queue.pop_front() {
        let taken = work.improve(piece);
        if taken > steps {
            break;
        }
        steps -= taken;
    }
    let Work { engine, mut scratch } = work;
    scratch.queue.clear();
    scratch.sheets.clear();
    engine.scratch.refine = scratch;
}

/// Whether somebody at a place, in the one of two islands, would be handed to the other if nothing
/// but places counted.
pub(super) fn is_past_the_middle(engine: &Engine, at: Point, one: u32, other: u32) -> bool {
    let centres = (engine.ground.centre(one), engine.ground.centre(other));
    exchange::Line::between(centres.0, centres.1).is_some_and(|line| line.is_past(at))
}

/// A refinement under way.
struct Work<'a> {
    engine: &'a mut Engine,
    scratch: Scratch,
}

impl Work<'_> {
    /// Puts an island in line, if there are others near it.
    fn enqueue(&mut self, island: u32) {
        if !self.engine.islands.is_inhabited(island) || self.scratch.sheets.has(island) {
            return;
        }
        if let Some(index) = self.scratch.sheets.open_unless_alone(self.engine, island) {
            let sheet = &mut self.scratch.sheets[index];
            (sheet.active, sheet.queued) = (true, true);
            self.scratch.queue.push_back(island);
        }
    }

    /// Has those near an island know it.
    fn introduce(&mut self, island: u32) {
        let index = self.scratch.sheets.find(island);
        if index == NONE {
            return;
        }
        let contacts = std::mem::take(&mut self.scratch.sheets[index].contacts);
        contacts.iter().for_each(|&contact| self.scratch.sheets.note(contact, island));
        self.scratch.sheets[index].contacts = contacts;
    }

    /// Takes all steps between a piece and those near it. Returns how many they were.
    fn improve(&mut self, piece: u32) -> usize {
        let sheet = self.scratch.sheets.open(self.engine, piece);
        self.scratch.sheets[sheet].queued = false;
        let mut neighbours = std::mem::take(&mut self.scratch.neighbours);
        self.nearest(piece, sheet, &mut neighbours);
        let mut taken = 0;
        for &neighbour in &neighbours {
            let steps = self.exchange(piece, neighbour);
            if steps > 0 {
                self.look_again_around(piece);
                self.look_again_around(neighbour);
            }
            taken += steps;
        }
        self.scratch.neighbours = neighbours;
        taken
    }

    /// The pieces to exchange members with, the nearest first.
    fn nearest(&mut self, piece: u32, sheet: u32, neighbours: &mut Vec<u32>) {
        let centre = self.engine.ground.centre(piece);
        let rank = |&island: &u32| {
            let (x, z) = self.engine.ground.centre(island);
            let squared = (x - centre.0).powi(2) + (z - centre.1).powi(2);
            (squared, self.engine.islands[island].age)
        };
        neighbours.clear();
        neighbours.extend(&self.scratch.sheets[sheet].contacts);
        neighbours.sort_by(|a, b| {
            let ((a, a_age), (b, b_age)) = (rank(a), rank(b));
            a.total_cmp(&b).then(a_age.cmp(&b_age))
        });
        if neighbours.len() > NEIGHBOURS {
            neighbours.retain(|&neighbour| self.is_near(piece, neighbour, NONE));
            neighbours.truncate(NEIGHBOURS);
        }
    }

    /// Whether two pieces, without one of the members of the first, are within the join distance.
    fn is_near(&mut self, one: u32, other: u32, but: u32) -> bool {
        let sheets = &mut self.scratch.sheets;
        let (one, other) = (
            sheets.open_without_contacts(self.engine, one),
            sheets.open_without_contacts(self.engine, other),
        );
        sheets[one].is_near(&sheets[other], &self.engine.ground.reaches, but)
    }

    /// Looks again at a piece that has changed, and at those near it that had to leave something
    /// undone lest two pieces fit together, of which it was one.
    fn look_again_around(&mut self, piece: u32) {
        let index = self.scratch.sheets.open(self.engine, piece);
        self.requeue(piece);
        let contacts = std::mem::take(&mut self.scratch.sheets[index].contacts);
        // Two more than the limit: each of both may have been one less a moment ago.
        let room = self.engine.room_beside(piece).saturating_add(2);
        for &contact in &contacts {
            let sheet = self.scratch.sheets.find(contact);
            if sheet != NONE && self.is_beside_one_of_at_most(sheet, contact, room) {
                self.requeue(contact);
            }
        }
        self.scratch.sheets[index].contacts = contacts;
    }

    fn is_beside_one_of_at_most(&self, sheet: u32, island: u32, size: u32) -> bool {
        let fits = |&island: &u32| self.engine.ground.size(island) <= size;
        fits(&island) || self.scratch.sheets[sheet].contacts.iter().any(fits)
    }

    /// Looks at a piece again, if it is one of those that this flush is about.
    fn requeue(&mut self, piece: u32) {
        let index = self.scratch.sheets.find(piece);
        if index == NONE {
            return;
        }
        let sheet = &mut self.scratch.sheets[index];
        if sheet.active && !std::mem::replace(&mut sheet.queued, true) {
            self.scratch.queue.push_back(piece);
        }
    }
}
