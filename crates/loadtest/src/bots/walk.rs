//! How bots walk: along a route, or at random over land. At random some wander, some meet, some travel
//! between two crowds, and some jump.

use protocol::Position;
use rand::{RngExt, rngs::StdRng};

use super::route::{GroundPoint, Route, RouteWalk};

/// A district is the land for so many bots; more bots get more districts.
const BOTS_PER_DISTRICT: usize = 20;
const DISTRICT_SIDE_M: f32 = 300.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkKind {
    /// To random points of its district.
    Wanderer,
    /// To the meeting point in the middle, for a while, and to a random point.
    Meeter,
    /// From the crowd at one edge to the crowd at the other, and back.
    Traveller,
    /// From district to district, in one step.
    Jumper,
    Still,
}

/// One bot's walk.
#[derive(Debug)]
pub(crate) enum Walker {
    Random(Box<RandomWalk>),
    OnRoute(RouteWalk),
}

/// A random walk over land. The seed alone decides it.
#[derive(Debug)]
pub(crate) struct RandomWalk {
    kind: WalkKind,
    speed_m_s: f32,
    districts: usize,
    district: usize,
    position: GroundPoint,
    target: GroundPoint,
    /// Seconds to pause before the next step.
    pause: f32,
    /// Which end of its way is the target.
    outward: bool,
    rng: StdRng,
}

impl Walker {
    /// The walker of a bot among `count`.
    pub(crate) fn new(index: usize, count: usize, speed_m_s: f32, rng: StdRng) -> Self {
        Self::Random(Box::new(RandomWalk::new(index, count, speed_m_s, rng)))
    }

    /// Stays within a few metres of all others that stay in this district, of so many.
    pub(crate) fn still(district: usize, districts: usize, rng: StdRng) -> Self {
        Self::Random(Box::new(RandomWalk::at(WalkKind::Still, districts, district, 0.0, rng)))
    }

    /// The walker of a bot among `count` on a route.
    pub(crate) fn along(route: Route, index: usize, count: usize, speed_m_s: f32) -> Self {
        Self::OnRoute(RouteWalk::new(route, index, count, speed_m_s))
    }

    pub(crate) fn position(&self) -> Position {
        let (x, z) = match self {
            Self::Random(walk) => walk.position,
            Self::OnRoute(walk) => walk.position(),
        };
        Position::new(x, 0.0, z)
    }

    /// Advances by so many seconds; returns whether the bot jumped.
    pub(crate) fn step(&mut self, seconds: f32) -> bool {
        match self {
            Self::Random(walk) => walk.step(seconds),
            Self::OnRoute(walk) => {
                walk.step(seconds);
                false
            }
        }
    }
}

impl RandomWalk {
    fn new(index: usize, count: usize, speed_m_s: f32, rng: StdRng) -> Self {
        let kind = match index % 20 {
            19 => WalkKind::Jumper,
            n if n % 3 == 0 => WalkKind::Wanderer,
            n if n % 3 == 1 => WalkKind::Meeter,
            _ => WalkKind::Traveller,
        };
        let districts = count.div_ceil(BOTS_PER_DISTRICT).max(1);
        Self::at(kind, districts, index / BOTS_PER_DISTRICT, speed_m_s, rng)
    }

    fn at(kind: WalkKind, districts: usize, district: usize, speed_m_s: f32, rng: StdRng) -> Self {
        let mut walk = Self {
            kind,
            speed_m_s,
            districts,
            district,
            position: (0.0, 0.0),
            target: (0.0, 0.0),
            pause: 0.0,
            outward: false,
            rng,
        };
        walk.position = walk.random_point();
        walk.choose_target();
        walk
    }

    fn step(&mut self, seconds: f32) -> bool {
        if self.kind == WalkKind::Still {
            return false;
        }
        if self.pause > 0.0 {
            self.pause -= seconds;
            return false;
        }
        let (dx, dz) = (self.target.0 - self.position.0, self.target.1 - self.position.1);
        let (distance, stride) = (dx.hypot(dz), self.speed_m_s * seconds);
        if self.kind == WalkKind::Jumper {
            self.position = self.target;
            self.choose_target();
            return true;
        }
        if distance <= stride {
            self.position = self.target;
            self.choose_target();
        } else {
            let share = stride / distance;
            self.position = (self.position.0 + dx * share, self.position.1 + dz * share);
        }
        false
    }

    /// Chooses the next target, and the pause before.
    fn choose_target(&mut self) {
        self.outward = !self.outward;
        let (x, z) = self.centre(self.district);
        let crowd_m = DISTRICT_SIDE_M * 0.4;
        (self.target, self.pause) = match self.kind {
            WalkKind::Wanderer => (self.random_point(), 0.0),
            WalkKind::Meeter if self.outward => {
                (self.random_point_near((x, z), 10.0), self.rng.random_range(0.0..4.0))
            }
            WalkKind::Meeter => (self.random_point(), self.rng.random_range(5.0..15.0)),
            WalkKind::Traveller => {
                let side = if self.outward { crowd_m } else { -crowd_m };
                (self.random_point_near((x + side, z), 8.0), self.rng.random_range(2.0..8.0))
            }
            WalkKind::Jumper => {
                self.district = self.rng.random_range(0..self.districts.max(2));
                (self.random_point(), self.rng.random_range(8.0..12.0))
            }
            WalkKind::Still => (self.position, 0.0),
        };
    }

    fn centre(&self, district: usize) -> GroundPoint {
        let columns = (self.districts as f32).sqrt().ceil() as usize;
        let place = |n: usize| n as f32 * DISTRICT_SIDE_M;
        (place(district % columns), place(district / columns))
    }

    fn random_point(&mut self) -> GroundPoint {
        let reach = if self.kind == WalkKind::Still { 10.0 } else { DISTRICT_SIDE_M / 2.0 };
        self.random_point_near(self.centre(self.district), reach)
    }

    fn random_point_near(&mut self, (x, z): GroundPoint, radius_m: f32) -> GroundPoint {
        let mut offset = || self.rng.random_range(-radius_m..radius_m);
        (x + offset(), z + offset())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn walk(seed: u64) -> Vec<Position> {
        let mut walkers: Vec<Walker> = (0..20)
            .map(|index| Walker::new(index, 20, 6.0, StdRng::seed_from_u64(seed + index as u64)))
            .collect();
        for _ in 0..600 {
            for walker in &mut walkers {
                walker.step(0.1);
            }
        }
        walkers.iter().map(Walker::position).collect()
    }

    #[test]
    fn same_seed_gives_the_same_walk() {
        assert_eq!(walk(1), walk(1));
        assert_ne!(walk(1), walk(2));
    }

    #[test]
    fn only_jumpers_exceed_the_speed() {
        for index in 0..20 {
            let mut walker = Walker::new(index, 20, 6.0, StdRng::seed_from_u64(7));
            let Walker::Random(walk) = &walker else { panic!("on a route") };
            let kind = walk.kind;
            for _ in 0..600 {
                let before = walker.position();
                let jumped = walker.step(0.1);
                assert!(!jumped || kind == WalkKind::Jumper);
                let distance = walker.position().ground_distance_squared(before).sqrt();
                assert!(jumped || distance < 0.601, "{kind:?} moved {distance} m");
            }
        }
    }
}
