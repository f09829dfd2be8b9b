//! Splits islands that are no longer connected, or are above their size limit.

use std::cmp::Reverse;

use super::partition::{Fragments, partition};
use crate::{
    ids::IslandIndex,
    world::{Member, World},
};

/// Buffers that the phase reuses.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    members: Vec<Member>,
    ends: Vec<usize>,
}

impl Scratch {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.members.capacity() * size_of::<Member>() + self.ends.capacity() * size_of::<usize>()
    }
}

/// Splits each island that is not connected or is above its limit. The largest group (of equal sizes,
/// the one with the lowest address) keeps the island; the others are removed from it as fragments.
pub(super) fn run(
    world: &mut World,
    islands: &[IslandIndex],
    fragments: &mut Fragments,
    scratch: &mut Scratch,
) {
    let Scratch { members, ends } = scratch;
    for &island in islands {
        let maybe_split = std::mem::take(&mut world.islands[island].maybe_split);
        let alone = world.spatial.size(island) == 1;
        if !world.islands.is_populated(island) || alone || (world.has_few_movers(island) && !maybe_split) {
            continue;
        }
        members.clear();
        world.spatial.collect_members(island, members);
        ends.clear();
        partition(world, members, ends);
        if ends.len() > 1 {
            split_off(world, island, members, ends, fragments);
        }
    }
}

/// Removes all groups but the largest from an island and adds them to the fragments.
fn split_off(
    world: &mut World,
    island: IslandIndex,
    members: &[Member],
    ends: &[usize],
    fragments: &mut Fragments,
) {
    let starts = [0].into_iter().chain(ends.iter().copied());
    let groups: Vec<&[Member]> = starts.zip(ends).map(|(start, &end)| &members[start..end]).collect();
    let lowest_address =
        |group: &[Member]| world.peers.lowest_address(group.iter().map(|member| member.peer));
    let rank = |group: &[Member]| (group.len(), Reverse(lowest_address(group)));
    let kept = (0..groups.len()).max_by_key(|&index| rank(groups[index])).unwrap_or_default();
    for (index, group) in groups.iter().enumerate() {
        if index != kept {
            group.iter().for_each(|member| world.spatial.remove_member(member.peer));
            fragments.add(group);
        }
    }
    world.mark_changed(island);
    if let &[Member { peer, .. }] = groups[kept]
        && let Some(transition) = world.zone_transitions.get(peer)
    {
        // The remaining member has no neighbours, like a fragment of one peer: its zone transition
        // takes effect at once.
        world.set_zone(peer, transition.to);
    }
}
