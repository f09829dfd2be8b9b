use std::cmp::{Ordering, Reverse};

use crate::{engine::Engine, ids::Serial, spatial::Member};

/// Merges islands that are near each other and fit together, in the order of those given.
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
        // It has swallowed one that nobody had looked at.
        if engine.islands[survivor].dirty {
            queue.push(survivor);
        }
    }
}

/// Whether an island that fits may be near; not, if all that are near are known and none does.
fn may_have_partner(engine: &Engine, island: u32) -> bool {
    match engine.scratch.neighbours.get(island) {
        Some(contacts) if !engine.islands[island].members_changed => {
            contacts.iter().any(|&contact| engine.can_merge(island, contact))
        }
        _ => true,
    }
}

/// Merges an island with those near it. Returns the island that its members are in then.
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

/// Merges an island with those of `found` that it fits with, the best first, until none fits.
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

/// Of several islands that could be joined, the one to try first: one that is `preferred`, then the
/// one whose centre is nearest, then the larger, then the older.
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
        let by_wish = preferred(b).cmp(&preferred(a));
        by_wish.then(a_squared.total_cmp(&b_squared)).then((a_size, a_age).cmp(&(b_size, b_age)))
    };
    candidates.iter().copied().min_by(compare)
}

/// Whether a member of the one would like to be in the other.
fn is_preferred_merge(engine: &Engine, one: u32, other: u32) -> bool {
    let would = |from: u32, to: Serial| {
        engine.spatial.members(from).any(|Member { peer, .. }| prefers_island(engine, peer, to))
    };
    !engine.preferred_island.is_empty()
        && (would(one, engine.islands[other].serial) || would(other, engine.islands[one].serial))
}

/// Whether a peer would like to be in the island with this serial.
pub(super) fn prefers_island(engine: &Engine, peer: u32, island: Serial) -> bool {
    island != Serial::NONE && engine.preferred_island.get(&peer) == Some(&island)
}

/// Makes one island of two. The larger survives, then the older.
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
