//! Broadcast trees: one for each source, over the links that are up.
//!
//! A tree is a breadth-first search from its source, so each path in it has the fewest hops. Where several neighbours
//! of a member are equally near the source, the parent is the one with the fewest children in this tree so far; a hash
//! of source, parent and member decides between equals, so that different sources use different relays.

use crate::{
    plan::Alias,
    topology::{Graph, Node, max_depth},
};

/// The broadcast trees of all sources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trees {
    nodes: usize,
    /// The parent of each node in the tree of each source: at `source * nodes + node`. `None` for the source itself and
    /// for nodes that no path reaches.
    parents: Vec<Option<u32>>,
}

impl Trees {
    /// Builds the trees over the links in `graph`, of nodes with these aliases. Without `relay`, only the neighbours of a source are reached. No path
    /// has more than twice the hops that a complete target graph needs: a longer one delays more than the fallback.
    pub(crate) fn new(graph: &Graph, aliases: &[Alias], relay: bool) -> Self {
        let nodes = graph.len();
        let depth = if relay { 2 * max_depth(nodes) } else { 1 };
        let mut trees = Self { nodes, parents: vec![None; nodes * nodes] };
        let mut search = Search::default();
        for source in 0..nodes {
            search.run(graph, aliases, source, depth, &mut trees.parents[source * nodes..][..nodes]);
        }
        trees
    }

    pub(crate) fn parent(&self, source: Node, node: Node) -> Option<Node> {
        self.parents[source * self.nodes + node].map(|parent| parent as Node)
    }

    /// Whether a path leads from `source` to another node.
    pub(crate) fn reaches(&self, source: Node, node: Node) -> bool {
        self.parents[source * self.nodes + node].is_some()
    }

    /// The hops of the longest path.
    pub(crate) fn depth(&self) -> usize {
        let hops = |source: Node, node: Node| {
            std::iter::successors(self.parent(source, node), |&parent| self.parent(source, parent)).count()
        };
        let pairs = (0..self.nodes).flat_map(|source| (0..self.nodes).map(move |node| (source, node)));
        pairs.map(|(source, node)| hops(source, node)).max().unwrap_or(0)
    }

    /// Pairs of a source and another node that no path reaches, in order.
    pub(crate) fn unreached(&self) -> impl Iterator<Item = (Node, Node)> + '_ {
        let pairs = (0..self.nodes).flat_map(|source| (0..self.nodes).map(move |node| (source, node)));
        pairs.filter(|&(source, node)| source != node && !self.reaches(source, node))
    }

    /// The nodes that a difference between two sets of trees over the same nodes concerns: sources and members of
    /// changed paths.
    pub(crate) fn difference(&self, other: &Self) -> Vec<Node> {
        let mut is_concerned = vec![false; self.nodes];
        for source in 0..self.nodes {
            let row = source * self.nodes..(source + 1) * self.nodes;
            let (own, others) = (&self.parents[row.clone()], &other.parents[row]);
            for node in (0..self.nodes).filter(|&node| own[node] != others[node]) {
                is_concerned[source] = true;
                is_concerned[node] = true;
            }
        }
        (0..self.nodes).filter(|&node| is_concerned[node]).collect()
    }
}

/// The buffers of a breadth-first search.
#[derive(Default)]
struct Search {
    hops: Vec<Option<u32>>,
    children: Vec<u32>,
    order: Vec<Node>,
}

impl Search {
    fn run(
        &mut self,
        graph: &Graph,
        aliases: &[Alias],
        source: Node,
        depth: usize,
        parents: &mut [Option<u32>],
    ) {
        self.hops.clear();
        self.hops.resize(graph.len(), None);
        self.children.clear();
        self.children.resize(graph.len(), 0);
        self.order.clear();
        self.order.push(source);
        self.hops[source] = Some(0);
        let mut next = 0;
        while let Some(&node) = self.order.get(next) {
            next += 1;
            let Some(hops) = self.hops[node] else { continue };
            if hops > 0 {
                // All nodes with fewer hops have been found by now.
                let nearer =
                    graph.neighbours(node).iter().filter(|&&other| self.hops[other] == Some(hops - 1));
                let hash = |other: Node| mixed([source, other, node].map(|node| aliases[node]));
                let parent = nearer.min_by_key(|&&other| (self.children[other], hash(other)));
                if let Some(&parent) = parent {
                    self.children[parent] += 1;
                    parents[node] = Some(parent as u32);
                }
            }
            if hops as usize == depth {
                continue;
            }
            for &neighbour in graph.neighbours(node) {
                if self.hops[neighbour].is_none() {
                    self.hops[neighbour] = Some(hops + 1);
                    self.order.push(neighbour);
                }
            }
        }
    }
}

/// A hash of the aliases of a source, a parent and a node: the finalizer of SplitMix64. Aliases stay when members join
/// or leave, so that most paths stay as well.
fn mixed([source, parent, node]: [Alias; 3]) -> u64 {
    let key = u64::from(source) << 42 ^ u64::from(parent) << 21 ^ u64::from(node);
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(Node, Node)]) -> Graph {
        let mut graph = Graph::new(nodes);
        edges.iter().for_each(|&(a, b)| graph.add(a, b));
        graph
    }

    fn trees(graph: &Graph, relay: bool) -> Trees {
        let aliases: Vec<Alias> = (1..).take(graph.len()).collect();
        Trees::new(graph, &aliases, relay)
    }

    #[test]
    fn paths_have_the_fewest_hops() {
        let trees = trees(&graph(4, &[(0, 1), (1, 2), (2, 3), (0, 3)]), true);
        assert_eq!((trees.parent(0, 1), trees.parent(0, 3)), (Some(0), Some(0)));
        assert!(matches!(trees.parent(0, 2), Some(1 | 3)));
        assert_eq!(trees.parent(0, 0), None);
        assert_eq!(trees.unreached().next(), None);
    }

    #[test]
    fn children_are_spread_over_equal_parents() {
        // 0 is linked to 1 and 2, and both of these to 3, 4, 5 and 6.
        let mut graph = graph(7, &[(0, 1), (0, 2)]);
        (3..7).for_each(|node| [1, 2].into_iter().for_each(|relay| graph.add(relay, node)));
        let trees = trees(&graph, true);
        let children = |relay| (3..7).filter(|&node| trees.parent(0, node) == Some(relay)).count();
        assert_eq!((children(1), children(2)), (2, 2));
    }

    #[test]
    fn without_relay_only_neighbours_are_reached() {
        let trees = trees(&graph(3, &[(0, 1), (1, 2)]), false);
        assert!(trees.unreached().eq([(0, 2), (2, 0)]));
    }

    #[test]
    fn too_long_path_is_not_used() {
        let edges: Vec<_> = (1..40).map(|node| (node - 1, node)).collect();
        let trees = trees(&graph(40, &edges), true);
        assert!(trees.reaches(0, 16) && !trees.reaches(0, 17));
    }

    #[test]
    fn difference_names_sources_and_moved_nodes() {
        let before = trees(&graph(4, &[(0, 1), (1, 2)]), true);
        let after = trees(&graph(4, &[(0, 1), (1, 2), (2, 3)]), true);
        assert_eq!(before.difference(&after), [0, 1, 2, 3]);
        assert_eq!(before.difference(&before), [0; 0]);
    }
}
