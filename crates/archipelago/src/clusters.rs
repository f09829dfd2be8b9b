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

use crate::{ground::Point, slab::NONE};

/// How far people of a cluster reach, in metres: they stand on one spot.
pub(crate) const REACH_M: f32 = 1.0;
/// Metres from the spot of one cluster to that of the next.
const SPACING_M: f32 = 4.0;
/// Spots in a row. The last one's coordinate is a number that is still exact.
const ROW: u64 = 1 << 20;

#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters {
    by_name: HashMap<Arc<str>, Cluster, FxBuildHasher>,
    /// By peer.
    people: Vec<Person>,
    /// How many clusters there ever were.
    count: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    spot: Point,
    members: u32,
}

#[derive(Debug, Clone, Default)]
struct Person {
    cluster: Option<Arc<str>>,
    stands: Point,
}

impl Clusters {
    fn person(&mut self, peer: u32) -> &mut Person {
        debug_assert_ne!(peer, NONE);
        let place = peer as usize;
        if self.people.len() <= place {
            self.people.resize_with(place + 1, Person::default);
        }
        &mut self.people[place]
    }

    /// Notes where a peer stands. Returns where it stood before.
    pub(crate) fn stand(&mut self, peer: u32, at: Point) -> Point {
        std::mem::replace(&mut self.person(peer).stands, at)
    }

    /// Where a peer stands.
    pub(crate) fn place(&self, peer: u32) -> Point {
        self.people.get(peer as usize).map_or(Point::default(), |person| person.stands)
    }

    /// Whether a peer is in a cluster.
    pub(crate) fn has(&self, peer: u32) -> bool {
        self.name(peer).is_some()
    }

    /// The cluster that a peer is in.
    pub(crate) fn name(&self, peer: u32) -> Option<&Arc<str>> {
        self.people.get(peer as usize)?.cluster.as_ref()
    }

    /// The spot of the cluster that a peer is in.
    pub(crate) fn spot(&self, peer: u32) -> Option<Point> {
        self.name(peer).and_then(|name| self.by_name.get(name)).map(|cluster| cluster.spot)
    }

    /// Puts a peer into a cluster, or into none. Returns whether it was in another.
    pub(crate) fn set(&mut self, peer: u32, name: Option<&str>) -> bool {
        if self.name(peer).map(|name| &**name) == name {
            return false;
        }
        let cluster = name.map(Arc::<str>::from);
        if let Some(name) = cluster.clone() {
            let count = &mut self.count;
            let cluster = self.by_name.entry(name).or_insert_with(|| {
                *count += 1;
                Cluster { spot: spot(*count), members: 0 }
            });
            cluster.members += 1;
        }
        let before = std::mem::replace(&mut self.person(peer).cluster, cluster);
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
        self.people.capacity() * size_of::<Person>()
            + self.by_name.capacity() * size_of::<(Arc<str>, Cluster)>()
    }
}

fn spot(number: u64) -> Point {
    Point { x: (number % ROW) as f32 * SPACING_M, z: (number / ROW) as f32 * SPACING_M }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_a_spot_for_as_long_as_it_has_members() {
        let mut clusters = Clusters::default();
        assert!(clusters.set(3, Some("a")) && clusters.set(4, Some("a")) && clusters.set(5, Some("b")));
        assert!(!clusters.set(3, Some("a")) && !clusters.set(9, None));
        let spot = clusters.spot(3);
        assert_eq!(clusters.spot(4), spot);
        assert!(spot.unwrap().distance_squared(clusters.spot(5).unwrap()) > REACH_M * REACH_M);
        assert!(clusters.set(3, None) && !clusters.has(3));
        assert_eq!(clusters.spot(4), spot);
        assert!(clusters.set(4, Some("b")) && clusters.set(3, Some("a")));
        assert_ne!(clusters.spot(3), spot);
        assert_eq!(clusters.by_name.len(), 2);
    }

    #[test]
    fn spots_are_out_of_reach_of_each_other_however_many_there_were() {
        for number in [1, ROW - 2, ROW - 1, ROW, 4_000 * ROW] {
            let (one, next) = (spot(number), spot(number + 1));
            assert!(one.distance_squared(next) > REACH_M * REACH_M, "{number}");
        }
    }
}
