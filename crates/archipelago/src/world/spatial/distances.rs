//! The distances that apply in each zone, and between two zones.

use super::member::Member;
use crate::{
    ids::{AreaIndex, ZoneIndex},
    index_vec::IndexVec,
};

/// The distances that apply between peers of a zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ZoneDistances {
    /// Only peers of zones with the same enclosure may share an island; `None`, for no enclosure, is
    /// one of the values.
    pub(crate) enclosure: Option<AreaIndex>,
    pub(crate) join_m: f32,
    pub(crate) leave_m: f32,
}

/// The distances of every zone, by index. Between two zones the smaller distance applies.
#[derive(Debug, Clone, Default)]
pub(crate) struct DistanceTable(IndexVec<ZoneIndex, SquaredDistances>);

#[derive(Debug, Clone, Copy)]
struct SquaredDistances {
    enclosure: Option<AreaIndex>,
    join: f32,
    leave: f32,
}

/// Less than every squared distance.
const NEVER: f32 = -1.0;

impl DistanceTable {
    /// Sets the distances of a zone: of an existing one or of the next.
    pub(crate) fn set(&mut self, zone: ZoneIndex, distances: ZoneDistances) {
        let ZoneDistances { enclosure, join_m, leave_m } = distances;
        let squares = SquaredDistances { enclosure, join: join_m * join_m, leave: leave_m * leave_m };
        self.0.set_or_push(zone, squares);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether two members of an island are within the leave distance of each other, so that they stay
    /// in one island without others between them.
    pub(crate) fn are_within_leave_distance(&self, one: &Member, other: &Member) -> bool {
        one.at.distance_squared(other.at) <= self.leave_squared(one.traits.zone(), other.traits.zone())
    }

    /// The square of the leave distance between peers of this member's zone.
    pub(crate) fn own_leave_squared(&self, member: &Member) -> f32 {
        self.leave_squared(member.traits.zone(), member.traits.zone())
    }

    /// The square of the leave distance if there is one zone only.
    pub(crate) fn uniform_leave_squared(&self) -> Option<f32> {
        (self.0.len() == 1).then(|| self.0[ZoneIndex::OPEN].leave)
    }

    pub(crate) fn enclosure(&self, zone: ZoneIndex) -> Option<AreaIndex> {
        self.0[zone].enclosure
    }

    /// The square of the join distance between peers of two zones; negative if they may never share an
    /// island.
    pub(crate) fn join_squared(&self, one: ZoneIndex, other: ZoneIndex) -> f32 {
        let a = &self.0[one];
        if one == other {
            return a.join;
        }
        let b = &self.0[other];
        if a.enclosure == b.enclosure { a.join.min(b.join) } else { NEVER }
    }

    /// The square of the leave distance between peers of two zones; negative if they may never share an
    /// island.
    pub(crate) fn leave_squared(&self, one: ZoneIndex, other: ZoneIndex) -> f32 {
        let a = &self.0[one];
        if one == other {
            return a.leave;
        }
        let b = &self.0[other];
        if a.enclosure == b.enclosure { a.leave.min(b.leave) } else { NEVER }
    }
}
