use std::time::Duration;

use protocol::Position;
use rustc_hash::FxHashMap;

use super::simulation::all_members;
use crate::Engine;

/// How many of those nearest to somebody count.
const NEAREST: usize = 10;

/// How many of those nearest to people are in the same island as they.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recall {
    near: u64,
    together: u64,
}

impl Recall {
    pub(super) fn sample(&mut self, engine: &Engine) {
        let distance_m = engine.settings().join_distance_m;
        let people: Vec<(Position, usize)> =
            all_members(engine).into_iter().map(|(_, position, island)| (position, island)).collect();
        let mut cells: FxHashMap<(i32, i32), Vec<usize>> = FxHashMap::default();
        let cell = |at: Position| ((at.x / distance_m).floor() as i32, (at.z / distance_m).floor() as i32);
        for (index, &(at, _)) in people.iter().enumerate() {
            cells.entry(cell(at)).or_default().push(index);
        }
        let mut near: Vec<(f32, usize)> = Vec::new();
        for (index, &(at, island)) in people.iter().enumerate() {
            near.clear();
            let (x, z) = cell(at);
            for neighbour in (-1..=1).flat_map(|dx| (-1..=1).map(move |dz| (x + dx, z + dz))) {
                for &other in cells.get(&neighbour).into_iter().flatten() {
                    let squared = people[other].0.ground_distance_squared(at);
                    if other != index && squared <= distance_m * distance_m {
                        near.push((squared, people[other].1));
                    }
                }
            }
            if near.len() > NEAREST {
                near.select_nth_unstable_by(NEAREST - 1, |a, b| a.0.total_cmp(&b.0));
                near.truncate(NEAREST);
            }
            self.near += near.len() as u64;
            self.together += near.iter().filter(|&&(_, other)| other == island).count() as u64;
        }
    }

    pub(super) fn share(self) -> f64 {
        if self.near == 0 { 1.0 } else { self.together as f64 / self.near as f64 }
    }
}

/// Of sorted times, the one that this share of them does not exceed.
pub(super) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}
