//! Islands whose members are said by somebody else.
//!
//! Who is in which cluster takes the place of where people stand: each cluster is a spot of its own on
//! the ground, out of reach of all others, and all its members stand on it. So everything that holds of
//! people who stand on one spot holds of clusters: they are together as far as they fit, come back to
//! where they were, and are left alone when nothing changes. Where people really stand is kept here; it
//! says which rules are about them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rustc_hash::FxBuildHasher;

use crate::{slab::NONE, spatial::Point};

/// How far people of a cluster reach, in metres: they stand on one spot.
pub(crate) const CLUSTER_DISTANCE_M: f32 = 1.0;
/// Metres from the spot of one cluster to that of the next.
const ANCHOR_SPACING_M: f32 = 4.0;
/// Spots in a row. The last one's coordinate is a number that is still exact.
const ANCHORS_PER_ROW: u64 = 1 << 20;

#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters {
    by_name: HashMap<Arc<str>, Cluster, FxBuildHasher>,
    /// By peer.
    peers: Vec<PeerCluster>,
    /// How many clusters there ever were.
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
    fn peer_mut(&mut self, peer: u32) -> &mut PeerCluster {
        debug_assert_ne!(peer, NONE);
        let place = peer as usize;
        if self.peers.len() <= place {
            self.peers.resize_with(place + 1, PeerCluster::default);
        }
        &mut self.peers[place]
    }

    /// Notes where a peer stands. Returns where it stood before.
    pub(crate) fn set_position(&mut self, peer: u32, at: Point) -> Point {
        std::mem::replace(&mut self.peer_mut(peer).position, at)
    }

    /// Where a peer stands.
    pub(crate) fn position(&self, peer: u32) -> Point {
        self.peers.get(peer as usize).map_or(Point::default(), |person| person.position)
    }

    /// Whether a peer is in a cluster.
    pub(crate) fn has_cluster(&self, peer: u32) -> bool {
        self.name(peer).is_some()
    }

    /// The cluster that a peer is in.
    pub(crate) fn name(&self, peer: u32) -> Option<&Arc<str>> {
        self.peers.get(peer as usize)?.cluster.as_ref()
    }

    /// The spot of the cluster that a peer is in.
    pub(crate) fn anchor(&self, peer: u32) -> Option<Point> {
        self.name(peer).and_then(|name| self.by_name.get(name)).map(|cluster| cluster.anchor)
    }

    /// Puts a peer into a cluster, or into none. Returns whether it was in another.
    pub(crate) fn set(&mut self, peer: u32, name: Option<&str>) -> bool {
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

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.peers.capacity() * size_of::<PeerCluster>()
            + self.by_name.capacity() * size_of::<(Arc<str>, Cluster)>()
    }
}

fn nth_anchor(number: u64) -> Point {
    Point {
        x: (number % ANCHORS_PER_ROW) as f32 * ANCHOR_SPACING_M,
        z: (number / ANCHORS_PER_ROW) as f32 * ANCHOR_SPACING_M,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_keeps_its_anchor_while_it_has_members() {
        let mut clusters = Clusters::default();
        assert!(clusters.set(3, Some("a")) && clusters.set(4, Some("a")) && clusters.set(5, Some("b")));
        assert!(!clusters.set(3, Some("a")) && !clusters.set(9, None));
        let spot = clusters.anchor(3);
        assert_eq!(clusters.anchor(4), spot);
        assert!(
            spot.unwrap().distance_squared(clusters.anchor(5).unwrap())
                > CLUSTER_DISTANCE_M * CLUSTER_DISTANCE_M
        );
        assert!(clusters.set(3, None) && !clusters.has_cluster(3));
        assert_eq!(clusters.anchor(4), spot);
        assert!(clusters.set(4, Some("b")) && clusters.set(3, Some("a")));
        assert_ne!(clusters.anchor(3), spot);
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
