//! What holds for a peer besides its place.

use super::Member;
use crate::slab::NONE;

/// The zone that a peer is counted to, and the transports that its client can join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PeerTraits(u32);

/// Which transports a client can join, or all of several clients: a bit for each capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Capabilities(pub(crate) u8);

/// How many capabilities are told apart.
pub(crate) const MAX_CAPABILITIES: usize = 8;
/// How many zones are told apart.
pub(crate) const MAX_ZONES: usize = 1 << 24;

impl PeerTraits {
    pub(crate) fn new(zone: u32, capabilities: Capabilities) -> Self {
        Self(zone << 8 | u32::from(capabilities.0))
    }

    pub(crate) fn zone(self) -> u32 {
        self.0 >> 8
    }

    pub(crate) fn capabilities(self) -> Capabilities {
        Capabilities(self.0 as u8)
    }
}

impl Capabilities {
    pub(crate) const ALL: Self = Self(u8::MAX);

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it has all of the others.
    pub(crate) fn contains_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The places of the bits that are not set.
    pub(super) fn missing_bits(self) -> impl Iterator<Item = usize> {
        let mut missing = !self.0;
        std::iter::from_fn(move || {
            let place = missing.trailing_zeros() as usize;
            // Of no bit, the lowest taken away is no bit.
            missing &= missing.wrapping_sub(1);
            (place < MAX_CAPABILITIES).then_some(place)
        })
    }
}

/// How far people of a zone reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ZoneDistances {
    /// Only people of zones with the same are ever together; `NONE` is one of them.
    pub(crate) enclosure: u32,
    pub(crate) join_m: f32,
    pub(crate) leave_m: f32,
}

/// The reach of every zone, by number. Between two of them the smaller distance holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct DistanceTable(Vec<SquaredDistances>);

#[derive(Debug, Clone, Copy)]
struct SquaredDistances {
    enclosure: u32,
    join: f32,
    leave: f32,
}

/// No distance is as small.
const NEVER: f32 = -1.0;

impl DistanceTable {
    /// Sets the reach of a zone: one of those that are there, or the next.
    pub(crate) fn set(&mut self, zone: u32, reach: ZoneDistances) {
        let ZoneDistances { enclosure, join_m, leave_m } = reach;
        let squares = SquaredDistances { enclosure, join: join_m * join_m, leave: leave_m * leave_m };
        match self.0.get_mut(zone as usize) {
            Some(place) => *place = squares,
            None => self.0.push(squares),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether two who are of one island stay together by themselves: they are within the leave
    /// distance of each other.
    pub(crate) fn are_within_leave_distance(&self, one: &Member, other: &Member) -> bool {
        one.at.distance_squared(other.at) <= self.leave_squared(one.traits.zone(), other.traits.zone())
    }

    /// The square of the distance beyond which people of somebody's own zone part.
    pub(crate) fn own_leave_squared(&self, member: &Member) -> f32 {
        self.leave_squared(member.traits.zone(), member.traits.zone())
    }

    /// The square of the leave distance, if there is one zone.
    pub(crate) fn uniform_leave_squared(&self) -> Option<f32> {
        let &[squares] = &self.0[..] else { return None };
        Some(squares.leave)
    }

    pub(crate) fn enclosure(&self, zone: u32) -> u32 {
        self.0[zone as usize].enclosure
    }

    /// The square of the distance up to which people of two zones come together; negative if they
    /// never do.
    pub(crate) fn join_squared(&self, one: u32, other: u32) -> f32 {
        let a = &self.0[one as usize];
        if one == other {
            return a.join;
        }
        let b = &self.0[other as usize];
        if a.enclosure == b.enclosure { a.join.min(b.join) } else { NEVER }
    }

    /// The square of the distance beyond which people of two zones part; negative if they are never
    /// together.
    pub(crate) fn leave_squared(&self, one: u32, other: u32) -> f32 {
        let a = &self.0[one as usize];
        if one == other {
            return a.leave;
        }
        let b = &self.0[other as usize];
        if a.enclosure == b.enclosure { a.leave.min(b.leave) } else { NEVER }
    }
}

/// Members of more than one zone.
pub(super) const MIXED_ZONES: u32 = NONE;
