//! What a flush does, in order.
//!
//! 1. Nodes that fell silent are counted out, and the size limit follows what is on offer.
//! 2. Peers that left or fell silent are taken out.
//! 3. Islands that no longer hold together are [cut]. What is cut off stands nowhere for a moment.
//! 4. Peers that come back are put where they were.
//! 5. Islands that came near each other [merge].
//! 6. What was cut off, then who is new, is placed one after the other.
//! 7. Within crowds, members are [handed over](refine) so that neighbours are together.
//! 8. Islands that are still there get an id and a node, and what changed is [announced](announce).
//!
//! Work is proportional to the islands that hold a peer which moved, came or left.

mod announce;
mod arrive;
mod cut;
mod depart;
mod merge;
mod refine;
mod transports;

use std::time::Duration;

use crate::{engine::Engine, event::Output, ground::Member};

/// Memory that one flush leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    members: Vec<Member>,
    ends: Vec<usize>,
    found: Vec<u32>,
    fragments: cut::Fragments,
    refine: refine::Scratch,
}

impl Scratch {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.members.capacity() * size_of::<Member>()
            + self.ends.capacity() * size_of::<usize>()
            + self.found.capacity() * size_of::<u32>()
            + self.fragments.bytes()
            + self.refine.bytes()
    }
}

pub(crate) fn run(engine: &mut Engine, now: Duration, outputs: &mut Vec<Output>) {
    transports::refresh(engine, now);
    depart::fall_silent(engine, now);
    depart::take_out(engine, now);
    let mut dirty = std::mem::take(&mut engine.pending.dirty);
    dirty.sort_unstable_by_key(|&island| engine.islands[island].age);
    cut::run(engine, &dirty);
    let arrivals = std::mem::take(&mut engine.pending.arrivals);
    arrive::put_back(engine, &arrivals, &mut dirty);
    merge::run(engine, &dirty);
    arrive::place_fragments(engine);
    arrive::place_newcomers(engine, &arrivals);
    if engine.refines {
        refine::run(engine, &dirty);
    }
    announce::name_islands(engine, outputs);
    transports::assign(engine, outputs);
    announce::tell(engine, outputs);
    depart::forget(engine, now);
    announce::close_islands(engine, outputs);
    dirty.iter().for_each(|&island| engine.islands[island].dirty = false);
    engine.pending.recycle(dirty, arrivals);
}
