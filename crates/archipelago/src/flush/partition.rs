//! Divides members into groups that are connected and within their size limit.
//!
//! Connected components are found by breadth-first search over the leave distance. A component above
//! the limit is bisected recursively by position.

use crate::{
    ids::PeerIndex,
    point::Point,
    world::{DistanceTable, Member, World},
};

/// Groups that were split off an island and are to be placed by the join phase.
#[derive(Debug, Clone, Default)]
pub(super) struct Fragments {
    peers: Vec<PeerIndex>,
    /// The end of each group in `peers`.
    ends: Vec<usize>,
}

impl Fragments {
    /// Adds a group of peers that are in no island.
    pub(super) fn add(&mut self, group: &[Member]) {
        self.peers.extend(group.iter().map(|member| member.peer));
        self.ends.push(self.peers.len());
    }

    /// Adds peers that are in no island, one fragment for each connected group within its limit.
    pub(super) fn add_partitioned(&mut self, world: &World, members: &mut [Member]) {
        let mut ends = Vec::new();
        partition(world, members, &mut ends);
        let start = self.peers.len();
        self.peers.extend(members.iter().map(|member| member.peer));
        self.ends.extend(ends.into_iter().map(|end| start + end));
    }

    /// The groups, in the order in which they were added.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[PeerIndex]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.peers[start..end])
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.ends.clear();
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.peers.capacity() * size_of::<PeerIndex>() + self.ends.capacity() * size_of::<usize>()
    }
}

/// Sorts `members` into groups that are connected by hops of at most the leave distance and within
/// their limit, and appends the end of each group to `ends`. A connected group above its limit is
/// bisected across its longer side.
pub(super) fn partition(world: &World, members: &mut [Member], ends: &mut Vec<usize>) {
    let distances = &world.spatial.distances;
    partition_within(members, distances, &|group: &[Member]| world.group_size_limit(group) as usize, ends);
}

/// [`partition`] with the limit as a function, so that tests need no world.
fn partition_within(
    members: &mut [Member],
    distances: &DistanceTable,
    limit: &impl Fn(&[Member]) -> usize,
    ends: &mut Vec<usize>,
) {
    let mut connected = Vec::new();
    connected_components(members, distances, &mut connected);
    let mut start = 0;
    for end in connected {
        let (first, group) = (ends.len(), &mut members[start..end]);
        let limit_here = limit(group);
        if group.len() <= limit_here {
            ends.push(group.len());
        } else {
            let left = bisect(group, limit_here);
            partition_within(&mut group[..left], distances, limit, ends);
            let second = ends.len();
            partition_within(&mut group[left..], distances, limit, ends);
            ends[second..].iter_mut().for_each(|end| *end += left);
        }
        ends[first..].iter_mut().for_each(|end| *end += start);
        start = end;
    }
}

/// Sorts a group along the longer side of its bounding box, and returns the size of its first half.
/// With `n` as the least number of groups that fit the limit, the first half gets `n / 2` of `n` parts,
/// so that the groups become about equal.
fn bisect(group: &mut [Member], limit: usize) -> usize {
    let (low, high) = bounding_box(group);
    let wide = high.x - low.x >= high.z - low.z;
    let along = |member: &Member| if wide { (member.at.x, member.at.z) } else { (member.at.z, member.at.x) };
    group.sort_by(|a, b| {
        let ((a, a_across), (b, b_across)) = (along(a), along(b));
        a.total_cmp(&b).then(a_across.total_cmp(&b_across))
    });
    let parts = group.len().div_ceil(limit);
    group.len() * (parts / 2) / parts
}

/// The lowest and the highest corner of the bounding box.
pub(super) fn bounding_box(members: &[Member]) -> (Point, Point) {
    let first = members.first().map_or(Point::default(), |member| member.at);
    members.iter().fold((first, first), |(low, high), member| {
        let Point { x, z } = member.at;
        (Point { x: low.x.min(x), z: low.z.min(z) }, Point { x: high.x.max(x), z: high.z.max(z) })
    })
}

/// Sorts `members` into connected components over hops of at most the leave distance, and appends the
/// end of each to `ends`.
pub(super) fn connected_components(members: &mut [Member], distances: &DistanceTable, ends: &mut Vec<usize>) {
    let own = members.iter().map(|member| distances.own_leave_squared(member));
    let least = || own.fold(f32::INFINITY, f32::min);
    let least = distances.uniform_leave_squared().unwrap_or_else(least);
    let (low, high) = bounding_box(members);
    // No two members are farther apart than the diagonal of the bounding box, so all are neighbours.
    if low.distance_squared(high) <= least {
        ends.push(members.len());
    } else if distances.uniform_leave_squared().is_some() || is_single_zone(members) {
        breadth_first_components(members, |one, other| one.at.distance_squared(other.at) <= least, ends);
    } else {
        breadth_first_components(members, |one, other| distances.are_within_leave_distance(one, other), ends);
    }
}

fn is_single_zone(members: &[Member]) -> bool {
    members.windows(2).all(|pair| pair[0].traits.zone() == pair[1].traits.zone())
}

/// Breadth-first search that partitions `members` in place: the queue is the range between `next` and
/// `reached`. It takes O(n²) comparisons.
fn breadth_first_components(
    members: &mut [Member],
    connected: impl Fn(&Member, &Member) -> bool,
    ends: &mut Vec<usize>,
) {
    // Members before `reached` belong to the current component; of those, the neighbours of the members
    // before `next` have been found.
    let (mut reached, mut next) = (0, 0);
    while reached < members.len() {
        if next == reached {
            if next > 0 {
                ends.push(next);
            }
            reached += 1;
        }
        reached = move_connected_forward(members, reached, next, &connected);
        next += 1;
    }
    ends.push(members.len());
}

/// Swaps the members from `reached` on that are connected to the member at `member` to the front of the
/// rest. Returns the start of the remaining rest.
fn move_connected_forward(
    members: &mut [Member],
    reached: usize,
    member: usize,
    connected: &impl Fn(&Member, &Member) -> bool,
) -> usize {
    let from = members[member];
    let mut rest = reached;
    for other in reached..members.len() {
        if connected(&from, &members[other]) {
            members.swap(rest, other);
            rest += 1;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{TableIndex, ZoneIndex},
        world::{PeerTraits, ZoneDistances},
    };

    fn members(places: &[(f32, f32)]) -> Vec<Member> {
        let member = |(peer, &(x, z))| Member {
            peer: PeerIndex::new(peer),
            at: Point { x, z },
            traits: PeerTraits::default(),
        };
        places.iter().enumerate().map(member).collect()
    }

    fn groups(places: &[(f32, f32)], limit: usize) -> Vec<Vec<usize>> {
        let mut members = members(places);
        let mut ends = Vec::new();
        let mut distances = DistanceTable::default();
        distances.set(ZoneIndex::OPEN, ZoneDistances { enclosure: None, join_m: 64.0, leave_m: 80.0 });
        partition_within(&mut members, &distances, &|_: &[Member]| limit, &mut ends);
        let mut start = 0;
        let mut groups = Vec::new();
        for end in ends {
            let peers = members[start..end].iter().map(|member| member.peer.position());
            let mut group: Vec<usize> = peers.collect();
            group.sort_unstable();
            groups.push(group);
            start = end;
        }
        assert_eq!(start, places.len());
        groups.sort();
        groups
    }

    #[test]
    fn components_are_connected_by_hops() {
        let chain = [(0.0, 0.0), (160.0, 0.0), (80.0, 0.0), (241.0, 0.0)];
        assert_eq!(groups(&chain, 9), [vec![0, 1, 2], vec![3]]);
        assert_eq!(groups(&[(5.0, 5.0); 4], 9), [[0, 1, 2, 3]]);
        assert_eq!(groups(&[(0.0, 0.0), (100.0, 0.0)], 9), [[0], [1]]);
    }

    #[test]
    fn component_above_the_limit_is_bisected() {
        let row: Vec<(f32, f32)> = (0..7).map(|i| (i as f32 * 10.0, 0.0)).collect();
        assert_eq!(groups(&row, 3), [vec![0, 1], vec![2, 3], vec![4, 5, 6]]);
        let far: Vec<(f32, f32)> = row.iter().map(|&(x, _)| (x + 500.0, 0.0)).collect();
        let both = [row, far].concat();
        assert_eq!(groups(&both, 7), [(0..7).collect::<Vec<_>>(), (7..14).collect()]);
        assert_eq!(groups(&both, 4).len(), 4);
        assert!(groups(&[(1.0, 1.0); 10], 1).iter().all(|group| group.len() == 1));
    }
}
