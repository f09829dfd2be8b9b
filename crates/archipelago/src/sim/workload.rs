//! Workloads: where simulated peers are and how they move.

use std::{fmt, str::FromStr};

use protocol::Position;

use super::rng::Rng;

/// A distribution of peers and their movement. Each has a default number of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    /// A crowd on 100 × 100 m. 1,000 peers by default.
    Crowd100,
    /// A festival on 300 × 300 m. 2,000 peers by default.
    Festival,
    /// A plaza of 200 × 200 m. 300 peers by default.
    Plaza,
    /// A town with one peer per 9,000 m²: 1,000 by default, on 3 × 3 km.
    Town,
    /// One peer per 60 × 60 m. 10,000 by default.
    City,
    /// One peer per 150 × 150 m. 10,000 by default.
    Sparse,
    /// Half of the peers in hotspots of 100 × 100 m with 500 each, the others spread as in a city. 10,000 by
    /// default.
    Hotspots,
    /// A crowd on 200 × 200 m; each second one in a hundred peers jumps to a random position. 1,000 by default.
    Teleports,
    /// A crowd on 200 × 200 m that leaves the world at one corner. 1,000 by default.
    Exodus,
    /// All peers arrive at the same position and walk away from it. 1,000 by default.
    Spawn,
    /// Two crowds of 100 × 100 m that walk through each other. 1,000 by default.
    Crossing,
}

const NAMES: [(Workload, &str); 11] = [
    (Workload::Crowd100, "crowd-100"),
    (Workload::Festival, "festival"),
    (Workload::Plaza, "plaza"),
    (Workload::Town, "town"),
    (Workload::City, "city"),
    (Workload::Sparse, "sparse"),
    (Workload::Hotspots, "hotspots"),
    (Workload::Teleports, "teleports"),
    (Workload::Exodus, "exodus"),
    (Workload::Spawn, "spawn"),
    (Workload::Crossing, "crossing"),
];

/// The error for a name that is no workload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a workload is one of crowd-100, festival, plaza, town, city, sparse, hotspots, teleports, exodus, \
     spawn, crossing"
)]
pub struct WorkloadError;

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        let named = NAMES.iter().find(|(_, name)| *name == text);
        named.map(|&(workload, _)| workload).ok_or(WorkloadError)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(workload, _)| workload == self);
        f.pad(named.map_or("", |(_, name)| name))
    }
}

/// Walking speed, in metres per second.
const WALK_M_S: f64 = 1.5;
/// Maximum change of heading every [`TURN_INTERVAL_S`], in radians.
const TURN: f64 = 0.5;
const TURN_INTERVAL_S: f64 = 2.0;
const HOTSPOT_SIDE_M: f64 = 100.0;
const HOTSPOT_PEERS: usize = 500;

impl Workload {
    /// All workloads.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(workload, _)| workload)
    }

    /// Default number of peers.
    pub fn default_peers(self) -> usize {
        match self {
            Self::Plaza => 300,
            Self::Festival => 2_000,
            Self::City | Self::Sparse | Self::Hotspots => 10_000,
            _ => 1_000,
        }
    }

    /// Side of the square for this number of peers, in metres.
    pub fn side_m(self, peers: usize) -> f64 {
        let side = |m2_each: f64| (peers as f64 * m2_each).sqrt();
        match self {
            Self::Crowd100 => 100.0,
            Self::Festival | Self::Crossing => 300.0,
            Self::Plaza | Self::Teleports | Self::Exodus | Self::Spawn => 200.0,
            Self::Town => side(9_000.0),
            Self::City | Self::Hotspots => side(3_600.0),
            Self::Sparse => side(22_500.0),
        }
    }
}

/// Simulated peers that walk at 1.5 m/s. The heading of each changes a little every two seconds, and the
/// edges of its square reflect it.
#[derive(Debug, Clone)]
pub struct Walkers {
    workload: Workload,
    side_m: f64,
    rng: Rng,
    walkers: Vec<Walker>,
    elapsed_s: f64,
}

#[derive(Debug, Clone)]
struct Walker {
    x: f64,
    z: f64,
    heading: f64,
    until_turn_s: f64,
    /// The square that it stays in.
    square: Square,
    /// It has left the world for good.
    gone: bool,
}

#[derive(Debug, Clone, Copy)]
struct Square {
    x: f64,
    z: f64,
    side: f64,
}

impl Walkers {
    /// This number of peers at the starting positions of the workload.
    pub fn new(workload: Workload, peers: usize, seed: u64) -> Self {
        let side_m = workload.side_m(peers);
        let mut walkers = Self { workload, side_m, rng: Rng::new(seed), walkers: Vec::new(), elapsed_s: 0.0 };
        let hotspot_count = peers.div_ceil(2 * HOTSPOT_PEERS);
        let whole = Square { x: 0.0, z: 0.0, side: side_m };
        let hotspots: Vec<Square> =
            (0..hotspot_count).map(|_| walkers.random_square(HOTSPOT_SIDE_M)).collect();
        for index in 0..peers {
            let hotspot = workload == Workload::Hotspots && index % 2 == 0;
            let bounds = if hotspot { hotspots[(index / 2) % hotspot_count] } else { whole };
            let walker = walkers.walker(index, bounds);
            walkers.walkers.push(walker);
        }
        walkers
    }

    fn random_square(&mut self, side: f64) -> Square {
        let range = (self.side_m - side).max(1.0);
        Square { x: self.rng.range(0.0, range), z: self.rng.range(0.0, range), side }
    }

    fn walker(&mut self, index: usize, bounds: Square) -> Walker {
        let (mut x, z, mut heading) = (
            bounds.x + self.rng.range(0.0, bounds.side),
            bounds.z + self.rng.range(0.0, bounds.side),
            self.rng.range(0.0, std::f64::consts::TAU),
        );
        let (mut x, mut z) = match self.workload {
            Workload::Spawn => (self.side_m / 2.0, self.side_m / 2.0),
            Workload::Crossing => {
                let east = index.is_multiple_of(2);
                x = self.rng.range(0.0, 100.0) + if east { 0.0 } else { 200.0 };
                heading = if east { 0.0 } else { std::f64::consts::PI };
                (x, self.rng.range(100.0, 200.0))
            }
            _ => (x, z),
        };
        (x, z) = (x.clamp(0.0, self.side_m), z.clamp(0.0, self.side_m));
        let until_turn_s = self.rng.range(0.0, TURN_INTERVAL_S);
        Walker { x, z, heading, until_turn_s, square: bounds, gone: false }
    }

    /// Number of peers, including those that have left.
    pub fn count(&self) -> usize {
        self.walkers.len()
    }

    /// Position of the peer with this index; `None` after it has left.
    pub fn position(&self, index: usize) -> Option<Position> {
        let walker = &self.walkers[index];
        (!walker.gone).then(|| Position::new(walker.x as f32, 0.0, walker.z as f32))
    }

    /// Advances all peers by a time in seconds.
    pub fn step(&mut self, seconds: f64) {
        self.elapsed_s += seconds;
        for index in 0..self.walkers.len() {
            let mut walker = self.walkers[index].clone();
            self.turn_if_due(&mut walker, seconds);
            walker.x += walker.heading.cos() * WALK_M_S * seconds;
            walker.z += walker.heading.sin() * WALK_M_S * seconds;
            self.finish_step(&mut walker, seconds);
            self.walkers[index] = walker;
        }
    }

    fn turn_if_due(&mut self, walker: &mut Walker, seconds: f64) {
        walker.until_turn_s -= seconds;
        if walker.until_turn_s > 0.0 {
            return;
        }
        walker.until_turn_s += TURN_INTERVAL_S;
        match self.workload {
            // Straight ahead, through the other crowd and back.
            Workload::Crossing => {}
            Workload::Exodus => walker.heading = (-walker.z).atan2(-walker.x),
            _ => walker.heading += self.rng.range(-TURN, TURN),
        }
    }

    fn finish_step(&mut self, walker: &mut Walker, seconds: f64) {
        if self.workload == Workload::Exodus && walker.x.hypot(walker.z) < 5.0 {
            walker.gone = true;
        }
        if self.workload == Workload::Teleports && self.rng.chance(0.01 * seconds) {
            let target = self.random_square(1.0);
            (walker.x, walker.z) = (target.x, target.z);
        }
        let Square { x, z, side } = walker.square;
        if walker.x < x || walker.x > x + side {
            walker.heading = std::f64::consts::PI - walker.heading;
            walker.x = reflect(walker.x, x, side);
        }
        if walker.z < z || walker.z > z + side {
            walker.heading = -walker.heading;
            walker.z = reflect(walker.z, z, side);
        }
    }
}

fn reflect(at: f64, low: f64, side: f64) -> f64 {
    let reflected = if at < low { 2.0 * low - at } else { 2.0 * (low + side) - at };
    reflected.clamp(low, low + side)
}
