use crate::{
    engine::Engine, flush::merge, islands::IslandState, peers::PeerState, reconnect_grace::LastIsland,
    slab::NONE, spatial::Member,
};

/// Puts those who come back where they were: in their island if it still has room and a member near
/// enough, or has nobody and they are near the place that they left. Who comes back may be what
/// holds the next one to the island, so it goes on until nobody more can be put back.
///
/// Adds the islands that were returned to, to `active`.
pub(super) fn rejoin(engine: &mut Engine, arrivals: &[u32], active: &mut Vec<u32>) {
    let mut returning: Vec<(u32, LastIsland)> = Vec::new();
    for &peer in arrivals {
        if engine.peers[peer].state == PeerState::Present {
            returning.extend(engine.reconnect_grace.take(peer).map(|memory| (peer, memory)));
        }
    }
    let mut waiting = usize::MAX;
    while returning.len() < waiting {
        waiting = returning.len();
        returning.retain(|&(peer, memory)| match rejoin_island(engine, peer, memory) {
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

fn rejoin_island(engine: &Engine, peer: u32, memory: LastIsland) -> Option<u32> {
    let island = engine.islands.find(memory.island)?;
    let Member { at, traits: terms, .. } = engine.spatial.member(peer);
    let zone = terms.zone();
    let near = match engine.islands[island].state {
        IslandState::Populated => engine.spatial.is_within_leave_distance(island, at, zone),
        IslandState::Empty => {
            memory.at.distance_squared(at) <= engine.spatial.distances.leave_squared(zone, zone)
        }
        IslandState::Closed => false,
    };
    (near && engine.spatial.size(island) < engine.size_limit_with(island, peer)).then_some(island)
}

/// Places what was cut off, each group as an island of its own that then merges with others.
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

/// Who is cut off from all company is counted to where it stands at once.
fn transition_single_fragments(engine: &mut Engine) {
    let fragments = std::mem::take(&mut engine.scratch.fragments);
    let mut start = 0;
    for &end in &fragments.ends {
        if let &[peer] = &fragments.peers[std::mem::replace(&mut start, end)..end]
            && let Some(crossing) = engine.zone_transitions.get(peer)
        {
            engine.set_zone(peer, crossing.to);
        }
    }
    engine.scratch.fragments = fragments;
}

/// Places those who are new, in the order of their coming.
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

/// Places one peer: in the best of the islands near it that have room, which may bring that island
/// together with others.
fn place_peer(engine: &mut Engine, peer: u32) {
    let Member { at, traits: terms, .. } = engine.spatial.member(peer);
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    engine.spatial.islands_near_point(at, terms.zone(), u32::MAX, &mut found);
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
