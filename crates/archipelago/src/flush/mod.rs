//! One evaluation of the engine: turns the events since the last flush into changed islands and
//! outputs.
//!
//! Phases, in order:
//!
//! 1. Nodes without recent announcements are marked as gone, and the size limits follow the nodes on
//!    offer.
//! 2. Peers that disconnected, timed out or lost their cluster [leave](leave) their islands, and [zone
//!    transitions](transitions) whose settling time has passed take effect.
//! 3. Islands that are no longer connected or above the limit are [split](split). The fragments are in
//!    no island until phase 6.
//! 4. Peers that reconnected [rejoin](join) the island that they were in.
//! 5. Islands with members within the join distance [merge](merge).
//! 6. Fragments, then new peers, are [placed](join) one after the other.
//! 7. In crowds, members are [transferred and exchanged](rebalance) between islands so that neighbours
//!    share an island.
//! 8. Each remaining island gets an id, a rule and a [node](placement), and the differences are
//!    [emitted](emit).
//!
//! The work is proportional to the islands with a member that moved, joined or left. For an island with
//! few movers only the neighbourhood of the movers is examined ([incremental connectivity
//! check](connectivity)), unless they may have disconnected it.

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

/// Buffers that a flush reuses, so that it allocates little.
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

/// Runs all phases and appends the differences to `outputs`.
pub(crate) fn run(engine: &mut Engine, now: Duration, outputs: &mut Vec<Output>) {
    transports::refresh(engine, now);
    leave::time_out_peers(engine, now);
    leave::remove_departed(engine, now);
    leave::remove_unclustered(engine, now);
    transitions::run(engine, now);
    engine.spatial.reorder_memory();
    let mut dirty = std::mem::take(&mut engine.pending.dirty);
    let moved = std::mem::take(&mut engine.pending.moved);
    let move_origins = std::mem::take(&mut engine.pending.move_origins);
    let mut joining = std::mem::take(&mut engine.pending.joining);
    joining.retain(|&peer| engine.is_placeable(peer));
    sort_by_locality(engine, &mut dirty);
    connectivity::run(engine, &moved, &move_origins);
    split::run(engine, &dirty);
    let mut active = std::mem::take(&mut engine.scratch.active);
    neighbours::run(engine, &dirty, &mut active);
    join::rejoin(engine, &joining, &mut active);
    merge::run(engine, &active);
    join::place_fragments(engine);
    join::place_new_peers(engine, &joining);
    if engine.rebalances {
        // After a resume the islands of crowds stay as they were assigned, except where a change is
        // required: a full rebalance might find improvements and move peers that did not move.
        let candidates = if std::mem::take(&mut engine.just_resumed) { &[] } else { &active[..] };
        rebalance::run(engine, candidates);
    }
    emit::emit_opened(engine, outputs);
    placement::run(engine, now, outputs);
    emit::emit_changes(engine, outputs);
    leave::expire_grace(engine, now);
    emit::emit_closed(engine, outputs);
    active.clear();
    engine.scratch.active = active;
    engine.pending.move_origins = move_origins;
    finish(engine, dirty, moved, joining);
}

/// Sorts islands by Morton code, so that islands near each other are processed one after the other and
/// share CPU cache lines. The order depends on positions and ages only, so it is deterministic.
fn sort_by_locality(engine: &Engine, islands: &mut [u32]) {
    islands.sort_by_cached_key(|&island| (engine.spatial.morton_code(island), engine.islands[island].age));
}

/// Clears the pending lists. They keep their memory, up to twice of what this flush used.
fn finish(engine: &mut Engine, dirty: Vec<u32>, moved: Vec<u32>, joining: Vec<u32>) {
    for &island in &dirty {
        let record = &mut engine.islands[island];
        (record.dirty, record.movers) = (false, 0);
    }
    for &peer in &moved {
        engine.peers[peer].flags.replace(Flags::MOVED, false);
    }
    let pending = &mut engine.pending;
    // Islands that were marked during the flush have been evaluated by it.
    (pending.dirty, pending.moved, pending.joining) = (dirty, moved, joining);
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
