//! Merges islands that have members within the join distance of each other and together fit their size
//! limit.

use std::cmp::{Ordering, Reverse};

use super::neighbours::IslandNeighbours;
use crate::{
    ids::{IslandIndex, PeerIndex},
    island_ids::Serial,
    world::{Member, World},
};

/// Buffers that merges reuse.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    /// The candidates of the present merge.
    pub(super) found: Vec<IslandIndex>,
    members: Vec<Member>,
}

impl Scratch {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.found.capacity() * size_of::<IslandIndex>() + self.members.capacity() * size_of::<Member>()
    }
}

/// Merges each of the given islands, in their order, with the islands near it that fit.
pub(super) fn run(
    world: &mut World,
    islands: &[IslandIndex],
    neighbours: &IslandNeighbours,
    scratch: &mut Scratch,
) {
    let mut queue = islands.to_vec();
    let mut next = 0;
    while let Some(&island) = queue.get(next) {
        next += 1;
        if !world.islands.is_populated(island) || !std::mem::take(&mut world.islands[island].dirty) {
            continue;
        }
        if !may_have_partner(world, island, neighbours) {
            continue;
        }
        let survivor = merge_with_neighbours(world, island, scratch);
        // The survivor absorbed an island that was not processed yet, and inherits its dirty mark.
        if world.islands[survivor].dirty {
            queue.push(survivor);
        }
    }
}

/// Whether there may be an island near it to merge with. `false` only if all its neighbours are known
/// and none fits.
fn may_have_partner(world: &World, island: IslandIndex, neighbours: &IslandNeighbours) -> bool {
    let known = neighbours.get(world, island);
    known.is_none_or(|neighbours| neighbours.iter().any(|&neighbour| world.can_merge(island, neighbour)))
}

/// Merges an island with the islands near it. Returns the surviving island.
pub(super) fn merge_with_neighbours(
    world: &mut World,
    island: IslandIndex,
    scratch: &mut Scratch,
) -> IslandIndex {
    scratch.found.clear();
    let room = world.max_merge_size(island);
    if room > 0 {
        world.spatial.islands_near_island(island, room, &mut scratch.found);
    }
    merge_with_candidates(world, island, scratch)
}

/// Merges an island with the candidates in `found` that it can merge with, the best first, until none
/// is left. Returns the surviving island.
pub(super) fn merge_with_candidates(
    world: &mut World,
    mut island: IslandIndex,
    scratch: &mut Scratch,
) -> IslandIndex {
    let Scratch { found, members } = scratch;
    loop {
        found.retain(|&other| {
            other != island && world.islands.is_populated(other) && world.can_merge(island, other)
        });
        let centre = world.spatial.centre(island);
        let Some(best) =
            best_candidate(world, centre, |other| is_preferred_merge(world, island, other), found)
        else {
            return island;
        };
        island = merge_two(world, island, best, members);
    }
}

/// The best of several merge candidates: a `preferred` one first, then the one with the nearest centre,
/// then the larger, then the older.
pub(super) fn best_candidate(
    world: &World,
    (x, z): (f64, f64),
    preferred: impl Fn(IslandIndex) -> bool,
    candidates: &[IslandIndex],
) -> Option<IslandIndex> {
    let rank = |island: IslandIndex| {
        let (centre_x, centre_z) = world.spatial.centre(island);
        let squared = (centre_x - x).powi(2) + (centre_z - z).powi(2);
        (squared, Reverse(world.spatial.size(island)), world.islands[island].age)
    };
    let compare = |&a: &IslandIndex, &b: &IslandIndex| -> Ordering {
        let ((a_squared, a_size, a_age), (b_squared, b_size, b_age)) = (rank(a), rank(b));
        let by_preference = preferred(b).cmp(&preferred(a));
        by_preference.then(a_squared.total_cmp(&b_squared)).then((a_size, a_age).cmp(&(b_size, b_age)))
    };
    candidates.iter().copied().min_by(compare)
}

/// Whether a member of either island prefers the other.
fn is_preferred_merge(world: &World, one: IslandIndex, other: IslandIndex) -> bool {
    let has_preference = |from: IslandIndex, to: Option<Serial>| {
        world.spatial.members(from).any(|Member { peer, .. }| prefers_island(world, peer, to))
    };
    !world.peers.preferred_island.is_empty()
        && (has_preference(one, world.islands[other].serial)
            || has_preference(other, world.islands[one].serial))
}

/// Whether a peer prefers the island with this serial.
pub(super) fn prefers_island(world: &World, peer: PeerIndex, island: Option<Serial>) -> bool {
    island.is_some() && world.peers.preferred_island.get(&peer) == island.as_ref()
}

/// Merges two islands and returns the survivor: the larger, and of equal sizes the older.
fn merge_two(
    world: &mut World,
    one: IslandIndex,
    other: IslandIndex,
    members: &mut Vec<Member>,
) -> IslandIndex {
    let rank = |island: IslandIndex| (world.spatial.size(island), Reverse(world.islands[island].age));
    let (survivor, ended) = if rank(one) > rank(other) { (one, other) } else { (other, one) };
    members.clear();
    world.spatial.collect_members(ended, members);
    members.iter().for_each(|member| world.queue_report(member.peer));
    world.spatial.merge_islands(ended, survivor);
    world.mark_changed(survivor);
    world.mark_changed(ended);
    world.islands[survivor].dirty |= world.islands[ended].dirty;
    world.islands.placements.inherit_move_cooldown(ended, survivor);
    world.close_island(ended);
    survivor
}
