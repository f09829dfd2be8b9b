//! Puts peers that reconnected back into the island that they were in.

use crate::{
    ids::{IslandIndex, PeerIndex},
    world::{IslandState, LastIsland, Member, PeerState, World},
};

/// Puts reconnected peers back into the island that they were in: if it has room and a member within
/// the leave distance, or if it is empty and the peer is within the leave distance of the position at
/// which it left. A peer that rejoins may connect the next one to the island, so the loop repeats until
/// no further peer can rejoin.
///
/// Appends the islands that were rejoined to `active`.
pub(super) fn run(world: &mut World, arrivals: &[PeerIndex], active: &mut Vec<IslandIndex>) {
    let mut returning: Vec<(PeerIndex, LastIsland)> = Vec::new();
    for &peer in arrivals {
        if world.peers[peer].state == PeerState::Present {
            returning.extend(world.peers.reconnect_grace.take(peer).map(|last| (peer, last)));
        }
    }
    let mut remaining = usize::MAX;
    while returning.len() < remaining {
        remaining = returning.len();
        returning.retain(|&(peer, last)| match rejoin_island(world, peer, last) {
            Some(island) => {
                world.islands.set_state(island, IslandState::Populated);
                world.add_member(peer, island);
                world.islands[island].dirty = true;
                active.push(island);
                false
            }
            None => true,
        });
    }
}

/// The island that a reconnected peer may rejoin, if any.
fn rejoin_island(world: &World, peer: PeerIndex, last: LastIsland) -> Option<IslandIndex> {
    let island = world.islands.find(last.island?)?;
    let Member { at, traits, .. } = world.spatial.member(peer);
    let zone = traits.zone();
    let near = match world.islands[island].state {
        IslandState::Populated => world.spatial.is_within_leave_distance(island, at, zone),
        IslandState::Empty => {
            last.at.distance_squared(at) <= world.spatial.distances.leave_squared(zone, zone)
        }
        IslandState::Closed => false,
    };
    (near && world.spatial.size(island) < world.size_limit_with(island, peer)).then_some(island)
}
