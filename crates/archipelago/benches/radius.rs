//! Radius search: kiddo's k-d tree against a hash grid as the engine uses it, in one run on the same
//! positions.
//!
//! Each benchmark counts, for every peer, the peers within 64 m (the join distance); both must find the same
//! number. The tree of kiddo is rebuilt each time, because only its immutable variant allows many peers at one
//! position. The grid is refilled each time too, although the engine only moves peers that leave their cell.

use std::collections::HashMap;

use archipelago::sim::{Walkers, Workload};
use divan::Bencher;
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use rustc_hash::FxBuildHasher;

fn main() {
    for workload in [Workload::City, Workload::Crowd100] {
        let positions = positions(workload, 1_000);
        assert_eq!(by_kiddo(&positions), by_grid(&positions), "{workload}");
    }
    divan::main();
}

const DISTANCE_M: f32 = 64.0;
const CELL_M: f32 = 80.0;
const CASES: [(Workload, usize); 5] = [
    (Workload::City, 1_000),
    (Workload::City, 10_000),
    (Workload::City, 100_000),
    (Workload::Crowd100, 1_000),
    (Workload::Hotspots, 10_000),
];

fn positions(workload: Workload, peers: usize) -> Vec<[f32; 2]> {
    let world = Walkers::new(workload, peers, 1);
    let position = |index| world.position(index).map(|at| [at.x, at.z]);
    (0..peers).filter_map(position).collect()
}

fn by_kiddo(positions: &[[f32; 2]]) -> usize {
    let tree: ImmutableKdTree<f32, 2> = ImmutableKdTree::new_from_slice(positions).expect("finite positions");
    let within = |position| {
        tree.query(position)
            .within::<SquaredEuclidean<f32>>(DISTANCE_M * DISTANCE_M)
            .unsorted()
            .execute()
            .len()
    };
    positions.iter().map(within).sum()
}

fn by_grid(positions: &[[f32; 2]]) -> usize {
    let cell =
        |position: &[f32; 2]| ((position[0] / CELL_M).floor() as i32, (position[1] / CELL_M).floor() as i32);
    let mut cells: HashMap<(i32, i32), Vec<[f32; 2]>, FxBuildHasher> = HashMap::default();
    for position in positions {
        cells.entry(cell(position)).or_default().push(*position);
    }
    let mut count = 0;
    for position in positions {
        let (x, z) = cell(position);
        for key in (-1..=1).flat_map(|dx| (-1..=1).map(move |dz| (x + dx, z + dz))) {
            let others = cells.get(&key).into_iter().flatten();
            let squared =
                |other: &[f32; 2]| (other[0] - position[0]).powi(2) + (other[1] - position[1]).powi(2);
            count += others.filter(|other| squared(other) <= DISTANCE_M * DISTANCE_M).count();
        }
    }
    count
}

#[divan::bench(args = CASES)]
fn kiddo(bencher: Bencher<'_, '_>, (workload, peers): (Workload, usize)) {
    let positions = positions(workload, peers);
    bencher.bench_local(|| by_kiddo(&positions));
}

#[divan::bench(args = CASES)]
fn grid(bencher: Bencher<'_, '_>, (workload, peers): (Workload, usize)) {
    let positions = positions(workload, peers);
    bencher.bench_local(|| by_grid(&positions));
}
