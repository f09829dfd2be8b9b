//! A spatial index of areas: a hierarchy of hash grids.

use rustc_hash::FxHashMap;

use super::area::{Area, PARCEL_M, Shape};
use crate::{
    ids::{AreaIndex, TableIndex},
    point::Point,
};

/// Finds the areas that contain a point without testing every area.
///
/// A hierarchy of hash grids: each grid is sixteen times as coarse as the one before. A shape is stored in
/// the finest grid in which it covers only a few cells.
#[derive(Debug, Clone, Default)]
pub(crate) struct AreaGrid {
    /// By grid and cell: the shapes with a bounding rectangle that overlaps the cell, each with its area.
    cells: FxHashMap<(u8, i32, i32), Vec<(AreaIndex, Shape)>>,
    /// The grids that contain any shape, in ascending order.
    grids: Vec<u8>,
}

/// A shape is stored in the finest grid in which it is at most this many cells wide.
const MAX_CELLS_PER_SIDE: f64 = 4.0;
const GRID_RATIO: f64 = 16.0;
/// Number of the coarsest grid. Its cells (16 m × 16⁵) are larger than any world.
const COARSEST_GRID: u8 = 5;

impl AreaGrid {
    /// An index of those areas for which `is_included` is true.
    pub(crate) fn new(areas: &[Area], is_included: impl Fn(AreaIndex) -> bool) -> Self {
        let mut area_grid = Self::default();
        let included = AreaIndex::first(areas.len()).zip(areas).filter(|&(index, _)| is_included(index));
        for (index, area) in included {
            area.shapes.iter().for_each(|&shape| area_grid.add(index, shape));
        }
        area_grid.grids.sort_unstable();
        area_grid.grids.dedup();
        area_grid
    }

    fn add(&mut self, area: AreaIndex, shape: Shape) {
        let (low, high) = shape.bounds();
        let widest = (high[0] - low[0]).max(high[1] - low[1]);
        let fits = |grid: &u8| widest <= MAX_CELLS_PER_SIDE * cell_side_m(*grid);
        let grid = (0..COARSEST_GRID).find(fits).unwrap_or(COARSEST_GRID);
        self.grids.push(grid);
        let [low, high] =
            [low, high].map(|corner| corner.map(|metres| (metres / cell_side_m(grid)).floor() as i32));
        for x in low[0]..=high[0] {
            for z in low[1]..=high[1] {
                self.cells.entry((grid, x, z)).or_default().push((area, shape));
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.grids.is_empty()
    }

    /// Replaces `found` by the areas that contain a point, in ascending order.
    pub(crate) fn find(&self, at: Point, found: &mut Vec<AreaIndex>) {
        found.clear();
        for &grid in &self.grids {
            let cell = |metres: f32| (f64::from(metres) / cell_side_m(grid)).floor() as i32;
            let shapes = self.cells.get(&(grid, cell(at.x), cell(at.z)));
            for &(area, shape) in shapes.into_iter().flatten() {
                if shape.contains(at) && !found.contains(&area) {
                    found.push(area);
                }
            }
        }
        found.sort_unstable();
    }
}

/// The side of a grid's cells, in metres.
fn cell_side_m(grid: u8) -> f64 {
    PARCEL_M * GRID_RATIO.powi(i32::from(grid))
}
