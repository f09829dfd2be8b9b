//! The precision with which positions of peers are published: exact, or reduced to the parcel.

use crate::Position;

/// The precision with which a peer's position is published to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PositionPrecision {
    /// The position as the peer reported it.
    #[default]
    Exact,
    /// The centre of the parcel that the peer is in, on the ground.
    Parcel,
}

impl PositionPrecision {
    /// The published form of a position. A role that stores only this form cannot reveal more.
    pub fn published(self, position: Position) -> Position {
        match self {
            Self::Exact => position,
            Self::Parcel => position.parcel().center(),
        }
    }

    /// The published form of the radius of an island, in metres: with [`Self::Parcel`] rounded up to a
    /// multiple of 8 m.
    pub fn published_radius(self, radius_m: f64) -> f64 {
        /// Half the side of a parcel, in metres.
        const STEP_M: f64 = 8.0;
        match self {
            Self::Exact => radius_m,
            Self::Parcel => (radius_m / STEP_M).ceil() * STEP_M,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcel_precision_publishes_the_parcel_centre() {
        let published = |x, z| PositionPrecision::Parcel.published(Position::new(x, 77.0, z));
        assert_eq!(published(0.0, -16.0), Position::new(8.0, 0.0, -8.0));
        assert_eq!(published(15.9, -0.1), published(0.0, -16.0));
        assert_eq!(PositionPrecision::Parcel.published_radius(8.1), 16.0);
        assert_eq!(PositionPrecision::Exact.published_radius(8.1), 8.1);
        assert_eq!(
            PositionPrecision::Exact.published(Position::new(1.0, 2.0, 3.0)),
            Position::new(1.0, 2.0, 3.0)
        );
    }
}
