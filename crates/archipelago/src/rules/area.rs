//! Areas of the ground that rules name, as sets of shapes.

use crate::point::Point;

/// The side of a parcel, in metres.
pub(super) const PARCEL_M: f64 = 16.0;

/// The part of the ground that a rule applies to.
#[derive(Debug, Clone, PartialEq)]
pub struct Area {
    /// Its name in explanations.
    pub label: String,
    /// The area is the union of these.
    pub shapes: Vec<Shape>,
}

/// One shape of an area. Coordinates are x and z, in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Contains its lower edges but not its upper ones, so that adjacent rectangles share no point.
    Rectangle {
        /// Least x and z, inside.
        from: [f64; 2],
        /// Greatest x and z, outside.
        to: [f64; 2],
    },
    /// Contains its edge.
    Circle {
        /// Centre: x and z.
        center: [f64; 2],
        /// Radius in metres, above 0.
        radius_m: f64,
    },
}

impl Shape {
    /// The rectangle of the parcels between two corner parcels, both included, in any order.
    pub(super) fn parcels(from: [i32; 2], to: [i32; 2]) -> Self {
        let [[from_x, from_z], [to_x, to_z]] = [from, to].map(|corner| corner.map(f64::from));
        Self::Rectangle {
            from: [from_x.min(to_x) * PARCEL_M, from_z.min(to_z) * PARCEL_M],
            to: [(from_x.max(to_x) + 1.0) * PARCEL_M, (from_z.max(to_z) + 1.0) * PARCEL_M],
        }
    }

    pub(super) fn contains(self, at: Point) -> bool {
        let at = [f64::from(at.x), f64::from(at.z)];
        match self {
            Self::Rectangle { from, to } => (0..2).all(|axis| from[axis] <= at[axis] && at[axis] < to[axis]),
            Self::Circle { center, radius_m } => {
                let squared: f64 = (0..2).map(|axis| (at[axis] - center[axis]).powi(2)).sum();
                squared <= radius_m * radius_m
            }
        }
    }

    /// The least and the greatest corner of the bounding rectangle.
    pub(super) fn bounds(self) -> ([f64; 2], [f64; 2]) {
        match self {
            Self::Rectangle { from, to } => (from, to),
            Self::Circle { center, radius_m } => {
                (center.map(|middle| middle - radius_m), center.map(|middle| middle + radius_m))
            }
        }
    }
}
