//! What a flush does, in order.
//!
//! 1. Nodes that fell silent are counted out, and the size limit follows what is on offer.
//! 2. Peers that left, fell silent, or are in no cluster any more are taken out, and borders that were crossed long enough ago
//!    count.
//! 3. Islands that no longer hold together are [cut]. What is cut off stands nowhere for a moment.
//! 4. Peers that come back are put where they were.
//! 5. Islands that came near each other [merge].
//! 6. What was cut off, then who is new, is placed one after the other.
//! 7. Within crowds, members are [handed over](refine) so that neighbours are together.
//! 8. Islands that are still there get an id, a rule and a node, and what changed is [announced](announce).
//!
//! Work is proportional to the islands that hold a peer which moved, came or left. Where only a few
//! members of an island moved, it is looked at through their eyes alone, unless they may have parted it.

mod announce;
mod arrive;
mod cut;
mod depart;
mod hold;
mod judge;
mod merge;
mod refine;
mod survey;
mod transports;

use std::time::Duration;

pub(crate) use cut::lowest_address;
pub(crate) use hold::{Step, is_few};
pub(crate) use judge::Pace;
pub(crate) use transports::refresh;

use crate::{crossing, engine::Engine, event::Output, ground::Member, ids::IdCache, peers::Flags};

/// Memory that one flush leaves to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    members: Vec<Member>,
    ends: Vec<usize>,
    found: Vec<u32>,
    active: Vec<u32>,
    fragments: cut::Fragments,
    contacts: survey::Contacts,
    movers: hold::Movers,
    refine: refine::Scratch,
    names: IdCache,
}

impl Scratch {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.members.capacity() * size_of::<Member>()
            + self.ends.capacity() * size_of::<usize>()
            + (self.found.capacity() + self.active.capacity()) * size_of::<u32>()
            + self.fragments.bytes()
            + self.contacts.bytes()
            + self.movers.bytes()
            + self.refine.bytes()
    }
}

pub(crate) fn run(engine: &mut Engine, now: Duration, outputs: &mut Vec<Output>) {
    transports::refresh(engine, now);
    depart::fall_silent(engine, now);
    depart::take_out(engine, now);
    depart::take_out_unclustered(engine, now);
    crossing::run(engine, now);
    engine.ground.tidy();
    let mut dirty = std::mem::take(&mut engine.pending.dirty);
    let moved = std::mem::take(&mut engine.pending.moved);
    let steps = std::mem::take(&mut engine.pending.steps);
    let mut arrivals = std::mem::take(&mut engine.pending.arrivals);
    arrivals.retain(|&peer| engine.belongs(peer));
    sort_by_place(engine, &mut dirty);
    hold::run(engine, &moved, &steps);
    cut::run(engine, &dirty);
    let mut active = std::mem::take(&mut engine.scratch.active);
    survey::run(engine, &dirty, &mut active);
    arrive::put_back(engine, &arrivals, &mut active);
    merge::run(engine, &active);
    arrive::place_fragments(engine);
    arrive::place_newcomers(engine, &arrivals);
    if engine.refines {
        // Crowds that were taken over stay as people were told, but for what has to change: another
        // look at all of them might find something to improve.
        let improvable = if std::mem::take(&mut engine.taken_over) { &[] } else { &active[..] };
        refine::run(engine, improvable);
    }
    announce::name_islands(engine, outputs);
    judge::run(engine, now, outputs);
    announce::tell(engine, outputs);
    depart::forget(engine, now);
    announce::close_islands(engine, outputs);
    active.clear();
    engine.scratch.active = active;
    engine.pending.steps = steps;
    finish(engine, dirty, moved, arrivals);
}

/// Orders islands so that those near each other follow each other: what is in the processor's cache
/// for the one serves the next. The order depends on nothing but places and ages.
fn sort_by_place(engine: &Engine, islands: &mut [u32]) {
    islands.sort_by_cached_key(|&island| (engine.ground.district(island), engine.islands[island].age));
}

/// Nothing is pending any more. The lists keep their memory, within reason.
fn finish(engine: &mut Engine, dirty: Vec<u32>, moved: Vec<u32>, arrivals: Vec<u32>) {
    for &island in &dirty {
        let record = &mut engine.islands[island];
        (record.dirty, record.movers) = (false, 0);
    }
    for &peer in &moved {
        engine.peers[peer].flags.replace(Flags::MOVED, false);
    }
    let pending = &mut engine.pending;
    // Islands that were marked in the course of the flush have been looked at.
    (pending.dirty, pending.moved, pending.arrivals) = (dirty, moved, arrivals);
    for list in [
        &mut pending.dirty,
        &mut pending.moved,
        &mut pending.arrivals,
        &mut pending.leaving,
        &mut pending.changed,
    ] {
        list.shrink_to(2 * list.len());
        list.clear();
    }
    pending.steps.shrink_to(2 * pending.steps.len());
    pending.steps.clear();
}
