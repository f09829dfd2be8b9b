use rustc_hash::FxHashMap;

use super::area::{Area, PARCEL_M, Shape};
use crate::ground::Point;

/// Which areas a point is in, found without looking at all of them.
///
/// Shapes lie on the sheets of several grids, each sixteen times as coarse as the one before, on
/// the finest where they cover only a few squares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Atlas {
    /// By grid and square, the shapes that may reach into it, with their areas.
    squares: FxHashMap<(u8, i32, i32), Vec<(u32, Shape)>>,
    /// Which grids have anything on them.
    grids: Vec<u8>,
}

/// A shape goes to the finest grid on which it covers at most so many squares a side.
const MOST_SQUARES: f64 = 4.0;
const COARSENING: f64 = 16.0;
/// The side of the coarsest square is beyond any world.
const COARSEST: u8 = 5;

impl Atlas {
    /// An atlas of those of the areas that are `wanted`.
    pub(crate) fn new(areas: &[Area], wanted: impl Fn(usize) -> bool) -> Self {
        let mut atlas = Self::default();
        for (index, area) in areas.iter().enumerate().filter(|(index, _)| wanted(*index)) {
            area.shapes.iter().for_each(|&shape| atlas.add(index as u32, shape));
        }
        atlas.grids.sort_unstable();
        atlas.grids.dedup();
        atlas
    }

    fn add(&mut self, area: u32, shape: Shape) {
        let (low, high) = shape.bounds();
        let widest = (high[0] - low[0]).max(high[1] - low[1]);
        let fits = |grid: &u8| widest <= MOST_SQUARES * side(*grid);
        let grid = (0..COARSEST).find(fits).unwrap_or(COARSEST);
        self.grids.push(grid);
        let [low, high] = [low, high].map(|corner| corner.map(|metres| (metres / side(grid)).floor() as i32));
        for x in low[0]..=high[0] {
            for z in low[1]..=high[1] {
                self.squares.entry((grid, x, z)).or_default().push((area, shape));
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.grids.is_empty()
    }

    /// Puts the areas that a point is in into `found`, in order.
    pub(crate) fn find(&self, at: Point, found: &mut Vec<u32>) {
        found.clear();
        for &grid in &self.grids {
            let square = |metres: f32| (f64::from(metres) / side(grid)).floor() as i32;
            let shapes = self.squares.get(&(grid, square(at.x), square(at.z)));
            for &(area, shape) in shapes.into_iter().flatten() {
                if shape.contains(at) && !found.contains(&area) {
                    found.push(area);
                }
            }
        }
        found.sort_unstable();
    }
}

/// The side of a grid's squares, in metres.
fn side(grid: u8) -> f64 {
    PARCEL_M * COARSENING.powi(i32::from(grid))
}
