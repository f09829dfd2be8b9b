//! Exchanges links for shorter ones, without loss of connectivity.
//!
//! An exchange adds a link first, and drops longer ones after it is up. Among fixed positions exchanges end: each
//! replaces a link only by a shorter one, which can happen a bounded number of times.

use super::{
    graph::{Graph, Node},
    ground::{Ground, max_depth},
};

/// Pairs without a link that are near enough to want one: for each of both, it is below its number of links or has a
/// longer link. Smaller node first, in order.
pub(crate) fn nearer_pairs(graph: &Graph, ground: &Ground) -> Vec<(Node, Node)> {
    if ground.fits_full_mesh() {
        return Vec::new();
    }
    let longest: Vec<f32> = (0..graph.len())
        .map(|node| {
            let links = graph.neighbours(node).iter().map(|&other| ground.distance(node, other));
            if graph.degree(node) < ground.bounds.target { f32::INFINITY } else { links.fold(0.0, f32::max) }
        })
        .collect();
    let mut pairs = Vec::new();
    for a in 0..graph.len() {
        for &b in ground.nearest(a) {
            let distance = ground.distance(a, b);
            let is_wanted = distance < longest[a] && distance < longest[b];
            if is_wanted && !graph.contains(a, b) && !ground.is_blocked(a, b) && !ground.is_avoided(a, b) {
                pairs.push((a.min(b), a.max(b)));
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Adds a link between two near members, if both have room and each that is at its number of links can drop a longer
/// one afterwards.
pub(crate) fn add_nearer(graph: &mut Graph, ground: &Ground, (a, b): (Node, Node)) -> bool {
    let has_room = |node| graph.degree(node) < ground.bounds.max;
    if !has_room(a) || !has_room(b) {
        return false;
    }
    let mut after = graph.clone();
    after.add(a, b);
    let added = ground.distance(a, b);
    for node in [a, b] {
        if after.degree(node) > ground.bounds.target && !drop_farthest(&mut after, ground, node, added) {
            return false;
        }
    }
    graph.add(a, b);
    true
}

/// Drops a longer link of each end of an added link that has more links than it should. Returns whether it dropped one.
pub(crate) fn drop_farther(graph: &mut Graph, ground: &Ground, (a, b): (Node, Node)) -> bool {
    let added = ground.distance(a, b);
    let mut is_changed = false;
    for node in [a, b] {
        if graph.degree(node) > ground.bounds.target {
            is_changed |= drop_farthest(graph, ground, node, added);
        }
    }
    is_changed
}

/// Drops the longest link between two members for which `may_drop` holds and which both have more links than they
/// should. Returns it.
pub(crate) fn drop_surplus(
    graph: &mut Graph,
    ground: &Ground,
    may_drop: impl Fn(Node) -> bool,
) -> Option<(Node, Node)> {
    if ground.fits_full_mesh() {
        return None;
    }
    let has_surplus = |node: Node| graph.degree(node) > ground.bounds.target && may_drop(node);
    let mut edges: Vec<(Node, Node)> =
        graph.edges().filter(|&(a, b)| has_surplus(a) && has_surplus(b)).collect();
    edges.sort_by(|&(a, b), &(c, d)| ground.distance(c, d).total_cmp(&ground.distance(a, b)));
    edges.into_iter().find(|&edge| drop_if_unneeded(graph, ground, edge))
}

/// Drops the longest link of a node that is longer than `least` and not needed.
fn drop_farthest(graph: &mut Graph, ground: &Ground, node: Node, least: f32) -> bool {
    let mut others: Vec<Node> = graph.neighbours(node).to_vec();
    others.retain(|&other| ground.distance(node, other) > least);
    others.sort_by(|&a, &b| ground.distance(node, b).total_cmp(&ground.distance(node, a)));
    others.into_iter().any(|other| drop_if_unneeded(graph, ground, (node, other)))
}

/// Drops a link if the graph stays 2-connected with short paths, and if another path of links that are up joins its
/// ends or it was not up.
fn drop_if_unneeded(graph: &mut Graph, ground: &Ground, (a, b): (Node, Node)) -> bool {
    // A 2-connected graph has two links a member.
    if graph.degree(a) < 3 || graph.degree(b) < 3 {
        return false;
    }
    graph.remove(a, b);
    let is_unneeded = graph.weakness().is_none()
        && graph.pair_beyond(max_depth(graph.len())).is_none()
        && (!ground.up.contains(a, b) || is_joined_by_links_up(graph, ground, (a, b)));
    if !is_unneeded {
        graph.add(a, b);
    }
    is_unneeded
}

fn is_joined_by_links_up(graph: &Graph, ground: &Ground, (a, b): (Node, Node)) -> bool {
    let mut up = Graph::new(graph.len());
    graph.edges().filter(|&(a, b)| ground.up.contains(a, b)).for_each(|(a, b)| up.add(a, b));
    up.joins(a, b)
}
