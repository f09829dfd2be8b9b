//! Finds the islands near the dirty ones, and selects the islands that the merge and rebalance phases
//! process.

use super::{
    centre_line::is_past_midpoint,
    connectivity::{Mover, Movers},
};
use crate::{
    ids::IslandIndex,
    index_vec::IndexVec,
    point::Point,
    world::{Member, World},
};

/// The neighbours of islands, as found in this flush. A recorded list holds every island within the
/// join distance, and possibly islands that are no longer near. It is not valid for an island whose
/// members changed after it was recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct IslandNeighbours {
    lists: Vec<IslandIndex>,
    entries: IndexVec<IslandIndex, Entry>,
    current_flush: u32,
    /// A buffer for searches.
    found: Vec<IslandIndex>,
}

/// The list of one island: its range in the lists, and the number of the flush that recorded it.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    start: u32,
    end: u32,
    flush: u32,
}

impl IslandNeighbours {
    fn begin(&mut self) {
        self.lists.clear();
        self.current_flush = self.current_flush.wrapping_add(1);
        if self.current_flush == 0 {
            self.entries.clear();
            self.current_flush = 1;
        }
    }

    /// Finds and records the neighbours of an island.
    fn record(&mut self, world: &mut World, island: IslandIndex) {
        let start = self.lists.len() as u32;
        world.spatial.islands_near_island(island, u32::MAX, &mut self.lists);
        let (end, flush) = (self.lists.len() as u32, self.current_flush);
        *self.entries.grow_to(island, Entry::default()) = Entry { start, end, flush };
    }

    /// The neighbours of an island, if they were recorded in this flush and are still valid.
    pub(super) fn get(&self, world: &World, island: IslandIndex) -> Option<&[IslandIndex]> {
        let &Entry { start, end, flush } = self.entries.get(island)?;
        let valid = flush == self.current_flush && !world.islands[island].members_changed;
        valid.then(|| &self.lists[start as usize..end as usize])
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        (self.lists.capacity() + self.found.capacity()) * size_of::<IslandIndex>() + self.entries.bytes()
    }
}

/// Records the neighbours of the dirty islands, and appends to `active` the islands that need
/// evaluation. An island with few movers is active only if a mover can cause a merge or a transfer.
pub(super) fn run(
    world: &mut World,
    dirty: &[IslandIndex],
    movers: &Movers,
    neighbours: &mut IslandNeighbours,
    active: &mut Vec<IslandIndex>,
) {
    neighbours.begin();
    for &island in dirty {
        if !world.islands.is_populated(island) {
            continue;
        }
        if world.has_few_movers(island) {
            world.islands[island].dirty = false;
        } else {
            neighbours.record(world, island);
            active.push(island);
        }
    }
    let mut affected = Vec::new();
    for (mover, nearby) in movers.iter() {
        if world.has_few_movers(mover.island) && needs_evaluation(world, mover, nearby, &mut neighbours.found)
        {
            affected.push((mover.move_index, mover.island));
        }
    }
    // In the order of the moves, so that the result is deterministic.
    affected.sort_unstable();
    for (_, island) in affected {
        if !std::mem::replace(&mut world.islands[island].dirty, true) {
            active.push(island);
        }
    }
}

/// Whether a mover is near an island that its own can merge with, or is past the midpoint towards one.
/// `nearby` holds the islands near it before the split phase; if members of one of them changed, the
/// search is repeated.
fn needs_evaluation(
    world: &mut World,
    mover: &Mover,
    nearby: &[IslandIndex],
    found: &mut Vec<IslandIndex>,
) -> bool {
    let Member { at, traits, .. } = world.spatial.member(mover.peer);
    if !nearby.iter().any(|&other| world.islands[other].members_changed) {
        return nearby.iter().any(|&other| is_affected(world, at, mover.island, other));
    }
    found.clear();
    world.spatial.islands_near_point(at, traits.zone(), u32::MAX, found);
    found.iter().any(|&other| is_affected(world, at, mover.island, other))
}

fn is_affected(world: &World, at: Point, island: IslandIndex, other: IslandIndex) -> bool {
    other != island && (world.can_merge(island, other) || is_past_midpoint(world, at, island, other))
}
