use crate::spatial::Point;

/// The side of a parcel, in metres.
pub(super) const PARCEL_M: f64 = 16.0;

/// A place that rules are about.
#[derive(Debug, Clone, PartialEq)]
pub struct Area {
    /// What to call it in explanations.
    pub label: String,
    /// It is all of these together.
    pub shapes: Vec<Shape>,
}

/// A part of the ground, in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// With its lower edges, without its upper ones, so that neighbours share no point.
    Rectangle {
        /// The least x and z.
        from: [f64; 2],
        /// The greatest, which are outside.
        to: [f64; 2],
    },
    /// With its edge.
    Circle {
        /// x and z.
        center: [f64; 2],
        /// How far it reaches.
        radius_m: f64,
    },
}

impl Shape {
    /// The parcels from one to another, both included.
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

    /// The corners of the rectangle around it.
    pub(super) fn bounds(self) -> ([f64; 2], [f64; 2]) {
        match self {
            Self::Rectangle { from, to } => (from, to),
            Self::Circle { center, radius_m } => {
                (center.map(|middle| middle - radius_m), center.map(|middle| middle + radius_m))
            }
        }
    }
}
