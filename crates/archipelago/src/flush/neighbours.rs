//! Which islands are near which.

use crate::{
    engine::Engine,
    flush::connectivity::{Mover, has_few_movers},
    spatial::{Member, Point},
};

/// What a flush knows of the islands near others. An island on record has all those near it on its
/// list, and perhaps some that are not any more; an island that changes later is no longer on record.
#[derive(Debug, Clone, Default)]
pub(crate) struct IslandNeighbours {
    lists: Vec<u32>,
    /// By island, where in `lists` its list is; and the flush for which that is so.
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

    /// The islands near one, if it is on record.
    pub(super) fn get(&self, island: u32) -> Option<&[u32]> {
        let &(start, end, flush) = self.entries.get(island as usize)?;
        (flush == self.current).then(|| &self.lists[start as usize..end as usize])
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.lists.capacity() * size_of::<u32>() + self.entries.capacity() * size_of::<(u32, u32, u32)>()
    }
}

/// Finds out which islands are near the dirty ones. Those that are to be looked at closely become
/// `active`: not those of which only a few moved, when that changes nothing for anybody.
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
    let mut different: Vec<(u32, u32)> = Vec::new();
    for (mover, in_sight) in movers.iter() {
        if has_few_movers(engine, mover.island) && needs_evaluation(engine, mover, in_sight) {
            different.push((mover.move_index, mover.island));
        }
    }
    engine.scratch.movers = movers;
    // In the order in which they moved.
    different.sort_unstable();
    for (_, island) in different {
        if !std::mem::replace(&mut engine.islands[island].dirty, true) {
            active.push(island);
        }
    }
}

fn record_neighbours(engine: &mut Engine, island: u32) {
    let contacts = &mut engine.scratch.neighbours;
    let start = contacts.lists.len();
    engine.spatial.islands_near_island(island, u32::MAX, &mut contacts.lists);
    contacts.record(island, start);
}

/// Whether somebody who moved has come near an island that its own fits together with, or stands
/// past the middle to one. Those `nearby` were near before anything was cut.
fn needs_evaluation(engine: &mut Engine, mover: &Mover, in_sight: &[u32]) -> bool {
    let Member { at, traits: terms, .. } = engine.spatial.member(mover.peer);
    if !in_sight.iter().any(|&other| engine.islands[other].members_changed) {
        return in_sight.iter().any(|&other| is_affected(engine, at, mover.island, other));
    }
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    engine.spatial.islands_near_point(at, terms.zone(), u32::MAX, &mut found);
    let difference = found.iter().any(|&other| is_affected(engine, at, mover.island, other));
    engine.scratch.found = found;
    difference
}

fn is_affected(engine: &Engine, at: Point, island: u32, other: u32) -> bool {
    other != island
        && (engine.can_merge(island, other) || super::rebalance::is_past_midpoint(engine, at, island, other))
}
