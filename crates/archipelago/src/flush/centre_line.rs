//! The line between the centres of two pieces.
//!
//! Each member has an *offset*: its signed distance past the midpoint, along the line from the centre
//! of the first piece to the centre of the second. Transferring a member of the first piece with a
//! positive offset lowers the sum of squares, and so does swapping a member of the first piece for one
//! of the second with a smaller offset.

use crate::{ids::IslandIndex, point::Point, world::World};

/// A member is transferred only if its offset is more than this share of the distance between the
/// centres (hysteresis).
const TRANSFER_SHARE: f32 = 0.05;
/// Two members are swapped only if their offsets differ by more than this share of the distance between
/// the centres.
const SWAP_SHARE: f32 = 0.10;
/// The least margin for a transfer or a swap, in metres.
const MIN_MARGIN_M: f32 = 0.5;

/// The line through the centres of two pieces, from the first to the second, and the margins for a
/// step.
#[derive(Debug, Clone, Copy)]
pub(super) struct CentreLine {
    midpoint: (f64, f64),
    direction: (f32, f32),
    pub(super) transfer_m: f32,
    pub(super) swap_m: f32,
}

impl CentreLine {
    /// `None` if both centres are the same point.
    pub(super) fn between(world: &World, one: IslandIndex, other: IslandIndex) -> Option<Self> {
        let (from, to) = (world.spatial.centre(one), world.spatial.centre(other));
        let (x, z) = (to.0 - from.0, to.1 - from.1);
        let length = x.hypot(z);
        let length_m = length as f32;
        (length > 0.0).then(|| Self {
            midpoint: ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0),
            direction: ((x / length) as f32, (z / length) as f32),
            transfer_m: (TRANSFER_SHARE * length_m).max(MIN_MARGIN_M),
            swap_m: (SWAP_SHARE * length_m).max(MIN_MARGIN_M),
        })
    }

    /// Whether a member at this position is far enough past the midpoint to be transferred.
    fn is_past_midpoint(&self, at: Point) -> bool {
        self.offset_m(at) > self.transfer_m
    }

    /// The offset of a position past the midpoint, in metres.
    pub(super) fn offset_m(&self, at: Point) -> f32 {
        let x = (f64::from(at.x) - self.midpoint.0) as f32;
        let z = (f64::from(at.z) - self.midpoint.1) as f32;
        x * self.direction.0 + z * self.direction.1
    }
}

/// Whether a member of the first of two islands, at this position, would be transferred to the second
/// if only positions counted.
pub(super) fn is_past_midpoint(world: &World, at: Point, one: IslandIndex, other: IslandIndex) -> bool {
    CentreLine::between(world, one, other).is_some_and(|line| line.is_past_midpoint(at))
}
