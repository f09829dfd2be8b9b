//! Exchanges members between the islands of a crowd so that neighbours share an island (local search,
//! as in k-means clustering with a size limit).
//!
//! A crowd is a connected group above the size limit; it is held as several islands, its pieces. Adding
//! each peer where there is room would leave pieces that overlap. This phase transfers single members
//! to a nearby piece whose centre is nearer to them, or swaps two members, until no such step is left.
//!
//! Each step lowers the sum, over all members, of the squared distance to the centre of their piece,
//! and there is a finite number of partitions, so the search terminates. Pieces become compact, with
//! straight borders between them. A step is taken only if it leads past the midpoint between two
//! centres by a margin (see [`exchange`]), so that a peer at a border does not alternate between
//! pieces. Because only positions decide, a peer that does not move is not moved by later flushes.
//!
//! No step disconnects a piece, or leaves two pieces near each other that could merge. In at least one
//! of the two pieces of a step a member moved, joined or left.

mod exchange;
mod piece_cache;

use std::collections::VecDeque;

use crate::{engine::Engine, slab::NONE, spatial::Point};

use piece_cache::PieceCache;

/// A piece exchanges members with at most this many neighbours: the nearest. It has more only where
/// very many peers are at one position.
const MAX_NEIGHBOURS: usize = 12;
/// The budget of steps for each queued piece, on average, in one flush. When it is used up, the rest is
/// left to later flushes.
const MAX_STEPS_PER_PIECE: usize = 400;

/// Buffers that a flush reuses.
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

/// Improves the pieces of crowds, starting with the active islands and the islands with other members
/// than after the last flush.
pub(super) fn run(engine: &mut Engine, active: &[u32]) {
    let mut changed = engine.pending.changed.clone();
    super::sort_by_locality(engine, &mut changed);
    let scratch = std::mem::take(&mut engine.scratch.rebalance);
    let mut rebalance = Rebalance { engine, scratch };
    active.iter().chain(&changed).for_each(|&island| rebalance.enqueue(island));
    // Neighbour lists that were recorded before these islands changed do not contain them yet.
    changed.iter().for_each(|&island| rebalance.register_with_neighbours(island));
    let mut steps = rebalance.scratch.queue.len() * MAX_STEPS_PER_PIECE;
    while let Some(piece) = rebalance.scratch.queue.pop_front() {
        let taken = rebalance.improve(piece);
        if taken > steps {
            break;
        }
        steps -= taken;
    }
    let Rebalance { engine, mut scratch } = rebalance;
    scratch.queue.clear();
    scratch.pieces.clear();
    engine.scratch.rebalance = scratch;
}

/// Whether a member of the first of two islands, at this position, would be transferred to the second
/// if only positions counted.
pub(super) fn is_past_midpoint(engine: &Engine, at: Point, one: u32, other: u32) -> bool {
    let centres = (engine.spatial.centre(one), engine.spatial.centre(other));
    exchange::CentreLine::between(centres.0, centres.1).is_some_and(|line| line.is_past_midpoint(at))
}

/// The state of one rebalance phase.
struct Rebalance<'a> {
    engine: &'a mut Engine,
    scratch: Scratch,
}

impl Rebalance<'_> {
    /// Queues an island if it has neighbours.
    fn enqueue(&mut self, island: u32) {
        if !self.engine.islands.is_populated(island) || self.scratch.pieces.contains(island) {
            return;
        }
        if let Some(index) = self.scratch.pieces.load_unless_isolated(self.engine, island) {
            let cached = &mut self.scratch.pieces[index];
            (cached.active, cached.queued) = (true, true);
            self.scratch.queue.push_back(island);
        }
    }

    /// Adds an island to the neighbour lists of its neighbours.
    fn register_with_neighbours(&mut self, island: u32) {
        let index = self.scratch.pieces.find(island);
        if index == NONE {
            return;
        }
        let neighbours = std::mem::take(&mut self.scratch.pieces[index].neighbours);
        neighbours.iter().for_each(|&neighbour| self.scratch.pieces.add_neighbour(neighbour, island));
        self.scratch.pieces[index].neighbours = neighbours;
    }

    /// Takes all steps between an island and its nearest neighbours. Returns the number of steps.
    fn improve(&mut self, piece: u32) -> usize {
        let index = self.scratch.pieces.get_or_load(self.engine, piece);
        self.scratch.pieces[index].queued = false;
        let mut neighbours = std::mem::take(&mut self.scratch.neighbours);
        self.nearest_neighbours(piece, index, &mut neighbours);
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

    /// The neighbours to exchange members with, the nearest centre first.
    fn nearest_neighbours(&mut self, piece: u32, index: u32, neighbours: &mut Vec<u32>) {
        let centre = self.engine.spatial.centre(piece);
        let rank = |&island: &u32| {
            let (x, z) = self.engine.spatial.centre(island);
            let squared = (x - centre.0).powi(2) + (z - centre.1).powi(2);
            (squared, self.engine.islands[island].age)
        };
        neighbours.clear();
        neighbours.extend(&self.scratch.pieces[index].neighbours);
        neighbours.sort_by(|a, b| {
            let ((a, a_age), (b, b_age)) = (rank(a), rank(b));
            a.total_cmp(&b).then(a_age.cmp(&b_age))
        });
        if neighbours.len() > MAX_NEIGHBOURS {
            neighbours.retain(|&neighbour| self.is_near(piece, neighbour, NONE));
            neighbours.truncate(MAX_NEIGHBOURS);
        }
    }

    /// Whether two pieces are within the join distance, not counting the member `excluding` of the
    /// first.
    fn is_near(&mut self, one: u32, other: u32, excluding: u32) -> bool {
        let pieces = &mut self.scratch.pieces;
        let (one, other) =
            (pieces.get_or_load_members(self.engine, one), pieces.get_or_load_members(self.engine, other));
        pieces[one].is_near(&pieces[other], &self.engine.spatial.distances, excluding)
    }

    /// Queues a piece that changed again, and its neighbours for which a step was rejected because it
    /// would have made the piece and another mergeable.
    fn requeue_around(&mut self, piece: u32) {
        let index = self.scratch.pieces.get_or_load(self.engine, piece);
        self.requeue(piece);
        let neighbours = std::mem::take(&mut self.scratch.pieces[index].neighbours);
        // Two above the limit: each of the two pieces may have had one member less before this step.
        let room = self.engine.max_merge_size(piece).saturating_add(2);
        for &neighbour in &neighbours {
            let other = self.scratch.pieces.find(neighbour);
            if other != NONE && self.has_neighbour_up_to(other, neighbour, room) {
                self.requeue(neighbour);
            }
        }
        self.scratch.pieces[index].neighbours = neighbours;
    }

    /// Whether a piece or one of its neighbours has at most `size` members.
    fn has_neighbour_up_to(&self, index: u32, island: u32, size: u32) -> bool {
        let fits = |&island: &u32| self.engine.spatial.size(island) <= size;
        fits(&island) || self.scratch.pieces[index].neighbours.iter().any(fits)
    }

    /// Queues a piece again if it is one of those that this flush processes.
    fn requeue(&mut self, piece: u32) {
        let index = self.scratch.pieces.find(piece);
        if index == NONE {
            return;
        }
        let cached = &mut self.scratch.pieces[index];
        if cached.active && !std::mem::replace(&mut cached.queued, true) {
            self.scratch.queue.push_back(piece);
        }
    }
}
