//! Islands of which only a few members moved, and that hold together all the same.
//!
//! At the end of the last flush every island held together. It still does if all that were
//! neighbours then are connected now; and only those have to be looked at of whom one has moved.
//! That is seen from around the movers, without gathering the whole island. Where it is not, the
//! island is `doubtful`, and is looked at all over.

use crate::{
    engine::Engine,
    ground::{Member, Point},
};

/// An island of which fewer than one in so many moved is looked at through those who did.
pub(crate) const FEW: u32 = 8;

/// A member that moved since the last flush, and where it stood then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) island: u32,
    pub(crate) peer: u32,
    pub(crate) from: Point,
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

/// Marks the islands with few movers that may have fallen apart.
pub(super) fn run(engine: &mut Engine, steps: &mut [Step]) {
    steps.sort_unstable_by_key(|step| (step.island, step.peer));
    let mut near = std::mem::take(&mut engine.scratch.members);
    for movers in steps.chunk_by(|a, b| a.island == b.island) {
        let island = movers[0].island;
        if has_few_movers(engine, island) && !hold(engine, island, movers, &mut near) {
            engine.islands[island].doubtful = true;
        }
    }
    engine.scratch.members = near;
}

/// Whether everybody who was a neighbour of a mover is connected with it still, directly or through
/// one other member.
fn hold(engine: &Engine, island: u32, movers: &[Step], near: &mut Vec<Member>) -> bool {
    let squared = engine.settings.leave_distance_m * engine.settings.leave_distance_m;
    movers.iter().enumerate().all(|(index, mover)| {
        let to = engine.ground.spot(mover.peer);
        near.clear();
        engine.ground.gather_around(island, mover.from, near);
        let meet = |other: Point| {
            let joins = |member: &Member| {
                member.at.distance_squared(to) <= squared && member.at.distance_squared(other) <= squared
            };
            to.distance_squared(other) <= squared || near.iter().any(joins)
        };
        let moved = |peer: u32| movers.iter().any(|step| step.peer == peer);
        let others_hold = near.iter().all(|member| {
            member.at.distance_squared(mover.from) > squared || meet(member.at) || moved(member.peer)
        });
        others_hold
            && movers[index + 1..].iter().all(|other| {
                other.from.distance_squared(mover.from) > squared || meet(engine.ground.spot(other.peer))
            })
    })
}
