//! Islands of which only a few members moved are looked at through their eyes.
//!
//! At the end of the last flush every island held together. It still does if all that were
//! neighbours then are connected now; and only those have to be looked at of whom one has moved.
//! That is seen from around the movers, without gathering the whole island. Where it is not, the
//! island is `doubtful`, and is looked at all over. What else is in sight of the movers is noted on
//! the way, for the survey.

use crate::{
    engine::Engine,
    spatial::{Member, Point},
};

/// An island of which fewer than one in so many moved is looked at through those who did.
const FEW_MOVERS_DIVISOR: u32 = 8;

/// Where somebody stood before it moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MoveOrigin {
    /// Who: its place in the list of those who moved.
    pub(crate) move_index: u32,
    pub(crate) island: u32,
    pub(crate) from: Point,
}

/// A mover in an island with few of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mover {
    pub(super) island: u32,
    pub(super) peer: u32,
    /// Its place in the list of those who moved.
    pub(super) move_index: u32,
    from: Point,
    /// Where in the list of what is in sight its part ends. It begins where that of the one before ends.
    nearby_end: u32,
}

/// All movers in islands with few of them, those of an island together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Movers {
    movers: Vec<Mover>,
    /// Islands within the join distance of each.
    nearby: Vec<u32>,
}

impl Movers {
    /// Each with the islands that were within the join distance before anything was cut.
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

/// Whether an island has the members of the last flush, and only a few of them moved.
pub(super) fn has_few_movers(engine: &Engine, island: u32) -> bool {
    let record = &engine.islands[island];
    !record.members_changed && are_few_movers(record.movers, engine.spatial.size(island))
}

/// Whether so many of so many members are a few.
pub(crate) fn are_few_movers(movers: u32, members: u32) -> bool {
    movers.saturating_mul(FEW_MOVERS_DIVISOR) < members
}

/// Looks around the movers of islands that have few, and marks those that may have fallen apart.
pub(super) fn run(engine: &mut Engine, moved: &[u32], steps: &[MoveOrigin]) {
    let mut found = std::mem::take(&mut engine.scratch.movers);
    let mut near = std::mem::take(&mut engine.scratch.members);
    found.nearby.clear();
    found.movers.clear();
    let relevant = steps.iter().filter(|step| has_few_movers(engine, step.island));
    found.movers.extend(relevant.map(|&MoveOrigin { move_index: turn, island, from }| {
        let peer = moved[turn as usize];
        Mover { island, peer, move_index: turn, from, nearby_end: 0 }
    }));
    found.movers.sort_unstable_by_key(|mover| (mover.island, mover.move_index));
    for movers in found.movers.chunk_by_mut(|a, b| a.island == b.island) {
        let island = movers[0].island;
        engine.islands[island].maybe_split = !is_still_connected(engine, island, movers, &mut near);
        for mover in movers {
            let Member { at, traits: terms, .. } = engine.spatial.member(mover.peer);
            engine.spatial.islands_near_point(at, terms.zone(), u32::MAX, &mut found.nearby);
            mover.nearby_end = found.nearby.len() as u32;
        }
    }
    engine.scratch.members = near;
    engine.scratch.movers = found;
}

/// Whether everybody who was a neighbour of a mover is connected with it still, directly or through
/// one other member.
fn is_still_connected(engine: &Engine, island: u32, movers: &[Mover], near: &mut Vec<Member>) -> bool {
    let reaches = &engine.spatial.distances;
    movers.iter().enumerate().all(|(index, mover)| {
        let mine = engine.spatial.member(mover.peer);
        let zone = mine.traits.zone();
        near.clear();
        engine.spatial.collect_members_near(island, mover.from, near);
        let meet = |other: &Member| {
            reaches.are_within_leave_distance(&mine, other)
                || near.iter().any(|member| {
                    reaches.are_within_leave_distance(member, &mine)
                        && reaches.are_within_leave_distance(member, other)
                })
        };
        let moved = |peer: u32| movers.iter().any(|mover| mover.peer == peer);
        let was_near =
            |at: Point, other: u32| at.distance_squared(mover.from) <= reaches.leave_squared(zone, other);
        let others_hold = near
            .iter()
            .all(|member| !was_near(member.at, member.traits.zone()) || meet(member) || moved(member.peer));
        others_hold
            && movers[index + 1..].iter().all(|other| {
                let theirs = engine.spatial.member(other.peer);
                !was_near(other.from, theirs.traits.zone()) || meet(&theirs)
            })
    })
}
