use crate::Position;

/// How exactly a peer's position is published to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PositionPrecision {
    /// As the peer reported it.
    #[default]
    Exact,
    /// The centre of the parcel that the peer is in, on the ground.
    Parcel,
}

impl PositionPrecision {
    /// The published form of a position. A role that keeps only this cannot leak more.
    pub fn published(self, position: Position) -> Position {
        match self {
            Self::Exact => position,
            Self::Parcel => position.parcel().center(),
        }
    }

    /// The published form of a radius of an island, in metres.
    pub fn published_radius(self, radius_m: f64) -> f64 {
        /// Half the side of a parcel.
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
