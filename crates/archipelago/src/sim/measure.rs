//! Measurements of a simulation: recall of near neighbours, and percentiles.

use std::time::Duration;

use protocol::{Address, IslandId, Position};
use rustc_hash::FxHashMap;

use crate::engine::Engine;

/// Number of nearest neighbours of a peer that are counted.
const NEAREST: usize = 10;

/// The share of near neighbours that are in the same island, over all samples.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recall {
    near: u64,
    together: u64,
}

impl Recall {
    /// Counts, for each peer, its nearest neighbours within the join distance and those in its island.
    pub(super) fn sample(&mut self, engine: &Engine) {
        let distance_m = engine.settings().join_distance_m;
        let peers: Vec<(Position, usize)> =
            all_members(engine).into_iter().map(|(_, position, island)| (position, island)).collect();
        let mut cells: FxHashMap<(i32, i32), Vec<usize>> = FxHashMap::default();
        let cell = |at: Position| ((at.x / distance_m).floor() as i32, (at.z / distance_m).floor() as i32);
        for (index, &(at, _)) in peers.iter().enumerate() {
            cells.entry(cell(at)).or_default().push(index);
        }
        let mut near: Vec<(f32, usize)> = Vec::new();
        for (index, &(at, island)) in peers.iter().enumerate() {
            near.clear();
            let (x, z) = cell(at);
            for neighbour in (-1..=1).flat_map(|dx| (-1..=1).map(move |dz| (x + dx, z + dz))) {
                for &other in cells.get(&neighbour).into_iter().flatten() {
                    let squared = peers[other].0.ground_distance_squared(at);
                    if other != index && squared <= distance_m * distance_m {
                        near.push((squared, peers[other].1));
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

    /// 0 to 1; 1 if no peer has a neighbour.
    pub(super) fn share(self) -> f64 {
        if self.near == 0 { 1.0 } else { self.together as f64 / self.near as f64 }
    }
}

/// The percentile of sorted times, by the nearest rank; `share` is 0 to 1.
pub(super) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

/// Each peer with its position and the number of its island, for drawings and measurements.
pub(super) fn all_members(engine: &Engine) -> Vec<(Address, Position, usize)> {
    let mut numbers: FxHashMap<IslandId, usize> = FxHashMap::default();
    let mut members = Vec::new();
    for island in engine.islands() {
        let next = numbers.len();
        let number = *numbers.entry(island.id()).or_insert(next);
        members.extend(island.members().map(|(peer, position)| (peer, position, number)));
    }
    members
}
