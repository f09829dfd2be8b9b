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
    engine::Engine,
    spatial::{Member, Point},
};

/// An island has few movers if fewer than one in this many of its members moved.
const FEW_MOVERS_DIVISOR: u32 = 8;

/// The position of a member before it moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MoveOrigin {
    /// Identifies the peer: its index in the list of peers that moved.
    pub(crate) move_index: u32,
    pub(crate) island: u32,
    pub(crate) from: Point,
}

/// A member that moved, of an island with few movers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mover {
    pub(super) island: u32,
    pub(super) peer: u32,
    /// Its index in the list of peers that moved.
    pub(super) move_index: u32,
    from: Point,
    /// The end of its range in [`Movers::nearby`]. The range begins at the end of the range before.
    nearby_end: u32,
}

/// All movers of islands with few of them, grouped by island.
#[derive(Debug, Clone, Default)]
pub(crate) struct Movers {
    movers: Vec<Mover>,
    /// The islands within the join distance of each mover, one range after the other.
    nearby: Vec<u32>,
}

impl Movers {
    /// Each mover with the islands that were within its join distance before the split phase.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Mover, &[u32])> {
        let mut start = 0;
        self.movers.iter().map(move |mover| {
            let end = mover.nearby_end as usize;
            (mover, &self.nearby[std::mem::replace(&mut start, end)..end])
        })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.movers.capacity() * size_of::<Mover>() + self.nearby.capacity() * size_of::<u32>()
    }
}

/// Whether an island has the same members as after the last flush, and few of them moved.
pub(super) fn has_few_movers(engine: &Engine, island: u32) -> bool {
    let record = &engine.islands[island];
    !record.members_changed && are_few_movers(record.movers, engine.spatial.size(island))
}

/// Whether fewer than one in [`FEW_MOVERS_DIVISOR`] of `members` moved.
pub(crate) fn are_few_movers(movers: u32, members: u32) -> bool {
    movers.saturating_mul(FEW_MOVERS_DIVISOR) < members
}

/// Checks the islands with few movers, and marks those that may be disconnected.
pub(super) fn run(engine: &mut Engine, moved: &[u32], origins: &[MoveOrigin]) {
    let mut found = std::mem::take(&mut engine.scratch.movers);
    let mut near = std::mem::take(&mut engine.scratch.members);
    found.nearby.clear();
    found.movers.clear();
    let relevant = origins.iter().filter(|origin| has_few_movers(engine, origin.island));
    found.movers.extend(relevant.map(|&MoveOrigin { move_index, island, from }| {
        let peer = moved[move_index as usize];
        Mover { island, peer, move_index, from, nearby_end: 0 }
    }));
    found.movers.sort_unstable_by_key(|mover| (mover.island, mover.move_index));
    for movers in found.movers.chunk_by_mut(|a, b| a.island == b.island) {
        let island = movers[0].island;
        engine.islands[island].maybe_split = !is_still_connected(engine, island, movers, &mut near);
        for mover in movers {
            let Member { at, traits, .. } = engine.spatial.member(mover.peer);
            engine.spatial.islands_near_point(at, traits.zone(), u32::MAX, &mut found.nearby);
            mover.nearby_end = found.nearby.len() as u32;
        }
    }
    engine.scratch.members = near;
    engine.scratch.movers = found;
}

/// Whether every member that was a neighbour of a mover is still connected with it, directly or through
/// one other member.
fn is_still_connected(engine: &Engine, island: u32, movers: &[Mover], near: &mut Vec<Member>) -> bool {
    let distances = &engine.spatial.distances;
    movers.iter().enumerate().all(|(index, mover)| {
        let mine = engine.spatial.member(mover.peer);
        let zone = mine.traits.zone();
        near.clear();
        engine.spatial.collect_members_near(island, mover.from, near);
        let is_linked = |other: &Member| {
            distances.are_within_leave_distance(&mine, other)
                || near.iter().any(|member| {
                    distances.are_within_leave_distance(member, &mine)
                        && distances.are_within_leave_distance(member, other)
                })
        };
        let moved = |peer: u32| movers.iter().any(|mover| mover.peer == peer);
        let was_near =
            |at: Point, other: u32| at.distance_squared(mover.from) <= distances.leave_squared(zone, other);
        let neighbours_linked = near.iter().all(|member| {
            !was_near(member.at, member.traits.zone()) || is_linked(member) || moved(member.peer)
        });
        neighbours_linked
            && movers[index + 1..].iter().all(|other| {
                let theirs = engine.spatial.member(other.peer);
                !was_near(other.from, theirs.traits.zone()) || is_linked(&theirs)
            })
    })
}
