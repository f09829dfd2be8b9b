//! Which islands are near which.

use crate::{
    engine::Engine,
    flush::hold::{Mover, has_few_movers},
    ground::{Member, Point},
};

/// What a flush knows of the islands near others. An island on record has all those near it on its
/// list, and perhaps some that are not any more; an island that changes later is no longer on record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contacts {
    lists: Vec<u32>,
    /// By island, where in `lists` its list is; and the flush for which that is so.
    entries: Vec<(u32, u32, u32)>,
    flush: u32,
}

impl Contacts {
    fn begin(&mut self) {
        self.lists.clear();
        self.flush = self.flush.wrapping_add(1);
        if self.flush == 0 {
            self.entries.clear();
            self.flush = 1;
        }
    }

    fn record(&mut self, island: u32, start: usize) {
        if self.entries.len() <= island as usize {
            self.entries.resize(island as usize + 1, (0, 0, 0));
        }
        self.entries[island as usize] = (start as u32, self.lists.len() as u32, self.flush);
    }

    /// The islands near one, if it is on record.
    pub(super) fn of(&self, island: u32) -> Option<&[u32]> {
        let &(start, end, flush) = self.entries.get(island as usize)?;
        (flush == self.flush).then(|| &self.lists[start as usize..end as usize])
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.lists.capacity() * size_of::<u32>() + self.entries.capacity() * size_of::<(u32, u32, u32)>()
    }
}

/// Finds out which islands are near the dirty ones. Those that are to be looked at closely become
/// `active`: not those of which only a few moved, when that changes nothing for anybody.
pub(super) fn run(engine: &mut Engine, dirty: &[u32], active: &mut Vec<u32>) {
    engine.scratch.contacts.begin();
    for &island in dirty {
        if !engine.islands.is_inhabited(island) {
            continue;
        }
        if has_few_movers(engine, island) {
            engine.islands[island].dirty = false;
        } else {
            survey(engine, island);
            active.push(island);
        }
    }
    let movers = std::mem::take(&mut engine.scratch.movers);
    let mut different: Vec<(u32, u32)> = Vec::new();
    for (mover, in_sight) in movers.iter() {
        if has_few_movers(engine, mover.island) && makes_a_difference(engine, mover, in_sight) {
            different.push((mover.turn, mover.island));
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

fn survey(engine: &mut Engine, island: u32) {
    let contacts = &mut engine.scratch.contacts;
    let start = contacts.lists.len();
    engine.ground.touching(island, u32::MAX, &mut contacts.lists);
    contacts.record(island, start);
}

/// Whether somebody who moved has come near an island that its own fits together with, or stands
/// past the middle to one. Those `in_sight` were near before anything was cut.
fn makes_a_difference(engine: &mut Engine, mover: &Mover, in_sight: &[u32]) -> bool {
    let Member { at, terms, .. } = engine.ground.member(mover.peer);
    if !in_sight.iter().any(|&other| engine.islands[other].changed) {
        return in_sight.iter().any(|&other| concerns(engine, at, mover.island, other));
    }
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    engine.ground.touching_point(at, terms.zone(), u32::MAX, &mut found);
    let difference = found.iter().any(|&other| concerns(engine, at, mover.island, other));
    engine.scratch.found = found;
    difference
}

fn concerns(engine: &Engine, at: Point, island: u32, other: u32) -> bool {
    other != island
        && (engine.fit(island, other) || super::refine::is_past_the_middle(engine, at, island, other))
}
