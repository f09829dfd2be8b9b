//! Merges islands that have members within the join distance of each other and together fit their size
//! limit.

use std::cmp::{Ordering, Reverse};

use crate::{engine::Engine, ids::Serial, spatial::Member};

/// Merges each of the given islands, in their order, with the islands near it that fit.
pub(super) fn run(engine: &mut Engine, islands: &[u32]) {
    let mut queue = islands.to_vec();
    let mut next = 0;
    while let Some(&island) = queue.get(next) {
        next += 1;
        if !engine.islands.is_populated(island) || !std::mem::take(&mut engine.islands[island].dirty) {
            continue;
        }
        if !may_have_partner(engine, island) {
            continue;
        }
        let survivor = merge_with_neighbours(engine, island);
        // The survivor absorbed an island that was not processed yet, and inherits its dirty mark.
        if engine.islands[survivor].dirty {
            queue.push(survivor);
        }
    }
}

/// Whether there may be an island near it to merge with. `false` only if all its neighbours are known
/// and none fits.
fn may_have_partner(engine: &Engine, island: u32) -> bool {
    match engine.scratch.neighbours.get(island) {
        Some(neighbours) if !engine.islands[island].members_changed => {
            neighbours.iter().any(|&neighbour| engine.can_merge(island, neighbour))
        }
        _ => true,
    }
}

/// Merges an island with the islands near it. Returns the surviving island.
pub(super) fn merge_with_neighbours(engine: &mut Engine, island: u32) -> u32 {
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    let room = engine.max_merge_size(island);
    if room > 0 {
        engine.spatial.islands_near_island(island, room, &mut found);
    }
    let survivor = merge_with_candidates(engine, island, &mut found);
    engine.scratch.found = found;
    survivor
}

/// Merges an island with the candidates in `found` that it can merge with, the best first, until none
/// is left. Returns the surviving island.
pub(super) fn merge_with_candidates(engine: &mut Engine, mut island: u32, found: &mut Vec<u32>) -> u32 {
    loop {
        found.retain(|&other| {
            other != island && engine.islands.is_populated(other) && engine.can_merge(island, other)
        });
        let centre = engine.spatial.centre(island);
        let Some(best) =
            best_candidate(engine, centre, |other| is_preferred_merge(engine, island, other), found)
        else {
            return island;
        };
        island = merge_two(engine, island, best);
    }
}

/// The best of several merge candidates: a `preferred` one first, then the one with the nearest centre,
/// then the larger, then the older.
pub(super) fn best_candidate(
    engine: &Engine,
    (x, z): (f64, f64),
    preferred: impl Fn(u32) -> bool,
    candidates: &[u32],
) -> Option<u32> {
    let rank = |island: u32| {
        let (centre_x, centre_z) = engine.spatial.centre(island);
        let squared = (centre_x - x).powi(2) + (centre_z - z).powi(2);
        (squared, Reverse(engine.spatial.size(island)), engine.islands[island].age)
    };
    let compare = |&a: &u32, &b: &u32| -> Ordering {
        let ((a_squared, a_size, a_age), (b_squared, b_size, b_age)) = (rank(a), rank(b));
        let by_preference = preferred(b).cmp(&preferred(a));
        by_preference.then(a_squared.total_cmp(&b_squared)).then((a_size, a_age).cmp(&(b_size, b_age)))
    };
    candidates.iter().copied().min_by(compare)
}

/// Whether a member of either island prefers the other.
fn is_preferred_merge(engine: &Engine, one: u32, other: u32) -> bool {
    let has_preference = |from: u32, to: Serial| {
        engine.spatial.members(from).any(|Member { peer, .. }| prefers_island(engine, peer, to))
    };
    !engine.preferred_island.is_empty()
        && (has_preference(one, engine.islands[other].serial)
            || has_preference(other, engine.islands[one].serial))
}

/// Whether a peer prefers the island with this serial.
pub(super) fn prefers_island(engine: &Engine, peer: u32, island: Serial) -> bool {
    island != Serial::NONE && engine.preferred_island.get(&peer) == Some(&island)
}

/// Merges two islands and returns the survivor: the larger, and of equal sizes the older.
pub(super) fn merge_two(engine: &mut Engine, one: u32, other: u32) -> u32 {
    let rank = |island: u32| (engine.spatial.size(island), Reverse(engine.islands[island].age));
    let (survivor, ended) = if rank(one) > rank(other) { (one, other) } else { (other, one) };
    let mut members = std::mem::take(&mut engine.scratch.members);
    members.clear();
    engine.spatial.collect_members(ended, &mut members);
    members.iter().for_each(|member| engine.queue_report(member.peer));
    engine.scratch.members = members;
    engine.spatial.merge_islands(ended, survivor);
    engine.mark_changed(survivor);
    engine.mark_changed(ended);
    engine.islands[survivor].dirty |= engine.islands[ended].dirty;
    engine.inherit_move_cooldown(ended, survivor);
    engine.close_island(ended);
    survivor
}
