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

mod connectivity;
mod emit;
mod join;
mod leave;
mod merge;
mod neighbours;
mod placement;
mod rebalance;
mod split;
mod transports;

use std::time::Duration;

pub(crate) use connectivity::{MoveOrigin, are_few_movers};
pub(crate) use placement::PlacementState;
pub(crate) use split::lowest_address;
pub(crate) use transports::refresh;

use crate::{engine::Engine, event::Output, ids::IdCache, peers::Flags, spatial::Member, transitions};

/// Memory that one flush leaves to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    members: Vec<Member>,
    ends: Vec<usize>,
    found: Vec<u32>,
    active: Vec<u32>,
    fragments: split::Fragments,
    neighbours: neighbours::IslandNeighbours,
    movers: connectivity::Movers,
    rebalance: rebalance::Scratch,
    names: IdCache,
}

impl Scratch {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.members.capacity() * size_of::<Member>()
            + self.ends.capacity() * size_of::<usize>()
            + (self.found.capacity() + self.active.capacity()) * size_of::<u32>()
            + self.fragments.bytes()
            + self.neighbours.bytes()
            + self.movers.bytes()
            + self.rebalance.bytes()
    }
}

pub(crate) fn run(engine: &mut Engine, now: Duration, outputs: &mut Vec<Output>) {
    transports::refresh(engine, now);
    leave::time_out_peers(engine, now);
    leave::remove_departed(engine, now);
    leave::remove_unclustered(engine, now);
    transitions::run(engine, now);
    engine.spatial.reorder_memory();
    let mut dirty = std::mem::take(&mut engine.pending.dirty);
    let moved = std::mem::take(&mut engine.pending.moved);
    let steps = std::mem::take(&mut engine.pending.move_origins);
    let mut arrivals = std::mem::take(&mut engine.pending.joining);
    arrivals.retain(|&peer| engine.is_placeable(peer));
    sort_by_locality(engine, &mut dirty);
    connectivity::run(engine, &moved, &steps);
    split::run(engine, &dirty);
    let mut active = std::mem::take(&mut engine.scratch.active);
    neighbours::run(engine, &dirty, &mut active);
    join::rejoin(engine, &arrivals, &mut active);
    merge::run(engine, &active);
    join::place_fragments(engine);
    join::place_new_peers(engine, &arrivals);
    if engine.rebalances {
        // Crowds that were taken over stay as people were told, but for what has to change: another
        // look at all of them might find something to improve.
        let improvable = if std::mem::take(&mut engine.just_resumed) { &[] } else { &active[..] };
        rebalance::run(engine, improvable);
    }
    emit::emit_opened(engine, outputs);
    placement::run(engine, now, outputs);
    emit::emit_changes(engine, outputs);
    leave::expire_grace(engine, now);
    emit::emit_closed(engine, outputs);
    active.clear();
    engine.scratch.active = active;
    engine.pending.move_origins = steps;
    finish(engine, dirty, moved, arrivals);
}

/// Orders islands so that those near each other follow each other: what is in the processor's cache
/// for the one serves the next. The order depends on nothing but places and ages.
fn sort_by_locality(engine: &Engine, islands: &mut [u32]) {
    islands.sort_by_cached_key(|&island| (engine.spatial.morton_code(island), engine.islands[island].age));
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
    (pending.dirty, pending.moved, pending.joining) = (dirty, moved, arrivals);
    for list in [
        &mut pending.dirty,
        &mut pending.moved,
        &mut pending.joining,
        &mut pending.leaving,
        &mut pending.changed,
    ] {
        list.shrink_to(2 * list.len());
        list.clear();
    }
    pending.move_origins.shrink_to(2 * pending.move_origins.len());
    pending.move_origins.clear();
}
