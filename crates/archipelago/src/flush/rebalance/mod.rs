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
//! centres by a margin (see [`centre_line`](super::centre_line)), so that a peer at a border does not alternate between
//! pieces. Because only positions decide, a peer that does not move is not moved by later flushes.
//!
//! No step disconnects a piece, or leaves two pieces near each other that could merge. In at least one
//! of the two pieces of a step a member moved, joined or left.

mod exchange;
mod piece_cache;

use std::collections::VecDeque;

use self::{exchange::Exchange, piece_cache::PieceCache};
use super::neighbours::IslandNeighbours;
use crate::{
    ids::{IslandIndex, PieceIndex},
    world::World,
};

/// A piece exchanges members with at most this many neighbours: the nearest. It has more only where
/// very many peers are at one position.
const MAX_NEIGHBOURS: usize = 12;
/// The budget of steps for each queued piece, on average, in one flush. When it is used up, the rest is
/// left to later flushes.
const MAX_STEPS_PER_PIECE: usize = 400;

/// Buffers that a flush reuses.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    pieces: PieceCache,
    queue: VecDeque<IslandIndex>,
    neighbours: Vec<IslandIndex>,
    exchange: exchange::Scratch,
}

impl Scratch {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.bytes() + self.queue.capacity() * size_of::<IslandIndex>()
    }
}

/// Improves the pieces of crowds, starting with the active islands and the islands with other members
/// than after the last flush.
pub(super) fn run(
    world: &mut World,
    active: &[IslandIndex],
    recorded: &IslandNeighbours,
    scratch: &mut Scratch,
) {
    let mut changed = world.changes.changed.clone();
    world.sort_by_locality(&mut changed);
    let mut rebalance = Rebalance { world, scratch };
    active.iter().chain(&changed).for_each(|&island| rebalance.enqueue(island, recorded));
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
    scratch.queue.clear();
    scratch.pieces.clear();
}

/// The state of one rebalance phase.
struct Rebalance<'a> {
    world: &'a mut World,
    scratch: &'a mut Scratch,
}

impl Rebalance<'_> {
    /// Queues an island if it has neighbours.
    fn enqueue(&mut self, island: IslandIndex, recorded: &IslandNeighbours) {
        if !self.world.islands.is_populated(island) || self.scratch.pieces.contains(island) {
            return;
        }
        if let Some(index) = self.scratch.pieces.load_unless_isolated(self.world, recorded, island) {
            let cached = &mut self.scratch.pieces[index];
            (cached.active, cached.queued) = (true, true);
            self.scratch.queue.push_back(island);
        }
    }

    /// Adds an island to the neighbour lists of its neighbours.
    fn register_with_neighbours(&mut self, island: IslandIndex) {
        let pieces = &mut self.scratch.pieces;
        let Some(index) = pieces.find(island) else { return };
        let neighbours = std::mem::take(&mut pieces[index].neighbours);
        neighbours.iter().for_each(|&neighbour| pieces.add_neighbour(neighbour, island));
        pieces[index].neighbours = neighbours;
    }

    /// Takes all steps between an island and its nearest neighbours. Returns the number of steps.
    fn improve(&mut self, piece: IslandIndex) -> usize {
        let index = self.scratch.pieces.get_or_load(self.world, piece);
        self.scratch.pieces[index].queued = false;
        let mut neighbours = std::mem::take(&mut self.scratch.neighbours);
        self.nearest_neighbours(piece, index, &mut neighbours);
        let mut taken = 0;
        for &neighbour in &neighbours {
            let Scratch { pieces, exchange, .. } = &mut *self.scratch;
            let steps = Exchange { world: self.world, pieces, scratch: exchange }.run(piece, neighbour);
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
    fn nearest_neighbours(
        &mut self,
        piece: IslandIndex,
        index: PieceIndex,
        neighbours: &mut Vec<IslandIndex>,
    ) {
        let centre = self.world.spatial.centre(piece);
        let rank = |&island: &IslandIndex| {
            let (x, z) = self.world.spatial.centre(island);
            let squared = (x - centre.0).powi(2) + (z - centre.1).powi(2);
            (squared, self.world.islands[island].age)
        };
        neighbours.clear();
        neighbours.extend(&self.scratch.pieces[index].neighbours);
        neighbours.sort_by(|a, b| {
            let ((a, a_age), (b, b_age)) = (rank(a), rank(b));
            a.total_cmp(&b).then(a_age.cmp(&b_age))
        });
        if neighbours.len() > MAX_NEIGHBOURS {
            let pieces = &mut self.scratch.pieces;
            neighbours.retain(|&neighbour| pieces.are_near(self.world, piece, neighbour, None));
            neighbours.truncate(MAX_NEIGHBOURS);
        }
    }

    /// Queues a piece that changed again, and its neighbours for which a step was rejected because it
    /// would have made the piece and another mergeable.
    fn requeue_around(&mut self, piece: IslandIndex) {
        let index = self.scratch.pieces.get_or_load(self.world, piece);
        self.requeue(piece);
        let neighbours = std::mem::take(&mut self.scratch.pieces[index].neighbours);
        // Two above the limit: each of the two pieces may have had one member less before this step.
        let room = self.world.max_merge_size(piece).saturating_add(2);
        for &neighbour in &neighbours {
            if let Some(other) = self.scratch.pieces.find(neighbour)
                && self.has_neighbour_up_to(other, neighbour, room)
            {
                self.requeue(neighbour);
            }
        }
        self.scratch.pieces[index].neighbours = neighbours;
    }

    /// Whether a piece or one of its neighbours has at most `size` members.
    fn has_neighbour_up_to(&self, index: PieceIndex, island: IslandIndex, size: u32) -> bool {
        let fits = |&island: &IslandIndex| self.world.spatial.size(island) <= size;
        fits(&island) || self.scratch.pieces[index].neighbours.iter().any(fits)
    }

    /// Queues a piece again if it is one of those that this flush processes.
    fn requeue(&mut self, piece: IslandIndex) {
        let Some(index) = self.scratch.pieces.find(piece) else { return };
        let cached = &mut self.scratch.pieces[index];
        if cached.active && !std::mem::replace(&mut cached.queued, true) {
            self.scratch.queue.push_back(piece);
        }
    }
}
