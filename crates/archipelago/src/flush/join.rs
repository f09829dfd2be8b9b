//! Adds peers to islands: fragments of split islands, then new peers.

use super::{merge, partition::Fragments};
use crate::{
    ids::{IslandIndex, PeerIndex},
    world::{Member, PeerState, World},
};

/// Places the fragments of split islands: each gets an island of its own, which then merges with others
/// if it can.
pub(super) fn place_fragments(world: &mut World, fragments: &mut Fragments, scratch: &mut merge::Scratch) {
    transition_single_fragments(world, fragments);
    for group in fragments.groups() {
        place_group(world, group, scratch);
    }
    fragments.clear();
}

/// A fragment of one peer counts for the zone at its position at once: it has no neighbours, so it
/// cannot alternate between islands at the border.
fn transition_single_fragments(world: &mut World, fragments: &Fragments) {
    for group in fragments.groups() {
        if let &[peer] = group
            && let Some(transition) = world.zone_transitions.get(peer)
        {
            world.set_zone(peer, transition.to);
        }
    }
}

/// Places the peers that are in no island yet, in the order in which they arrived.
pub(super) fn place_new_peers(world: &mut World, arrivals: &[PeerIndex], scratch: &mut merge::Scratch) {
    for &peer in arrivals {
        if world.peers[peer].state == PeerState::Present && world.spatial.island_of(peer).is_none() {
            place_peer(world, peer, scratch);
        }
    }
}

fn place_group(world: &mut World, group: &[PeerIndex], scratch: &mut merge::Scratch) {
    if let &[peer] = group {
        return place_peer(world, peer, scratch);
    }
    let island = world.open_island();
    group.iter().for_each(|&peer| world.add_member(peer, island));
    merge::merge_with_neighbours(world, island, scratch);
}

/// Adds a peer to the best of the islands near it that have room. It may connect that island to others,
/// which then merge. Without a candidate the peer gets an island of its own.
fn place_peer(world: &mut World, peer: PeerIndex, scratch: &mut merge::Scratch) {
    let Member { at, traits, .. } = world.spatial.member(peer);
    let found = &mut scratch.found;
    found.clear();
    world.spatial.islands_near_point(at, traits.zone(), u32::MAX, found);
    found.retain(|&island| world.spatial.size(island) < world.size_limit_with(island, peer));
    let centre = (f64::from(at.x), f64::from(at.z));
    let preferred = |island: IslandIndex| merge::prefers_island(world, peer, world.islands[island].serial);
    match merge::best_candidate(world, centre, preferred, found) {
        Some(island) => {
            world.add_member(peer, island);
            merge::merge_with_candidates(world, island, scratch);
        }
        None => {
            let island = world.open_island();
            world.add_member(peer, island);
        }
    }
}
