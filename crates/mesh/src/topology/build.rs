//! Builds the target graph: links to near members, and those that keep the graph 2-connected and its paths short.
//!
//! 1. Members below the number of links that they should hold are linked to near ones that are below it too.
//! 2. While one departure could separate the members, the two sides are joined by the shortest possible link.
//! 3. While a path is longer than [`max_depth`], a chord joins the surroundings of its ends.
//!
//! Each step keeps existing links. Where all members are at the bound, a link that is not needed makes room; if
//! the result still lacks a property, a graph built anew is taken instead: a ring along a space-filling curve, which
//! is 2-connected, then chords, then links to near members.

use super::{
    graph::{Graph, Node},
    ground::{Ground, max_depth},
};

/// How many nodes around each end of a long path may be joined by a chord.
const CHORD_CANDIDATES: usize = 6;

/// The target graph that follows `previous`. It keeps the links of `previous` that are not blocked, as far as the
/// bounds allow.
pub(crate) fn repaired(previous: &Graph, ground: &Ground) -> Graph {
    if ground.fits_full_mesh() {
        return full_mesh(ground);
    }
    let mut builder = Builder { ground, graph: kept(previous, ground) };
    builder.link_near();
    builder.strengthen();
    builder.shorten();
    let properties = builder.properties();
    if properties == ALL_PROPERTIES || ground.keeps_up {
        return builder.graph;
    }
    let anew = built_anew(ground);
    if anew.properties() > properties { anew.graph } else { builder.graph }
}

fn full_mesh(ground: &Ground) -> Graph {
    let mut graph = Graph::new(ground.len());
    for a in 0..ground.len() {
        for b in a + 1..ground.len() {
            if !ground.is_blocked(a, b) {
                graph.add(a, b);
            }
        }
    }
    graph
}

/// The links of `previous` that may stay. Links that are up come first, then the shorter ones.
fn kept(previous: &Graph, ground: &Ground) -> Graph {
    let may_stay = |&(a, b): &(Node, Node)| {
        !ground.is_blocked(a, b) && (ground.up.contains(a, b) || !ground.is_avoided(a, b))
    };
    let mut edges: Vec<(Node, Node)> = previous.edges().filter(may_stay).collect();
    edges.sort_by(|&(a, b), &(c, d)| {
        let by_state = ground.up.contains(c, d).cmp(&ground.up.contains(a, b));
        by_state.then(ground.distance(a, b).total_cmp(&ground.distance(c, d))).then((a, b).cmp(&(c, d)))
    });
    let mut graph = Graph::new(ground.len());
    for (a, b) in edges {
        if graph.degree(a) < ground.bounds.max && graph.degree(b) < ground.bounds.max {
            graph.add(a, b);
        }
    }
    graph
}

fn built_anew(ground: &Ground) -> Builder<'_> {
    let mut builder = Builder { ground, graph: Graph::new(ground.len()) };
    let ring = ground.along_curve();
    for (&a, &b) in ring.iter().zip(ring.iter().cycle().skip(1)) {
        if !ground.is_blocked(a, b) {
            builder.graph.add(a, b);
        }
    }
    builder.shorten();
    builder.link_near();
    builder.strengthen();
    builder.shorten();
    builder
}

/// Whether a graph is connected, 2-connected, and has short paths; greater is better.
type Properties = (bool, bool, bool);
const ALL_PROPERTIES: Properties = (true, true, true);

struct Builder<'a> {
    ground: &'a Ground,
    graph: Graph,
}

impl Builder<'_> {
    fn properties(&self) -> Properties {
        let weakness = self.graph.weakness();
        let is_connected = self.graph.hops_from(0).len() == self.graph.len();
        (is_connected, weakness.is_none(), self.graph.pair_beyond(max_depth(self.graph.len())).is_none())
    }

    fn has_room(&self, node: Node) -> bool {
        self.graph.degree(node) < self.ground.bounds.max
    }

    fn may_link(&self, a: Node, b: Node) -> bool {
        a != b && !self.graph.contains(a, b) && !self.ground.is_blocked(a, b)
    }

    /// Links members that are below their number of links, nearest pairs first. Two links of each member stay free
    /// for the other steps.
    fn link_near(&mut self) {
        let bounds = self.ground.bounds;
        let limit = bounds.target.min(bounds.max.saturating_sub(2));
        let needy: Vec<bool> = (0..self.graph.len()).map(|node| self.graph.degree(node) < limit).collect();
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        for a in (0..self.graph.len()).filter(|&node| needy[node]) {
            let near = self.ground.nearest(a).iter().filter(|&&b| needy[b]);
            pairs.extend(near.map(|&b| (a.min(b), a.max(b))));
        }
        pairs.sort_by(|&(a, b), &(c, d)| {
            self.ground.distance(a, b).total_cmp(&self.ground.distance(c, d)).then((a, b).cmp(&(c, d)))
        });
        for (a, b) in pairs {
            let both_below = self.graph.degree(a) < limit && self.graph.degree(b) < limit;
            if both_below && self.may_link(a, b) && !self.ground.is_avoided(a, b) {
                self.graph.add(a, b);
            }
        }
    }

    /// Adds links until the graph is 2-connected, or until no link helps.
    fn strengthen(&mut self) {
        // Each round adds a link, and removes one at most if members have no room. The bound ends cycles of both.
        for _ in 0..4 * self.graph.len() {
            let Some(weakness) = self.graph.weakness() else { return };
            let sides = Sides::new(&weakness.side, weakness.cut);
            let Some((a, b)) = self.shortest_link(&sides).or_else(|| self.make_room(&sides)) else { return };
            self.graph.add(a, b);
        }
    }

    /// The shortest link between the two sides that members have room for. A pair to avoid comes after all others.
    fn shortest_link(&self, sides: &Sides) -> Option<(Node, Node)> {
        let with_room = |nodes: &[Node]| -> Vec<Node> {
            nodes.iter().copied().filter(|&node| self.has_room(node)).collect()
        };
        let (left, right) = (with_room(&sides.left), with_room(&sides.right));
        let mut best: Option<((bool, f32), (Node, Node))> = None;
        for &a in &left {
            for &b in &right {
                let rank = (self.ground.is_avoided(a, b), self.ground.distance(a, b));
                if best.is_none_or(|(least, _)| rank < least) && self.may_link(a, b) {
                    best = Some((rank, (a, b)));
                }
            }
        }
        best.map(|(_, pair)| pair)
    }

    /// Removes a link that connectivity does not need, so that the two sides can be joined; returns the pair that joins
    /// them. Links that are not up come first, then the longest.
    fn make_room(&mut self, sides: &Sides) -> Option<(Node, Node)> {
        let up = &self.ground.up;
        let may_go = |&(a, b): &(Node, Node)| !self.ground.keeps_up || !up.contains(a, b);
        let mut edges: Vec<(Node, Node)> = self.graph.edges().filter(may_go).collect();
        edges.sort_by(|&(a, b), &(c, d)| {
            let by_state = up.contains(a, b).cmp(&up.contains(c, d));
            by_state.then(self.ground.distance(c, d).total_cmp(&self.ground.distance(a, b)))
        });
        for (a, b) in edges {
            self.graph.remove(a, b);
            let joining = self.shortest_link(sides).filter(|&pair| pair != (a.min(b), a.max(b)));
            if joining.is_some() && self.graph.joins(a, b) {
                return joining;
            }
            self.graph.add(a, b);
        }
        None
    }

    /// Adds chords until all paths are short, or until members have no room for one that helps.
    fn shorten(&mut self) {
        let depth = max_depth(self.graph.len());
        while let Some((a, b)) = self.graph.pair_beyond(depth) {
            let Some((a, b)) = self.chord(a, b) else { return };
            self.graph.add(a, b);
        }
    }

    /// The pair that may be linked, of a node near `a` and one near `b`, with the fewest hops to these.
    fn chord(&self, a: Node, b: Node) -> Option<(Node, Node)> {
        let around = |node: Node| -> Vec<(Node, usize)> {
            let mut order = self.graph.hops_from(node);
            order.retain(|&(node, _)| self.has_room(node));
            order.truncate(CHORD_CANDIDATES);
            order
        };
        let (near_a, near_b) = (around(a), around(b));
        let pairs = near_a.iter().flat_map(|from| near_b.iter().map(move |to| (from, to)));
        pairs
            .filter(|((a, _), (b, _))| self.may_link(*a, *b) && !self.ground.is_avoided(*a, *b))
            .min_by_key(|((_, hops_a), (_, hops_b))| hops_a + hops_b)
            .map(|((a, _), (b, _))| (*a, *b))
    }
}

/// The nodes on the two sides of a weakness.
struct Sides {
    left: Vec<Node>,
    right: Vec<Node>,
}

impl Sides {
    fn new(side: &[bool], cut: Option<Node>) -> Self {
        let (left, right) = (0..side.len()).filter(|&node| Some(node) != cut).partition(|&node| side[node]);
        Self { left, right }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::Position;

    use super::{super::ground::LinkBounds, *};

    fn assert_sound(graph: &Graph, ground: &Ground) -> Result<(), TestCaseError> {
        let (nodes, max) = (graph.len(), ground.bounds.max);
        prop_assert!((0..nodes).all(|node| graph.degree(node) <= max), "degree");
        prop_assert_eq!(graph.weakness(), None, "{} nodes, at most {} links", nodes, max);
        if max > 2 {
            prop_assert_eq!(graph.pair_beyond(max_depth(nodes)), None, "{} nodes, at most {}", nodes, max);
        }
        Ok(())
    }

    /// Positions in a city, on one spot, on a line, or in two far groups.
    fn positions(nodes: usize) -> impl Strategy<Value = Vec<Position>> {
        let spread = prop_oneof![Just(200.0_f32), Just(0.0), Just(5.0)];
        (spread, any::<bool>(), prop::collection::vec((0.0_f32..1.0, 0.0_f32..1.0, any::<bool>()), nodes))
            .prop_map(|(spread, is_line, points)| {
                let far = if spread < 100.0 { 1_000.0 } else { 0.0 };
                let position = |(x, z, is_far): (f32, f32, bool)| {
                    let offset = if is_far { far } else { 0.0 };
                    Position::new(x * spread + offset, 0.0, if is_line { 0.0 } else { z * spread })
                };
                points.into_iter().map(position).collect()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn graph_from_nothing_is_sound(
            positions in (3_usize..=200).prop_flat_map(positions),
            max in 2_usize..=6,
            target in 1_usize..=6,
        ) {
            let ground = Ground::new(positions, LinkBounds { target: target.min(max), max });
            let graph = repaired(&Graph::new(ground.len()), &ground);
            assert_sound(&graph, &ground)?;
            prop_assert_eq!(&repaired(&graph, &ground), &graph, "a sound graph stays");
        }

        #[test]
        fn graph_built_anew_is_sound(positions in (7_usize..=200).prop_flat_map(positions), max in 3_usize..=6) {
            let ground = Ground::new(positions, LinkBounds { target: 4.min(max), max });
            if !ground.fits_full_mesh() {
                assert_sound(&built_anew(&ground).graph, &ground)?;
            }
        }
    }

    #[test]
    fn every_size_up_to_200_is_sound() {
        for max in [3, 4, 6] {
            for nodes in 3..=200_usize {
                let at = |node: usize| Position::new((node * 37 % 101) as f32, 0.0, (node * 53 % 97) as f32);
                let ground = Ground::new((0..nodes).map(at), LinkBounds { target: max.min(4), max });
                assert_sound(&repaired(&Graph::new(nodes), &ground), &ground).unwrap();
            }
        }
    }
}
