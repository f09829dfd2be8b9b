//! The totals over the members of an island: their number, the sums of their coordinates, and their
//! common traits.

use super::peer_traits::PeerTraits;
use crate::{
    ids::{GroupIndex, ZoneIndex},
    point::Point,
    world::capabilities::{Capabilities, MAX_CAPABILITIES},
};

/// Sums of coordinates are integers in units of this fraction of a metre. Integer sums are exact, so
/// the centre of an island does not depend on the order in which its members joined.
const UNITS_PER_M: f64 = 1_024.0;

/// The number of members of an island, the sums of their coordinates, and what they have in common.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IslandStats {
    pub(super) first_group: Option<GroupIndex>,
    pub(super) size: u32,
    /// The zone of all members; `None` if they may be in several.
    pub(super) zone: Option<ZoneIndex>,
    /// The number of members that lack each capability.
    missing: [u16; MAX_CAPABILITIES],
    sum_x: i64,
    sum_z: i64,
}

const _: () = assert!(size_of::<IslandStats>() == 48);

impl IslandStats {
    pub(super) fn add(&mut self, at: Point, traits: PeerTraits) {
        if self.size == 0 {
            self.zone = Some(traits.zone());
        } else if self.zone != Some(traits.zone()) {
            self.zone = None;
        }
        traits.capabilities().missing_bits().for_each(|bit| self.missing[bit] += 1);
        self.size += 1;
        self.sum_x += to_fixed_point(at.x);
        self.sum_z += to_fixed_point(at.z);
    }

    pub(super) fn remove(&mut self, at: Point, traits: PeerTraits) {
        traits.capabilities().missing_bits().for_each(|bit| self.missing[bit] -= 1);
        self.size -= 1;
        self.sum_x -= to_fixed_point(at.x);
        self.sum_z -= to_fixed_point(at.z);
    }

    /// A member moved.
    pub(super) fn shift(&mut self, from: Point, to: Point) {
        self.sum_x += to_fixed_point(to.x) - to_fixed_point(from.x);
        self.sum_z += to_fixed_point(to.z) - to_fixed_point(from.z);
    }

    /// Adds all members of another island.
    pub(super) fn absorb(&mut self, other: Self) {
        if self.zone != other.zone {
            self.zone = None;
        }
        self.missing.iter_mut().zip(other.missing).for_each(|(count, more)| *count += more);
        self.size += other.size;
        self.sum_x += other.sum_x;
        self.sum_z += other.sum_z;
    }

    /// The mean of the members' positions, x and z in metres; the origin for an empty island.
    pub(super) fn centre(&self) -> (f64, f64) {
        let scale = 1.0 / (f64::from(self.size.max(1)) * UNITS_PER_M);
        (self.sum_x as f64 * scale, self.sum_z as f64 * scale)
    }

    /// The transports that every member can join. A member with the traits `excluding` is not counted.
    pub(super) fn capabilities(&self, excluding: Option<PeerTraits>) -> Capabilities {
        let excluded_lacks =
            |bit: usize| excluding.is_some_and(|traits| traits.capabilities().0 >> bit & 1 == 0);
        let bits =
            self.missing.iter().enumerate().filter(|&(bit, &count)| count == u16::from(excluded_lacks(bit)));
        Capabilities(bits.fold(0, |bits, (bit, _)| bits | 1 << bit))
    }
}

fn to_fixed_point(metres: f32) -> i64 {
    (f64::from(metres) * UNITS_PER_M).round() as i64
}
