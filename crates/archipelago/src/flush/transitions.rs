//! Lets peers count for the zone that they have been in for the settling time, and splits islands with
//! members of different enclosures.

use std::{cmp::Reverse, time::Duration};

use super::partition::Fragments;
use crate::{
    ids::IslandIndex,
    world::{Member, World},
};

/// Applies the transitions that are due, and splits islands with members of different enclosures.
pub(super) fn run(world: &mut World, fragments: &mut Fragments, now: Duration) {
    let mut mixed = Vec::new();
    for (peer, to) in world.zone_transitions.take_due(now) {
        let from = world.spatial.traits(peer).zone();
        world.set_zone(peer, to);
        let Some(island) = world.spatial.island_of(peer) else { continue };
        world.mark_dirty(island);
        // Another rule may apply to the island now.
        world.mark_changed(island);
        if world.spatial.distances.enclosure(from) != world.spatial.distances.enclosure(to) {
            mixed.push(island);
        }
    }
    if std::mem::take(&mut world.changes.invalidated.enclosures) {
        mixed = world.islands.populated().collect();
    }
    mixed.sort_by_key(|&island| world.islands[island].age);
    mixed.dedup();
    mixed.into_iter().for_each(|island| split_by_enclosure(world, island, fragments));
}

/// Keeps the largest group of one enclosure in an island (of equal sizes, the one with the lowest
/// address), and removes the others as fragments.
fn split_by_enclosure(world: &mut World, island: IslandIndex, fragments: &mut Fragments) {
    let mut members: Vec<Member> = world.spatial.members(island).collect();
    let mut groups = group_by_enclosure(world, &mut members);
    if groups.len() < 2 {
        return;
    }
    let lowest_address =
        |group: &[Member]| world.peers.lowest_address(group.iter().map(|member| member.peer));
    let rank = |group: &Vec<Member>| (group.len(), Reverse(lowest_address(group)));
    let kept = (0..groups.len()).max_by_key(|&group| rank(&groups[group])).unwrap_or_default();
    groups.swap_remove(kept);
    for mut group in groups {
        group.iter().for_each(|member| world.spatial.remove_member(member.peer));
        fragments.add_partitioned(world, &mut group);
    }
    world.mark_changed(island);
}

/// The members grouped by enclosure, in the order of the enclosures; those outside every one come last.
fn group_by_enclosure(world: &World, members: &mut [Member]) -> Vec<Vec<Member>> {
    let enclosure = |member: &Member| {
        let enclosure = world.spatial.distances.enclosure(member.traits.zone());
        (enclosure.is_none(), enclosure)
    };
    members.sort_by_key(enclosure);
    members.chunk_by(|a, b| enclosure(a) == enclosure(b)).map(<[Member]>::to_vec).collect()
}
