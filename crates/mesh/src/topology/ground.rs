//! The facts that a target graph is chosen by: positions, bounds, and the states of links.

use std::{collections::BTreeSet, num::NonZero};

use kiddo::{ImmutableKdTree, SquaredEuclidean};
use protocol::Position;

use super::graph::{Graph, Node};

/// Coordinates beyond this many metres count as this far away, so that squares of distances are finite.
const MAX_COORDINATE_M: f32 = 1e9;

/// The bounds of the number of links of a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkBounds {
    pub(crate) target: usize,
    pub(crate) max: usize,
}

/// The members in one planning step, in the order of their addresses, and the states of their links.
pub(crate) struct Ground {
    points: Vec<[f32; 2]>,
    /// The nearest other nodes of each node, nearest first.
    nearest: Vec<Vec<Node>>,
    pub(crate) bounds: LinkBounds,
    /// Pairs that must not be linked, smaller node first.
    pub(crate) blocked: BTreeSet<(Node, Node)>,
    /// Pairs that are linked only if nothing else serves.
    pub(crate) avoided: BTreeSet<(Node, Node)>,
    /// The links that both ends report.
    pub(crate) up: Graph,
    /// Whether links that are up stay in the graph even at the cost of its properties.
    pub(crate) keeps_up: bool,
}

/// The greatest number of hops that the paths of a target graph need: ⌈log₂ members⌉ + 2.
pub(crate) fn max_depth(members: usize) -> usize {
    members.next_power_of_two().ilog2() as usize + 2
}

impl Ground {
    pub(crate) fn new(positions: impl IntoIterator<Item = Position>, bounds: LinkBounds) -> Self {
        let points: Vec<[f32; 2]> = positions.into_iter().map(point).collect();
        let nearest = nearest(&points, bounds.max);
        let up = Graph::new(points.len());
        Self {
            points,
            nearest,
            bounds,
            blocked: BTreeSet::new(),
            avoided: BTreeSet::new(),
            up,
            keeps_up: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// The square of the distance on the ground, in square metres.
    pub(crate) fn distance(&self, a: Node, b: Node) -> f32 {
        squared(&self.points[a], &self.points[b])
    }

    /// The nearest other nodes, at most as many as a member may have links.
    pub(crate) fn nearest(&self, node: Node) -> &[Node] {
        &self.nearest[node]
    }

    pub(crate) fn is_blocked(&self, a: Node, b: Node) -> bool {
        self.blocked.contains(&(a.min(b), a.max(b)))
    }

    pub(crate) fn is_avoided(&self, a: Node, b: Node) -> bool {
        self.avoided.contains(&(a.min(b), a.max(b)))
    }

    /// Whether every two members may hold a link.
    pub(crate) fn fits_full_mesh(&self) -> bool {
        self.len() <= self.bounds.max + 1
    }

    /// The nodes along a space-filling curve (Morton order), so that consecutive nodes are mostly near.
    pub(crate) fn along_curve(&self) -> Vec<Node> {
        let axis = |axis: usize| {
            let values = self.points.iter().map(move |point| point[axis]);
            let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v), high.max(v)));
            (low, f32::from(u16::MAX) / (high - low).max(f32::MIN_POSITIVE))
        };
        let scales = [axis(0), axis(1)];
        let cell = |node: Node, axis: usize| {
            // A cast of a float saturates.
            ((self.points[node][axis] - scales[axis].0) * scales[axis].1) as u16
        };
        let mut order: Vec<Node> = (0..self.len()).collect();
        order.sort_by_key(|&node| (interleaved(cell(node, 0), cell(node, 1)), node));
        order
    }
}

fn point(position: Position) -> [f32; 2] {
    let axis = |metres: f32| {
        if metres.is_nan() { 0.0 } else { metres.clamp(-MAX_COORDINATE_M, MAX_COORDINATE_M) }
    };
    [axis(position.x), axis(position.z)]
}

fn squared(a: &[f32; 2], b: &[f32; 2]) -> f32 {
    let (dx, dz) = (a[0] - b[0], a[1] - b[1]);
    dx * dx + dz * dz
}

/// The bits of both numbers in turn.
fn interleaved(x: u16, y: u16) -> u32 {
    (0..16).fold(0, |code, bit| {
        let pair = u32::from(x >> bit & 1) | u32::from(y >> bit & 1) << 1;
        code | pair << (2 * bit)
    })
}

/// The `count` nearest other points of each point, nearest first; points at one distance in the order of their nodes.
fn nearest(points: &[[f32; 2]], count: usize) -> Vec<Vec<Node>> {
    let tree = ImmutableKdTree::<f32, 2>::new_from_slice(points);
    let Ok(tree) = tree else { return vec![Vec::new(); points.len()] };
    let of = |(node, point): (Node, &[f32; 2])| {
        // The node itself, the wanted ones, and one more that shows whether the last distance is shared.
        let Some(wanted) = NonZero::new(count + 2) else { return Vec::new() };
        let query = tree.query(point).nearest_n::<SquaredEuclidean<f32>>(wanted).execute();
        let mut found: Vec<Node> = query.iter().map(|item| item.item as Node).collect();
        if let [.., last, beyond] = &query[..]
            && query.len() == count + 2
            && last.distance >= beyond.distance
        {
            let within = tree.query(point).within::<SquaredEuclidean<f32>>(beyond.distance).unsorted();
            found.extend(within.execute().iter().map(|item| item.item as Node));
        }
        found.sort_by(|&a, &b| {
            squared(point, &points[a]).total_cmp(&squared(point, &points[b])).then(a.cmp(&b))
        });
        found.dedup();
        found.retain(|&other| other != node);
        found.truncate(count);
        found
    };
    points.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nearest_by_sorting(points: &[[f32; 2]], count: usize) -> Vec<Vec<Node>> {
        let of = |node: Node| {
            let mut others: Vec<Node> = (0..points.len()).filter(|&other| other != node).collect();
            let distance = |other: Node| squared(&points[node], &points[other]);
            others.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
            others.truncate(count);
            others
        };
        (0..points.len()).map(of).collect()
    }

    proptest! {
        /// Coordinates from a small range, so that many distances are equal.
        #[test]
        fn nearest_equals_sorting_all_distances(
            points in prop::collection::vec((0_u8..6, 0_u8..6), 0..120),
            count in 1_usize..8,
        ) {
            let points: Vec<[f32; 2]> = points.iter().map(|&(x, z)| [x.into(), z.into()]).collect();
            prop_assert_eq!(nearest(&points, count), nearest_by_sorting(&points, count));
        }
    }

    #[test]
    fn invalid_coordinates_have_finite_distances() {
        let positions = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0].map(|x| Position::new(x, 0.0, x));
        let ground = Ground::new(positions, LinkBounds { target: 4, max: 6 });
        assert!((0..4).all(|a| (0..4).all(|b| ground.distance(a, b).is_finite())));
        assert_eq!(ground.nearest(0)[0], 3);
        assert_eq!(ground.along_curve().len(), 4);
    }

    #[test]
    fn max_depth_grows_with_the_logarithm() {
        assert_eq!([1, 2, 3, 8, 9, 128, 200].map(max_depth), [2, 3, 4, 5, 6, 9, 10]);
    }
}
