//! What the engine needs to know of a peer besides its position: its zone and its capabilities; and the
//! distances that apply in each zone.

use super::Member;
use crate::slab::NONE;

/// The zone of a peer (after the settling time at a border) in the upper 24 bits, and the transports
/// that its client can join in the lower 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PeerTraits(u32);

/// A bit set of the transports that a client can join, or that several clients can all join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Capabilities(pub(crate) u8);

/// The greatest number of distinct capabilities.
pub(crate) const MAX_CAPABILITIES: usize = 8;
/// The greatest number of zones.
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

    /// Whether it has all capabilities of `others`.
    pub(crate) fn contains_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The indexes of the bits that are not set.
    pub(super) fn missing_bits(self) -> impl Iterator<Item = usize> {
        let mut missing = !self.0;
        std::iter::from_fn(move || {
            let bit = missing.trailing_zeros() as usize;
            // Clears the lowest set bit; zero stays zero.
            missing &= missing.wrapping_sub(1);
            (bit < MAX_CAPABILITIES).then_some(bit)
        })
    }
}

/// The distances that apply between peers of a zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ZoneDistances {
    /// Only peers of zones with the same enclosure may share an island; `NONE`, for no enclosure, is
    /// one of the values.
    pub(crate) enclosure: u32,
    pub(crate) join_m: f32,
    pub(crate) leave_m: f32,
}

/// The distances of every zone, by number. Between two zones the smaller distance applies.
#[derive(Debug, Clone, Default)]
pub(crate) struct DistanceTable(Vec<SquaredDistances>);

#[derive(Debug, Clone, Copy)]
struct SquaredDistances {
    enclosure: u32,
    join: f32,
    leave: f32,
}

/// Less than every squared distance.
const NEVER: f32 = -1.0;

impl DistanceTable {
    /// Sets the distances of a zone: of an existing one or of the next number.
    pub(crate) fn set(&mut self, zone: u32, distances: ZoneDistances) {
        let ZoneDistances { enclosure, join_m, leave_m } = distances;
        let squares = SquaredDistances { enclosure, join: join_m * join_m, leave: leave_m * leave_m };
        match self.0.get_mut(zone as usize) {
            Some(entry) => *entry = squares,
            None => self.0.push(squares),
        }
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
        let &[squares] = &self.0[..] else { return None };
        Some(squares.leave)
    }

    pub(crate) fn enclosure(&self, zone: u32) -> u32 {
        self.0[zone as usize].enclosure
    }

    /// The square of the join distance between peers of two zones; negative if they may never share an
    /// island.
    pub(crate) fn join_squared(&self, one: u32, other: u32) -> f32 {
        let a = &self.0[one as usize];
        if one == other {
            return a.join;
        }
        let b = &self.0[other as usize];
        if a.enclosure == b.enclosure { a.join.min(b.join) } else { NEVER }
    }

    /// The square of the leave distance between peers of two zones; negative if they may never share an
    /// island.
    pub(crate) fn leave_squared(&self, one: u32, other: u32) -> f32 {
        let a = &self.0[one as usize];
        if one == other {
            return a.leave;
        }
        let b = &self.0[other as usize];
        if a.enclosure == b.enclosure { a.leave.min(b.leave) } else { NEVER }
    }
}

/// The members may be in more than one zone.
pub(super) const MIXED_ZONES: u32 = NONE;
