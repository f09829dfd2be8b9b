//! Incremental connectivity check: for an island with few movers, only the neighbourhoods of the movers
//! are examined.
//!
//! Every island was connected at the end of the last flush. It still is if every two members that were
//! neighbours then are connected now, and only pairs with a mover can have changed. So it suffices to
//! look around the position that each mover had, without collecting the whole island. Where a former
//! pair is not connected through at most one other member, the island is marked `maybe_split`, and the
//! split phase examines all of it. The islands near each mover are recorded on the way, for the
//! [neighbours](super::neighbours) phase.

use crate::{
    ids::{IslandIndex, MoveIndex, PeerIndex, ZoneIndex},
    index_vec::IndexVec,
    point::Point,
    world::{Member, MoveOrigin, World},
};

/// A member that moved, of an island with few movers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mover {
    pub(super) island: IslandIndex,
    pub(super) peer: PeerIndex,
    pub(super) move_index: MoveIndex,
    from: Point,
    /// The end of its range in [`Movers::nearby`]. The range begins at the end of the range before.
    nearby_end: u32,
}

/// All movers of islands with few of them, grouped by island.
#[derive(Debug, Clone, Default)]
pub(crate) struct Movers {
    movers: Vec<Mover>,
    /// The islands within the join distance of each mover, one range after the other.
    nearby: Vec<IslandIndex>,
}

impl Movers {
    /// Each mover with the islands that were within its join distance before the split phase.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Mover, &[IslandIndex])> {
        let mut start = 0;
        self.movers.iter().map(move |mover| {
            let end = mover.nearby_end as usize;
            (mover, &self.nearby[std::mem::replace(&mut start, end)..end])
        })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.movers.capacity() * size_of::<Mover>() + self.nearby.capacity() * size_of::<IslandIndex>()
    }
}

/// Checks the islands with few movers, and marks those that may be disconnected.
///
/// `moved` and `origins` are the members that moved since the last flush; `near` is a buffer.
pub(super) fn run(
    world: &mut World,
    moved: &IndexVec<MoveIndex, PeerIndex>,
    origins: &[MoveOrigin],
    movers: &mut Movers,
    near: &mut Vec<Member>,
) {
    let Movers { movers, nearby } = movers;
    nearby.clear();
    movers.clear();
    let relevant = origins.iter().filter(|origin| world.has_few_movers(origin.island));
    movers.extend(relevant.map(|&MoveOrigin { move_index, island, from }| {
        let peer = moved[move_index];
        Mover { island, peer, move_index, from, nearby_end: 0 }
    }));
    movers.sort_unstable_by_key(|mover| (mover.island, mover.move_index));
    for movers in movers.chunk_by_mut(|a, b| a.island == b.island) {
        let island = movers[0].island;
        world.islands[island].maybe_split = !is_still_connected(world, island, movers, near);
        for mover in movers {
            let Member { at, traits, .. } = world.spatial.member(mover.peer);
            world.spatial.islands_near_point(at, traits.zone(), u32::MAX, nearby);
            mover.nearby_end = nearby.len() as u32;
        }
    }
}

/// Whether every member that was a neighbour of a mover is still connected with it, directly or through
/// one other member.
fn is_still_connected(world: &World, island: IslandIndex, movers: &[Mover], near: &mut Vec<Member>) -> bool {
    let distances = &world.spatial.distances;
    movers.iter().enumerate().all(|(index, mover)| {
        let mine = world.spatial.member(mover.peer);
        let zone = mine.traits.zone();
        near.clear();
        world.spatial.collect_members_near(island, mover.from, near);
        let is_linked = |other: &Member| {
            distances.are_within_leave_distance(&mine, other)
                || near.iter().any(|member| {
                    distances.are_within_leave_distance(member, &mine)
                        && distances.are_within_leave_distance(member, other)
                })
        };
        let moved = |peer: PeerIndex| movers.iter().any(|mover| mover.peer == peer);
        let was_near = |at: Point, other: ZoneIndex| {
            at.distance_squared(mover.from) <= distances.leave_squared(zone, other)
        };
        let neighbours_linked = near.iter().all(|member| {
            !was_near(member.at, member.traits.zone()) || is_linked(member) || moved(member.peer)
        });
        neighbours_linked
            && movers[index + 1..].iter().all(|other| {
                let theirs = world.spatial.member(other.peer);
                !was_near(other.from, theirs.traits.zone()) || is_linked(&theirs)
            })
    })
}
