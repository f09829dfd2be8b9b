//! Adds peers to islands: reconnected peers to the island that they were in, then fragments of split
//! islands, then new peers.

use crate::{
    engine::Engine, flush::merge, islands::IslandState, peers::PeerState, reconnect_grace::LastIsland,
    slab::NONE, spatial::Member,
};

/// Puts reconnected peers back into the island that they were in: if it has room and a member within
/// the leave distance, or if it is empty and the peer is within the leave distance of the position at
/// which it left. A peer that rejoins may connect the next one to the island, so the loop repeats until
/// no further peer can rejoin.
///
/// Appends the islands that were rejoined to `active`.
pub(super) fn rejoin(engine: &mut Engine, arrivals: &[u32], active: &mut Vec<u32>) {
    let mut returning: Vec<(u32, LastIsland)> = Vec::new();
    for &peer in arrivals {
        if engine.peers[peer].state == PeerState::Present {
            returning.extend(engine.reconnect_grace.take(peer).map(|last| (peer, last)));
        }
    }
    let mut remaining = usize::MAX;
    while returning.len() < remaining {
        remaining = returning.len();
        returning.retain(|&(peer, last)| match rejoin_island(engine, peer, last) {
            Some(island) => {
                engine.islands.set_state(island, IslandState::Populated);
                engine.add_member(peer, island);
                engine.islands[island].dirty = true;
                active.push(island);
                false
            }
            None => true,
        });
    }
}

/// The island that a reconnected peer may rejoin, if any.
fn rejoin_island(engine: &Engine, peer: u32, last: LastIsland) -> Option<u32> {
    let island = engine.islands.find(last.island)?;
    let Member { at, traits, .. } = engine.spatial.member(peer);
    let zone = traits.zone();
    let near = match engine.islands[island].state {
        IslandState::Populated => engine.spatial.is_within_leave_distance(island, at, zone),
        IslandState::Empty => {
            last.at.distance_squared(at) <= engine.spatial.distances.leave_squared(zone, zone)
        }
        IslandState::Closed => false,
    };
    (near && engine.spatial.size(island) < engine.size_limit_with(island, peer)).then_some(island)
}

/// Places the fragments of split islands: each gets an island of its own, which then merges with others
/// if it can.
pub(super) fn place_fragments(engine: &mut Engine) {
    transition_single_fragments(engine);
    let mut fragments = std::mem::take(&mut engine.scratch.fragments);
    let mut start = 0;
    for &end in &fragments.ends {
        place_group(engine, &fragments.peers[start..end]);
        start = end;
    }
    fragments.peers.clear();
    fragments.ends.clear();
    engine.scratch.fragments = fragments;
}

/// A fragment of one peer counts for the zone at its position at once: it has no neighbours, so it
/// cannot alternate between islands at the border.
fn transition_single_fragments(engine: &mut Engine) {
    let fragments = std::mem::take(&mut engine.scratch.fragments);
    let mut start = 0;
    for &end in &fragments.ends {
        if let &[peer] = &fragments.peers[std::mem::replace(&mut start, end)..end]
            && let Some(transition) = engine.zone_transitions.get(peer)
        {
            engine.set_zone(peer, transition.to);
        }
    }
    engine.scratch.fragments = fragments;
}

/// Places the peers that are in no island yet, in the order in which they arrived.
pub(super) fn place_new_peers(engine: &mut Engine, arrivals: &[u32]) {
    for &peer in arrivals {
        if engine.peers[peer].state == PeerState::Present && engine.spatial.island_of(peer) == NONE {
            place_peer(engine, peer);
        }
    }
}

fn place_group(engine: &mut Engine, group: &[u32]) {
    if let &[peer] = group {
        return place_peer(engine, peer);
    }
    let island = engine.open_island();
    group.iter().for_each(|&peer| engine.add_member(peer, island));
    merge::merge_with_neighbours(engine, island);
}

/// Adds a peer to the best of the islands near it that have room. It may connect that island to others,
/// which then merge. Without a candidate the peer gets an island of its own.
fn place_peer(engine: &mut Engine, peer: u32) {
    let Member { at, traits, .. } = engine.spatial.member(peer);
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    engine.spatial.islands_near_point(at, traits.zone(), u32::MAX, &mut found);
    found.retain(|&island| engine.spatial.size(island) < engine.size_limit_with(island, peer));
    let centre = (f64::from(at.x), f64::from(at.z));
    let preferred = |island: u32| merge::prefers_island(engine, peer, engine.islands[island].serial);
    match merge::best_candidate(engine, centre, preferred, &found) {
        Some(island) => {
            engine.add_member(peer, island);
            merge::merge_with_candidates(engine, island, &mut found);
        }
        None => {
            let island = engine.open_island();
            engine.add_member(peer, island);
        }
    }
    engine.scratch.found = found;
}
