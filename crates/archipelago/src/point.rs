//! Points on the ground, and the bounds of the world.

use protocol::Position;

/// The largest absolute coordinate that a heartbeat may carry, in metres; a position beyond it is
/// refused. An `f32` of this size still resolves half a metre, and sums of such coordinates do not
/// overflow.
pub(crate) const MAX_COORDINATE_M: f32 = 4_000_000.0;

/// A point on the ground, in metres.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Point {
    pub(crate) x: f32,
    pub(crate) z: f32,
}

impl Point {
    pub(crate) fn distance_squared(self, other: Self) -> f32 {
        let (dx, dz) = (self.x - other.x, self.z - other.z);
        dx * dx + dz * dz
    }
}

impl From<Position> for Point {
    fn from(Position { x, z, .. }: Position) -> Self {
        Self { x, z }
    }
}

/// Whether the engine accepts a position: each coordinate is a number of at most 4,000 km.
pub(crate) fn is_in_world_bounds(position: Position) -> bool {
    // A comparison with NaN is false, so NaN is rejected.
    [position.x, position.y, position.z].iter().all(|metres| metres.abs() <= MAX_COORDINATE_M)
}
