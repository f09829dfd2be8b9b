use crate::{
    engine::Engine, flush::merge, ground::Member, islands::IslandState, peers::State, returns::Memory,
    slab::NONE,
};

/// Puts those who come back where they were: in their island if it still has room and a member near
/// enough, or has nobody and they are near the place that they left. Who comes back may be what
/// holds the next one to the island, so it goes on until nobody more can be put back.
///
/// Adds the islands that were returned to, to `active`.
pub(super) fn put_back(engine: &mut Engine, arrivals: &[u32], active: &mut Vec<u32>) {
    let mut returning: Vec<(u32, Memory)> = Vec::new();
    for &peer in arrivals {
        if engine.peers[peer].state == State::Present {
            returning.extend(engine.returns.recall(peer).map(|memory| (peer, memory)));
        }
    }
    let mut waiting = usize::MAX;
    while returning.len() < waiting {
        waiting = returning.len();
        returning.retain(|&(peer, memory)| match place_of_return(engine, peer, memory) {
            Some(island) => {
                engine.islands.set_state(island, IslandState::Inhabited);
                engine.put(peer, island);
                engine.islands[island].dirty = true;
                active.push(island);
                false
            }
            None => true,
        });
    }
}

fn place_of_return(engine: &Engine, peer: u32, memory: Memory) -> Option<u32> {
    let island = engine.islands.find(memory.island)?;
    let Member { at, terms, .. } = engine.ground.member(peer);
    let zone = terms.zone();
    let near = match engine.islands[island].state {
        IslandState::Inhabited => engine.ground.touches(island, at, zone),
        IslandState::Deserted => {
            memory.at.distance_squared(at) <= engine.ground.reaches.leave_squared(zone, zone)
        }
        IslandState::Closed => false,
    };
    (near && engine.ground.size(island) < engine.limit_with(island, peer)).then_some(island)
}

/// Places what was cut off, each group as an island of its own that then merges with others.
pub(super) fn place_fragments(engine: &mut Engine) {
    count_where_they_stand(engine);
    let mut fragments = std::mem::take(&mut engine.scratch.fragments);
    let mut start = 0;
    for &end in &fragments.ends {
        place(engine, &fragments.peers[start..end]);
        start = end;
    }
    fragments.peers.clear();
    fragments.ends.clear();
    engine.scratch.fragments = fragments;
}

/// Who is cut off from all company is counted to where it stands at once.
fn count_where_they_stand(engine: &mut Engine) {
    let fragments = std::mem::take(&mut engine.scratch.fragments);
    let mut start = 0;
    for &end in &fragments.ends {
        if let &[peer] = &fragments.peers[std::mem::replace(&mut start, end)..end]
            && let Some(crossing) = engine.crossings.of(peer)
        {
            engine.set_zone(peer, crossing.to);
        }
    }
    engine.scratch.fragments = fragments;
}

/// Places those who are new, in the order of their coming.
pub(super) fn place_newcomers(engine: &mut Engine, arrivals: &[u32]) {
    for &peer in arrivals {
        if engine.peers[peer].state == State::Present && engine.ground.island_of(peer) == NONE {
            place_one(engine, peer);
        }
    }
}

fn place(engine: &mut Engine, group: &[u32]) {
    if let &[peer] = group {
        return place_one(engine, peer);
    }
    let island = engine.open_island();
    group.iter().for_each(|&peer| engine.put(peer, island));
    merge::with_neighbours(engine, island);
}

/// Places one peer: in the best of the islands near it that have room, which may bring that island
/// together with others.
fn place_one(engine: &mut Engine, peer: u32) {
    let Member { at, terms, .. } = engine.ground.member(peer);
    let mut found = std::mem::take(&mut engine.scratch.found);
    found.clear();
    engine.ground.touching_point(at, terms.zone(), u32::MAX, &mut found);
    found.retain(|&island| engine.ground.size(island) < engine.limit_with(island, peer));
    let centre = (f64::from(at.x), f64::from(at.z));
    let preferred = |island: u32| merge::would_like(engine, peer, engine.islands[island].serial);
    match merge::best(engine, centre, preferred, &found) {
        Some(island) => {
            engine.put(peer, island);
            merge::among(engine, island, &mut found);
        }
        None => {
            let island = engine.open_island();
            engine.put(peer, island);
        }
    }
    engine.scratch.found = found;
}
