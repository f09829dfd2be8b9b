//! An undirected graph over the members, numbered from 0, with the measures that a mesh needs.

/// The number of a member within one planning step.
pub(crate) type Node = usize;

/// An undirected graph without loops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Graph {
    /// The neighbours of each node, in order.
    neighbours: Vec<Vec<Node>>,
}

/// A reason for which a graph does not survive the departure of one node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Weakness {
    /// The node without which the graph is not connected; `None`: it is not connected at all.
    pub(crate) cut: Option<Node>,
    /// For each node, whether it is on the smaller side. The cut node is on neither side.
    pub(crate) side: Vec<bool>,
}

impl Graph {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { neighbours: vec![Vec::new(); nodes] }
    }

    pub(crate) fn len(&self) -> usize {
        self.neighbours.len()
    }

    pub(crate) fn neighbours(&self, node: Node) -> &[Node] {
        &self.neighbours[node]
    }

    pub(crate) fn degree(&self, node: Node) -> usize {
        self.neighbours[node].len()
    }

    pub(crate) fn contains(&self, a: Node, b: Node) -> bool {
        self.neighbours[a].binary_search(&b).is_ok()
    }

    /// Adds an edge; no effect if it exists.
    pub(crate) fn add(&mut self, a: Node, b: Node) {
        for (from, to) in [(a, b), (b, a)] {
            if let Err(index) = self.neighbours[from].binary_search(&to) {
                self.neighbours[from].insert(index, to);
            }
        }
    }

    /// Removes an edge; no effect if it does not exist.
    pub(crate) fn remove(&mut self, a: Node, b: Node) {
        for (from, to) in [(a, b), (b, a)] {
            if let Ok(index) = self.neighbours[from].binary_search(&to) {
                self.neighbours[from].remove(index);
            }
        }
    }

    /// The edges, each with its smaller node first, in order.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (Node, Node)> + '_ {
        self.neighbours
            .iter()
            .enumerate()
            .flat_map(|(a, neighbours)| neighbours.iter().filter(move |&&b| a < b).map(move |&b| (a, b)))
    }

    /// The nodes in the order of a breadth-first search from `start`, each with its distance in hops.
    pub(crate) fn hops_from(&self, start: Node) -> Vec<(Node, usize)> {
        let mut found = vec![false; self.len()];
        found[start] = true;
        let mut order = vec![(start, 0)];
        let mut next = 0;
        while let Some(&(node, hops)) = order.get(next) {
            next += 1;
            for &neighbour in &self.neighbours[node] {
                if !found[neighbour] {
                    found[neighbour] = true;
                    order.push((neighbour, hops + 1));
                }
            }
        }
        order
    }

    /// The connected component of each node: the smallest node in it.
    pub(crate) fn components(&self) -> Vec<Node> {
        let mut component = vec![None; self.len()];
        for start in 0..self.len() {
            if component[start].is_none() {
                for (node, _) in self.hops_from(start) {
                    component[node] = Some(start);
                }
            }
        }
        component.into_iter().enumerate().map(|(node, component)| component.unwrap_or(node)).collect()
    }

    /// Whether a path leads from `a` to `b`.
    pub(crate) fn joins(&self, a: Node, b: Node) -> bool {
        self.hops_from(a).iter().any(|&(node, _)| node == b)
    }

    /// A pair of nodes that no path of at most `hops` edges joins, of the node that reaches the fewest others.
    ///
    /// The nodes within k + 1 hops are those within k hops of a neighbour: bit sets make a step of all nodes at once
    /// cheap.
    pub(crate) fn pair_beyond(&self, hops: usize) -> Option<(Node, Node)> {
        let words = self.len().div_ceil(64);
        let mut reached = vec![0_u64; words * self.len()];
        for node in 0..self.len() {
            reached[node * words + node / 64] |= 1 << (node % 64);
        }
        let mut next = reached.clone();
        for _ in 0..hops {
            for (node, neighbours) in self.neighbours.iter().enumerate() {
                let target = &mut next[node * words..][..words];
                for &neighbour in neighbours {
                    let source = &reached[neighbour * words..][..words];
                    target.iter_mut().zip(source).for_each(|(target, source)| *target |= source);
                }
            }
            if next == reached {
                break;
            }
            reached.copy_from_slice(&next);
        }
        let count = |node: Node| -> u32 {
            reached[node * words..][..words].iter().map(|word| word.count_ones()).sum()
        };
        let node = (0..self.len()).min_by_key(|&node| count(node))?;
        let missing =
            (0..self.len()).find(|&other| reached[node * words + other / 64] >> (other % 64) & 1 == 0);
        missing.map(|other| (node, other))
    }

    /// A reason for which the graph is not 2-connected; `None` if it is, or has fewer than two nodes. Two nodes with
    /// an edge count as 2-connected.
    ///
    /// A depth-first search with low points (Hopcroft and Tarjan, 1973). The first cut node found has a side without
    /// a further one.
    pub(crate) fn weakness(&self) -> Option<Weakness> {
        let mut search =
            Search { order: vec![None; self.len()], low: vec![0; self.len()], visited: Vec::new() };
        if self.len() < 2 {
            return None;
        }
        if let Some((cut, subtree_start)) = search.first_cut(self, 0) {
            return Some(self.smaller_side(&search.visited[subtree_start..], Some(cut)));
        }
        (search.visited.len() < self.len()).then(|| self.smaller_side(&search.visited, None))
    }

    /// The weakness that separates `part` from the other nodes.
    fn smaller_side(&self, part: &[Node], cut: Option<Node>) -> Weakness {
        let rest = self.len() - part.len() - usize::from(cut.is_some());
        let part_is_smaller = part.len() <= rest;
        let mut side = vec![!part_is_smaller; self.len()];
        for &node in part {
            side[node] = part_is_smaller;
        }
        if let Some(cut) = cut {
            side[cut] = false;
        }
        Weakness { cut, side }
    }
}

/// The state of a depth-first search.
struct Search {
    /// The index of each visited node in `visited`.
    order: Vec<Option<usize>>,
    /// The smallest index that the subtree of a node has an edge to.
    low: Vec<usize>,
    visited: Vec<Node>,
}

impl Search {
    /// Searches from `root` up to the first cut node. Returns it and the index in `visited` from which on the nodes
    /// are separated by it from the rest.
    fn first_cut(&mut self, graph: &Graph, root: Node) -> Option<(Node, usize)> {
        // Each entry is a node on the path from the root, and the number of neighbours already followed.
        let mut path = vec![(root, 0)];
        self.visit(root);
        while let Some((node, next)) = path.last_mut() {
            let (parent_of_next, followed) = (*node, *next);
            *next += 1;
            if let Some(&neighbour) = graph.neighbours(parent_of_next).get(followed) {
                match self.order[neighbour] {
                    None => {
                        self.visit(neighbour);
                        path.push((neighbour, 0));
                    }
                    Some(index) => self.low[parent_of_next] = self.low[parent_of_next].min(index),
                }
                continue;
            }
            path.pop();
            let Some(&(parent, _)) = path.last() else { break };
            let (start, low) = (self.order[parent_of_next]?, self.low[parent_of_next]);
            // The root is a cut node if a part of its component lies outside its first subtree.
            let is_cut = if parent == root {
                graph.neighbours(root).iter().any(|&other| self.order[other].is_none())
            } else {
                Some(low) >= self.order[parent]
            };
            if is_cut {
                return Some((parent, start));
            }
            self.low[parent] = self.low[parent].min(low);
        }
        None
    }

    fn visit(&mut self, node: Node) {
        self.order[node] = Some(self.visited.len());
        self.low[node] = self.visited.len();
        self.visited.push(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(Node, Node)]) -> Graph {
        let mut graph = Graph::new(nodes);
        edges.iter().for_each(|&(a, b)| graph.add(a, b));
        graph
    }

    fn side(weakness: &Weakness) -> Vec<Node> {
        (0..weakness.side.len()).filter(|&node| weakness.side[node]).collect()
    }

    #[test]
    fn ring_has_no_weakness() {
        assert_eq!(graph(4, &[(0, 1), (1, 2), (2, 3), (0, 3)]).weakness(), None);
        assert_eq!(graph(2, &[(0, 1)]).weakness(), None);
        assert_eq!(graph(1, &[]).weakness(), None);
    }

    #[test]
    fn separate_parts_are_a_weakness_without_cut() {
        let weakness = graph(5, &[(0, 1), (1, 2), (0, 2), (3, 4)]).weakness().unwrap();
        assert_eq!((weakness.cut, side(&weakness)), (None, vec![3, 4]));
    }

    #[test]
    fn cut_node_is_found_wherever_the_search_starts() {
        // Two triangles that share a node; then a triangle with a tail.
        for shared in 0..5 {
            let names: Vec<Node> = (0..5).map(|node| (node + shared) % 5).collect();
            let edges = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4)].map(|(a, b)| (names[a], names[b]));
            let weakness = graph(5, &edges).weakness().unwrap();
            assert_eq!(weakness.cut, Some(names[2]));
            assert_eq!(side(&weakness).len(), 2);
        }
        let weakness = graph(4, &[(0, 1), (1, 2), (0, 2), (2, 3)]).weakness().unwrap();
        assert_eq!((weakness.cut, side(&weakness)), (Some(2), vec![3]));
    }

    #[test]
    fn pair_beyond_the_hops_is_found() {
        let path = graph(4, &[(0, 1), (1, 2), (2, 3)]);
        assert_eq!(path.pair_beyond(2), Some((0, 3)));
        assert_eq!(path.pair_beyond(3), None);
        assert_eq!(graph(3, &[(0, 1)]).pair_beyond(9), Some((2, 0)));
    }

    #[test]
    fn components_are_named_by_their_smallest_node() {
        assert_eq!(graph(5, &[(0, 3), (1, 4)]).components(), [0, 1, 2, 0, 1]);
        assert!(graph(3, &[(0, 1)]).joins(0, 1) && !graph(3, &[(0, 1)]).joins(0, 2));
    }

    #[test]
    fn edges_are_listed_once_and_in_order() {
        let mut graph = graph(4, &[(2, 1), (0, 3), (1, 2)]);
        assert_eq!(graph.edges().collect::<Vec<_>>(), [(0, 3), (1, 2)]);
        graph.remove(3, 0);
        assert_eq!((graph.degree(0), graph.contains(0, 3)), (0, false));
    }
}
