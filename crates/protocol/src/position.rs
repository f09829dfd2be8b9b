//! Positions in the world, and the parcels that they lie in.

use std::{fmt, str::FromStr};

use crate::wire::decentraland::common;

/// Side of a parcel, in metres.
const PARCEL_SIDE_M: f32 = 16.0;

/// A position in the world, in metres; y is up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Position {
    /// East.
    pub x: f32,
    /// Up. Distances between peers ignore it.
    pub y: f32,
    /// North.
    pub z: f32,
}

/// The reason for which a position from the wire is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// A coordinate is NaN or infinite.
    #[error("a coordinate is not a finite number")]
    NotFinite,
    /// A coordinate lies outside the world.
    #[error("a coordinate is outside the world")]
    OutOfBounds,
    /// The message carries no position at all.
    #[error("the heartbeat has no position")]
    Missing,
}

impl Position {
    /// A position from its coordinates, in metres.
    pub const fn new(x: f32, y: f32, z: f32) -> Self {
        Self { x, y, z }
    }

    /// Converts a position from the wire if it is finite and within `bound_m` metres of the origin on every
    /// axis.
    pub fn checked(wire: Option<&common::Position>, bound_m: f32) -> Result<Self, PositionError> {
        let &common::Position { x, y, z } = wire.ok_or(PositionError::Missing)?;
        if !(x.is_finite() && y.is_finite() && z.is_finite()) {
            return Err(PositionError::NotFinite);
        }
        if x.abs() > bound_m || y.abs() > bound_m || z.abs() > bound_m {
            return Err(PositionError::OutOfBounds);
        }
        Ok(Self { x, y, z })
    }

    /// The parcel that the position lies in.
    pub fn parcel(self) -> Parcel {
        let index = |metres: f32| (metres / PARCEL_SIDE_M).floor() as i32;
        Parcel { x: index(self.x), y: index(self.z) }
    }

    /// The square of the horizontal distance (x and z), in square metres.
    pub fn ground_distance_squared(self, other: Self) -> f32 {
        let (dx, dz) = (self.x - other.x, self.z - other.z);
        dx * dx + dz * dz
    }
}

impl From<Position> for common::Position {
    fn from(position: Position) -> Self {
        Self { x: position.x, y: position.y, z: position.z }
    }
}

/// A square of land, 16 × 16 m. Its `y` runs along the world's z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parcel {
    /// East.
    pub x: i32,
    /// North.
    pub y: i32,
}

/// The error of parsing a [`Parcel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a parcel is two whole numbers with a comma between them")]
pub struct ParcelError;

impl Parcel {
    /// The centre of the parcel, on the ground (y is 0).
    pub fn center(self) -> Position {
        let middle = |index: i32| (index as f32 + 0.5) * PARCEL_SIDE_M;
        Position { x: middle(self.x), y: 0.0, z: middle(self.y) }
    }
}

impl fmt::Display for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.x, self.y)
    }
}

impl FromStr for Parcel {
    type Err = ParcelError;

    fn from_str(text: &str) -> Result<Self, ParcelError> {
        let (x, y) = text.split_once(',').ok_or(ParcelError)?;
        let index = |text: &str| text.trim().parse().map_err(|_| ParcelError);
        Ok(Self { x: index(x)?, y: index(y)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(x: f32, y: f32, z: f32) -> Result<Position, PositionError> {
        Position::checked(Some(&common::Position { x, y, z }), 100_000.0)
    }

    #[test]
    fn position_must_be_finite_and_within_the_world() {
        assert_eq!(checked(1.0, 2.0, 3.0), Ok(Position::new(1.0, 2.0, 3.0)));
        assert_eq!(checked(100_000.0, 0.0, -100_000.0), Ok(Position::new(100_000.0, 0.0, -100_000.0)));
        assert_eq!(checked(f32::NAN, 0.0, 0.0), Err(PositionError::NotFinite));
        assert_eq!(checked(0.0, f32::INFINITY, 0.0), Err(PositionError::NotFinite));
        assert_eq!(checked(0.0, 0.0, f32::NEG_INFINITY), Err(PositionError::NotFinite));
        assert_eq!(checked(0.0, 0.0, 100_001.0), Err(PositionError::OutOfBounds));
        assert_eq!(Position::checked(None, 1.0), Err(PositionError::Missing));
    }

    #[test]
    fn parcel_coordinates_round_down() {
        assert_eq!(Position::new(-0.5, 9.0, 15.9).parcel(), Parcel { x: -1, y: 0 });
        assert_eq!(Position::new(16.0, 9.0, -16.1).parcel(), Parcel { x: 1, y: -2 });
    }

    #[test]
    fn parcel_centre_lies_in_the_parcel() {
        let parcel = Parcel { x: -1, y: 2 };
        assert_eq!(parcel.center(), Position::new(-8.0, 0.0, 40.0));
        assert_eq!(parcel.center().parcel(), parcel);
    }

    #[test]
    fn parcel_text_round_trips() {
        for parcel in [Parcel { x: 0, y: 0 }, Parcel { x: -150, y: 77 }] {
            assert_eq!(parcel.to_string().parse(), Ok(parcel));
        }
        for text in ["", "1", "1,", "a,b", "1,2,3", "1.5,2", "99999999999,0"] {
            assert_eq!(text.parse::<Parcel>(), Err(ParcelError), "{text}");
        }
    }
}
