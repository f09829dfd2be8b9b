//! Islands of which only a few members moved are looked at through their eyes.
//!
//! At the end of the last flush every island held together. It still does if all that were
//! neighbours then are connected now; and only those have to be looked at of whom one has moved.
//! That is seen from around the movers, without gathering the whole island. Where it is not, the
//! island is `doubtful`, and is looked at all over. What else is in sight of the movers is noted on
//! the way, for the survey.

use crate::{
    engine::Engine,
    ground::{Member, Point},
};

/// An island of which fewer than one in so many moved is looked at through those who did.
const FEW: u32 = 8;

/// Where somebody stood before it moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Who: its place in the list of those who moved.
    pub(crate) turn: u32,
    pub(crate) island: u32,
    pub(crate) from: Point,
}

/// A mover in an island with few of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mover {
    pub(super) island: u32,
    pub(super) peer: u32,
    /// Its place in the list of those who moved.
    pub(super) turn: u32,
    from: Point,
    /// Where in the list of what is in sight its part ends. It begins where that of the one before ends.
    in_sight_end: u32,
}

/// All movers in islands with few of them, those of an island together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Movers {
    movers: Vec<Mover>,
    /// Islands within the join distance of each.
    in_sight: Vec<u32>,
}

impl Movers {
    /// Each with the islands that were within the join distance before anything was cut.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Mover, &[u32])> {
        let mut start = 0;
        self.movers.iter().map(move |mover| {
            let end = mover.in_sight_end as usize;
            (mover, &self.in_sight[std::mem::replace(&mut start, end)..end])
        })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.movers.capacity() * size_of::<Mover>() + self.in_sight.capacity() * size_of::<u32>()
    }
}

/// Whether an island has the members of the last flush, and only a few of them moved.
pub(super) fn has_few_movers(engine: &Engine, island: u32) -> bool {
    let record = &engine.islands[island];
    !record.changed && is_few(record.movers, engine.ground.size(island))
}

/// Whether so many of so many members are a few.
pub(crate) fn is_few(movers: u32, members: u32) -> bool {
    movers.saturating_mul(FEW) < members
}

/// Looks around the movers of islands that have few, and marks those that may have fallen apart.
pub(super) fn run(engine: &mut Engine, moved: &[u32], steps: &[Step]) {
    let mut found = std::mem::take(&mut engine.scratch.movers);
    let mut near = std::mem::take(&mut engine.scratch.members);
    found.in_sight.clear();
    found.movers.clear();
    let relevant = steps.iter().filter(|step| has_few_movers(engine, step.island));
    found.movers.extend(relevant.map(|&Step { turn, island, from }| {
        let peer = moved[turn as usize];
        Mover { island, peer, turn, from, in_sight_end: 0 }
    }));
    found.movers.sort_unstable_by_key(|mover| (mover.island, mover.turn));
    for movers in found.movers.chunk_by_mut(|a, b| a.island == b.island) {
        let island = movers[0].island;
        engine.islands[island].doubtful = !hold(engine, island, movers, &mut near);
        for mover in movers {
            let Member { at, terms, .. } = engine.ground.member(mover.peer);
            engine.ground.touching_point(at, terms.zone(), u32::MAX, &mut found.in_sight);
            mover.in_sight_end = found.in_sight.len() as u32;
        }
    }
    engine.scratch.members = near;
    engine.scratch.movers = found;
}

/// Whether everybody who was a neighbour of a mover is connected with it still, directly or through
/// one other member.
fn hold(engine: &Engine, island: u32, movers: &[Mover], near: &mut Vec<Member>) -> bool {
    let reaches = &engine.ground.reaches;
    movers.iter().enumerate().all(|(index, mover)| {
        let mine = engine.ground.member(mover.peer);
        let zone = mine.terms.zone();
        near.clear();
        engine.ground.gather_around(island, mover.from, near);
        let meet = |other: &Member| {
            reaches.hold(&mine, other)
                || near.iter().any(|member| reaches.hold(member, &mine) && reaches.hold(member, other))
        };
        let moved = |peer: u32| movers.iter().any(|mover| mover.peer == peer);
        let was_near =
            |at: Point, other: u32| at.distance_squared(mover.from) <= reaches.leave_squared(zone, other);
        let others_hold = near
            .iter()
            .all(|member| !was_near(member.at, member.terms.zone()) || meet(member) || moved(member.peer));
        others_hold
            && movers[index + 1..].iter().all(|other| {
                let theirs = engine.ground.member(other.peer);
                !was_near(other.from, theirs.terms.zone()) || meet(&theirs)
            })
    })
}
