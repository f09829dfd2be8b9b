//! Finds the islands near the dirty ones, and selects the islands that the merge and rebalance phases
//! process.

use crate::{
    engine::Engine,
    flush::connectivity::{Mover, has_few_movers},
    spatial::{Member, Point},
};

/// The neighbours of islands, as found in this flush. A recorded list holds every island within the
/// join distance, and possibly islands that are no longer near. It is not valid for an island whose
/// members changed after it was recorded; callers check `members_changed`.
#[derive(Debug, Clone, Default)]
pub(crate) struct IslandNeighbours {
    lists: Vec<u32>,
    /// By island: start and end of its range in `lists`, and the number of the flush that recorded it.
    entries: Vec<(u32, u32, u32)>,
    current: u32,
}

impl IslandNeighbours {
    fn begin(&mut self) {
        self.lists.clear();
        self.current = self.current.wrapping_add(1);
        if self.current == 0 {
            self.entries.clear();
            self.current = 1;
        }
    }

    fn record(&mut self, island: u32, start: usize) {
        if self.entries.len() <= island as usize {
            self.entries.resize(island as usize + 1, (0, 0, 0));
        }
        self.entries[island as usize] = (start as u32, self.lists.len() as u32, self.current);
    }

    /// The neighbours of an island, if they were recorded in this flush.
    pub(super) fn get(&self, island: u32) -> Option<&[u32]> {
        let &(start, end, flush) = self.entries.get(island as usize)?;
        (flush == self.current).then(|| &self.lists[start as usize..end as usize])
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.lists.capacity() * size_of::<u32>() + self.entries.capacity() * size_of::<(u32, u32, u32)>()
    }
}

/// Records the neighbours of the dirty islands, and appends to `active` the islands that need
/// evaluation. An island with few movers is active only if a mover can cause a merge or a transfer.
pub(super) fn run(engine: &mut Engine, dirty: &[u32], active: &mut Vec<u32>) {
    engine.scratch.neighbours.begin();
    for &island in dirty {
        if !engine.islands.is_populated(island) {
            continue;
        }
        if has_few_movers(engine, island) {
            engine.islands[island].dirty = false;
        } else {
            record_neighbours(engine, island);
            active.push(island);
        }
    }
    let movers = std::mem::take(&mut engine.scratch.movers);
    let mut affected: Vec<(u32, u32)> = Vec::new();
    for (mover, nearby) in movers.iter() {
        if has_few_movers(engine, mover.island) && needs_evaluation(engine, mover, nearby) {
            affected.push((mover.move_index, mover.island));
        }
    }
    engine.scratch.movers = movers;
    // In the order of the moves, so that the result is deterministic.
    affected.sort_unstable();
    for (_, island) in affected {
        if !std::mem::replace(&mut engine.islands[island].dirty, true) {
            active.push(island);
        }
    }
}

fn record_neighbours(engine: &mut Engine, island: u32) {
    let neighbours = &mut engine.scratch.neighbours;
    let start = neighbours.lists.len();
    engine.spatial.islands_near_island(island, u32::MAX, &mut neighbours.lists);
    neighbours.record(island, start);
}

/// Whether a mover is near an island that its own can merge with, or is past the midpoint towards one.
/// `nearby` holds the islands near it before the split phase; if members of one of them changed, the
/// search is repeated.
fn needs_evaluation(engine: &mut Engine, mover: &Mover, nearby: &[u32]) -> bool {
    let Member { at, traits, .. } = engine.spatial.member(mover.peer);
    if !nearby.iter().any(|&other| engine.islands[other].members_changed) {
        return nearby.iter().any(|&other| is_affected(engine, at, mover.island, other));
    }
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    engine.spatial.islands_near_point(at, traits.zone(), u32::MAX, &mut found);
    let difference = found.iter().any(|&other| is_affected(engine, at, mover.island, other));
    engine.scratch.found = found;
    difference
}

fn is_affected(engine: &Engine, at: Point, island: u32, other: u32) -> bool {
    other != island
        && (engine.can_merge(island, other) || super::rebalance::is_past_midpoint(engine, at, island, other))
}
