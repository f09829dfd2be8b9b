//! External clustering: the caller names the cluster of each peer, and positions do not decide.
//!
//! In the spatial index each cluster is a point of its own, its *anchor*, beyond the join distance of
//! all other anchors, and all members of the cluster are at that point. So the engine treats a cluster
//! like peers at one position: they share an island as far as they fit, rejoin it after a reconnect,
//! and are not moved when nothing changes. The reported positions are kept here; they decide which
//! rules apply.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rustc_hash::FxBuildHasher;

use crate::{ids::PeerIndex, index_vec::IndexVec, point::Point};

/// The join and the leave distance between anchors, in metres. All members of a cluster are at distance
/// 0.
pub(crate) const CLUSTER_DISTANCE_M: f32 = 1.0;
/// The distance between neighbouring anchors, in metres.
const ANCHOR_SPACING_M: f32 = 4.0;
/// Anchors in a row. The coordinate of the last is still exact as an `f32`.
const ANCHORS_PER_ROW: u64 = 1 << 20;

#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters {
    by_name: HashMap<Arc<str>, Cluster, FxBuildHasher>,
    /// The cluster and the reported position of each peer.
    peers: IndexVec<PeerIndex, PeerCluster>,
    /// The number of clusters created so far; the next anchor follows from it.
    created: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    anchor: Point,
    members: u32,
}

#[derive(Debug, Clone, Default)]
struct PeerCluster {
    cluster: Option<Arc<str>>,
    position: Point,
}

impl Clusters {
    fn peer_mut(&mut self, peer: PeerIndex) -> &mut PeerCluster {
        self.peers.grow_to(peer, PeerCluster::default())
    }

    /// Records the reported position of a peer. Returns the position before.
    pub(crate) fn set_position(&mut self, peer: PeerIndex, at: Point) -> Point {
        std::mem::replace(&mut self.peer_mut(peer).position, at)
    }

    /// The reported position of a peer.
    pub(crate) fn position(&self, peer: PeerIndex) -> Point {
        self.peers.get(peer).map_or(Point::default(), |entry| entry.position)
    }

    /// Whether a peer has a cluster.
    pub(crate) fn has_cluster(&self, peer: PeerIndex) -> bool {
        self.name(peer).is_some()
    }

    /// The name of the cluster of a peer.
    pub(crate) fn name(&self, peer: PeerIndex) -> Option<&Arc<str>> {
        self.peers.get(peer)?.cluster.as_ref()
    }

    /// The anchor of the cluster of a peer.
    pub(crate) fn anchor(&self, peer: PeerIndex) -> Option<Point> {
        self.name(peer).and_then(|name| self.by_name.get(name)).map(|cluster| cluster.anchor)
    }

    /// Sets or clears the cluster of a peer. Returns whether it changed.
    pub(crate) fn set(&mut self, peer: PeerIndex, name: Option<&str>) -> bool {
        if self.name(peer).map(|name| &**name) == name {
            return false;
        }
        let cluster = name.map(Arc::<str>::from);
        if let Some(name) = cluster.clone() {
            let count = &mut self.created;
            let cluster = self.by_name.entry(name).or_insert_with(|| {
                *count += 1;
                Cluster { anchor: nth_anchor(*count), members: 0 }
            });
            cluster.members += 1;
        }
        let before = std::mem::replace(&mut self.peer_mut(peer).cluster, cluster);
        if let Some(Entry::Occupied(mut entry)) = before.map(|name| self.by_name.entry(name)) {
            entry.get_mut().members -= 1;
            if entry.get().members == 0 {
                entry.remove();
            }
        }
        true
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.peers.bytes() + self.by_name.capacity() * size_of::<(Arc<str>, Cluster)>()
    }
}

/// The anchor of the cluster with this number, in a grid of rows.
fn nth_anchor(number: u64) -> Point {
    Point {
        x: (number % ANCHORS_PER_ROW) as f32 * ANCHOR_SPACING_M,
        z: (number / ANCHORS_PER_ROW) as f32 * ANCHOR_SPACING_M,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TableIndex;

    fn peer(number: usize) -> PeerIndex {
        PeerIndex::new(number)
    }

    #[test]
    fn cluster_keeps_its_anchor_while_it_has_members() {
        let mut clusters = Clusters::default();
        assert!(
            clusters.set(peer(3), Some("a"))
                && clusters.set(peer(4), Some("a"))
                && clusters.set(peer(5), Some("b"))
        );
        assert!(!clusters.set(peer(3), Some("a")) && !clusters.set(peer(9), None));
        let anchor = clusters.anchor(peer(3));
        assert_eq!(clusters.anchor(peer(4)), anchor);
        assert!(
            anchor.unwrap().distance_squared(clusters.anchor(peer(5)).unwrap())
                > CLUSTER_DISTANCE_M * CLUSTER_DISTANCE_M
        );
        assert!(clusters.set(peer(3), None) && !clusters.has_cluster(peer(3)));
        assert_eq!(clusters.anchor(peer(4)), anchor);
        assert!(clusters.set(peer(4), Some("b")) && clusters.set(peer(3), Some("a")));
        assert_ne!(clusters.anchor(peer(3)), anchor);
        assert_eq!(clusters.by_name.len(), 2);
    }

    #[test]
    fn consecutive_anchors_are_beyond_the_cluster_distance() {
        for number in [1, ANCHORS_PER_ROW - 2, ANCHORS_PER_ROW - 1, ANCHORS_PER_ROW, 4_000 * ANCHORS_PER_ROW]
        {
            let (one, next) = (nth_anchor(number), nth_anchor(number + 1));
            assert!(one.distance_squared(next) > CLUSTER_DISTANCE_M * CLUSTER_DISTANCE_M, "{number}");
        }
    }
}
