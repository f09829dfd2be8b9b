//! Who is within the join distance of everybody: the house's index, kiddo, beside a hash grid as the
//! engine keeps it, in one run over the same places.
//!
//! Each bench counts, for every person, the people within 64 m; both must count the same. For kiddo
//! the tree is built anew, which is the only way it has for people who stand on one spot; the grid is
//! filled anew, too, though the engine only moves those who leave their cell.

use std::collections::HashMap;

use archipelago::sim::{Walkers, Workload};
use divan::Bencher;
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use rustc_hash::FxBuildHasher;

fn main() {
    for workload in [Workload::City, Workload::Crowd100] {
        let places = places(workload, 1_000);
        assert_eq!(by_kiddo(&places), by_grid(&places), "{workload}");
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

fn places(workload: Workload, people: usize) -> Vec<[f32; 2]> {
    let world = Walkers::new(workload, people, 1);
    let place = |person| world.position(person).map(|at| [at.x, at.z]);
    (0..people).filter_map(place).collect()
}

fn by_kiddo(places: &[[f32; 2]]) -> usize {
    let tree: ImmutableKdTree<f32, 2> = ImmutableKdTree::new_from_slice(places).expect("finite places");
    let within = |place| {
        tree.query(place).within::<SquaredEuclidean<f32>>(DISTANCE_M * DISTANCE_M).unsorted().execute().len()
    };
    places.iter().map(within).sum()
}

fn by_grid(places: &[[f32; 2]]) -> usize {
    let cell = |place: &[f32; 2]| ((place[0] / CELL_M).floor() as i32, (place[1] / CELL_M).floor() as i32);
    let mut cells: HashMap<(i32, i32), Vec<[f32; 2]>, FxBuildHasher> = HashMap::default();
    for place in places {
        cells.entry(cell(place)).or_default().push(*place);
    }
    let mut count = 0;
    for place in places {
        let (x, z) = cell(place);
        for key in (-1..=1).flat_map(|dx| (-1..=1).map(move |dz| (x + dx, z + dz))) {
            let others = cells.get(&key).into_iter().flatten();
            let squared = |other: &[f32; 2]| (other[0] - place[0]).powi(2) + (other[1] - place[1]).powi(2);
            count += others.filter(|other| squared(other) <= DISTANCE_M * DISTANCE_M).count();
        }
    }
    count
}

#[divan::bench(args = CASES)]
fn kiddo(bencher: Bencher<'_, '_>, (workload, people): (Workload, usize)) {
    let places = places(workload, people);
    bencher.bench_local(|| by_kiddo(&places));
}

#[divan::bench(args = CASES)]
fn grid(bencher: Bencher<'_, '_>, (workload, people): (Workload, usize)) {
    let places = places(workload, people);
    bencher.bench_local(|| by_grid(&places));
}
