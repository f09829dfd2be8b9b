//! One evaluation of the engine: turns the events since the last flush into changed islands and
//! outputs.
//!
//! Phases, in order:
//!
//! 1. Nodes without recent announcements are marked as gone, and the size limits follow the [nodes on
//!    offer](offers).
//! 2. Peers that disconnected, timed out or lost their cluster [leave](leave) their islands, and [zone
//!    transitions](transitions) whose settling time has passed take effect.
//! 3. Islands that are no longer connected or above the limit are [split](split). The fragments are in
//!    no island until phase 6.
//! 4. Peers that reconnected [rejoin](rejoin) the island that they were in.
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

mod centre_line;
mod connectivity;
mod emit;
mod join;
mod leave;
mod merge;
mod neighbours;
mod offers;
mod partition;
mod placement;
mod rebalance;
mod rejoin;
mod split;
mod transitions;

use std::time::Duration;

pub(crate) use self::offers::refresh;

use crate::{
    event::Output,
    ids::IslandIndex,
    island_ids::IdCache,
    settings::Settings,
    world::{Evaluated, Member, World},
};

/// Buffers that a flush reuses, so that it allocates little, one for each phase that needs any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    active: Vec<IslandIndex>,
    fragments: partition::Fragments,
    neighbours: neighbours::IslandNeighbours,
    movers: connectivity::Movers,
    near: Vec<Member>,
    split: split::Scratch,
    merge: merge::Scratch,
    rebalance: rebalance::Scratch,
    names: IdCache,
}

impl Scratch {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.active.capacity() * size_of::<IslandIndex>()
            + self.near.capacity() * size_of::<Member>()
            + self.fragments.bytes()
            + self.neighbours.bytes()
            + self.movers.bytes()
            + self.split.bytes()
            + self.merge.bytes()
            + self.rebalance.bytes()
    }
}

/// Runs all phases and appends the differences to `outputs`. Without `rebalances`, members of crowds are
/// not exchanged.
pub(crate) fn run(
    world: &mut World,
    settings: &Settings,
    rebalances: bool,
    scratch: &mut Scratch,
    now: Duration,
    outputs: &mut Vec<Output>,
) {
    offers::refresh(world, settings, now);
    leave::time_out_peers(world, settings.silence, now);
    leave::remove_departed(world, settings.return_window, now);
    leave::remove_unclustered(world, now);
    transitions::run(world, &mut scratch.fragments, now);
    world.spatial.reorder_memory();
    let evaluated = evaluate_islands(world, rebalances, scratch);
    emit::emit_opened(world, outputs);
    placement::run(world, settings.move_interval, now, outputs);
    emit::emit_changes(world, &mut scratch.names, now, outputs);
    leave::expire_grace(world, now);
    emit::emit_closed(world, outputs);
    world.finish_changes(evaluated);
}

/// The phases that decide which peers share an island. Returns the changes that they evaluated.
fn evaluate_islands(world: &mut World, rebalances: bool, scratch: &mut Scratch) -> Evaluated {
    let mut evaluated = world.changes.take();
    let Evaluated { dirty, moved, move_origins, joining } = &mut evaluated;
    let Scratch { active, fragments, neighbours, movers, near, split, merge, rebalance, .. } = scratch;
    joining.retain(|&peer| world.is_placeable(peer));
    world.sort_by_locality(dirty);
    active.clear();
    connectivity::run(world, moved, move_origins, movers, near);
    split::run(world, dirty, fragments, split);
    neighbours::run(world, dirty, movers, neighbours, active);
    rejoin::run(world, joining, active);
    merge::run(world, active, neighbours, merge);
    join::place_fragments(world, fragments, merge);
    join::place_new_peers(world, joining, merge);
    if rebalances {
        // After a resume the islands of crowds stay as they were assigned, except where a change is
        // required: a full rebalance might find improvements and move peers that did not move.
        let restored = std::mem::take(&mut world.changes.restored);
        rebalance::run(world, if restored { &[] } else { active }, neighbours, rebalance);
    }
    evaluated
}
