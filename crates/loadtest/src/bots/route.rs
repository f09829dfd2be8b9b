//! A closed route that bots walk repeatedly.

use std::{str::FromStr, sync::Arc};

/// A point on the ground, in metres: x and z.
pub(crate) type GroundPoint = (f32, f32);

/// Points on the ground in metres, walked from the first to the last and back to the first.
#[derive(Debug, Clone)]
pub(crate) struct Route(Arc<[Leg]>);

/// The line from one point to the next.
#[derive(Debug)]
struct Leg {
    from: GroundPoint,
    to: GroundPoint,
    length_m: f32,
}

/// One bot's walk along a route.
#[derive(Debug)]
pub(crate) struct RouteWalk {
    route: Route,
    /// The distance from the route's first point, in metres.
    along_m: f32,
    speed_m_s: f32,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let points: Option<Vec<GroundPoint>> = text.split_whitespace().map(point).collect();
        let points = points.ok_or("must be points such as \"0,0 100,-20\": x and z in metres")?;
        let next = points.iter().cycle().skip(1);
        let legs = points.iter().zip(next).map(|(&from, &to)| {
            let length_m = (to.0 - from.0).hypot(to.1 - from.1);
            Leg { from, to, length_m }
        });
        let route = Self(legs.collect());
        match route.length_m() > 0.0 {
            true => Ok(route),
            false => Err("must have at least two different points".to_owned()),
        }
    }
}

fn point(text: &str) -> Option<GroundPoint> {
    let (x, z) = text.split_once(',')?;
    let metres = |text: &str| text.parse::<f32>().ok().filter(|metres| metres.is_finite());
    Some((metres(x)?, metres(z)?))
}

impl Route {
    fn length_m(&self) -> f32 {
        self.0.iter().map(|leg| leg.length_m).sum()
    }

    fn at(&self, mut along_m: f32) -> GroundPoint {
        for leg in self.0.iter() {
            if along_m < leg.length_m {
                let share = along_m / leg.length_m;
                let between = |from: f32, to: f32| from + (to - from) * share;
                return (between(leg.from.0, leg.to.0), between(leg.from.1, leg.to.1));
            }
            along_m -= leg.length_m;
        }
        self.0.last().map_or((0.0, 0.0), |last| last.to)
    }
}

impl RouteWalk {
    /// The walk of a bot among `count`, which start evenly spread along the route.
    pub(crate) fn new(route: Route, index: usize, count: usize, speed_m_s: f32) -> Self {
        let along_m = route.length_m() * index as f32 / count.max(1) as f32;
        Self { route, along_m, speed_m_s }
    }

    pub(crate) fn position(&self) -> GroundPoint {
        self.route.at(self.along_m)
    }

    /// Advances by so many seconds.
    pub(crate) fn step(&mut self, seconds: f32) {
        self.along_m = (self.along_m + self.speed_m_s * seconds) % self.route.length_m();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_walk_visits_all_points_and_wraps_around() {
        let route: Route = "0,0 30,0 30,-40".parse().unwrap();
        assert_eq!(route.length_m(), 120.0);
        let mut round = RouteWalk::new(route, 0, 4, 10.0);
        let mut places = Vec::new();
        for _ in 0..13 {
            places.push(round.position());
            round.step(1.0);
        }
        assert_eq!(
            places[..8],
            [
                (0.0, 0.0),
                (10.0, 0.0),
                (20.0, 0.0),
                (30.0, 0.0),
                (30.0, -10.0),
                (30.0, -20.0),
                (30.0, -30.0),
                (30.0, -40.0),
            ]
        );
        assert_eq!(places[12], (0.0, 0.0));
    }

    #[test]
    fn bots_start_spread_along_the_route() {
        let route: Route = "-10,0 10,0".parse().unwrap();
        let places = [0, 1, 2, 3].map(|index| RouteWalk::new(route.clone(), index, 4, 6.0).position());
        assert_eq!(places, [(-10.0, 0.0), (0.0, 0.0), (10.0, 0.0), (0.0, 0.0)]);
    }

    #[test]
    fn malformed_routes_are_refused() {
        for text in ["", "1,1", "1,1 1,1", "1 2", "1,x 2,2", "0,0 inf,0", "0,0,0 1,1,1"] {
            assert!(text.parse::<Route>().is_err(), "{text:?}");
        }
    }
}
