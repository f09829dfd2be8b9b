//! Zone transitions: peers that moved from one zone to another.
//!
//! A peer counts for the new zone after it has been across the border for the settling time
//! (hysteresis), so that a peer walking along a border does not alternate between islands. The
//! transition is immediate where it cannot alternate: when the peer jumped farther than the leave
//! distance, and when it has no neighbours.

use std::{cmp::Reverse, time::Duration};

use rustc_hash::FxHashMap;

use crate::{
    engine::Engine,
    flush::lowest_address,
    slab::NONE,
    spatial::{Member, PeerTraits, Point},
};

/// Peers with a position in another zone than the one that they count for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ZoneTransitions(FxHashMap<u32, ZoneTransition>);

/// A pending transition to another zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ZoneTransition {
    /// The zone at the position of the peer.
    pub(crate) to: u32,
    /// When the peer left the zone that it counts for.
    pub(crate) since: Duration,
    /// When it counts for the other zone.
    pub(crate) due: Duration,
}

impl ZoneTransitions {
    pub(crate) fn get(&self, peer: u32) -> Option<ZoneTransition> {
        self.0.get(&peer).copied()
    }

    pub(crate) fn remove(&mut self, peer: u32) {
        self.0.remove(&peer);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the transitions that are due, and returns peers and zones in the order in which they
    /// became due.
    fn take_due(&mut self, now: Duration) -> Vec<(u32, u32)> {
        let due = |transition: &ZoneTransition| transition.due <= now;
        let mut taken: Vec<(Duration, u32, u32)> = Vec::new();
        self.0.retain(|&peer, transition| {
            if due(transition) {
                taken.push((transition.due, peer, transition.to));
            }
            !due(transition)
        });
        taken.sort_unstable();
        taken.into_iter().map(|(_, peer, to)| (peer, to)).collect()
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(u32, ZoneTransition)>() + 1)
    }
}

impl Engine {
    /// The zone of a point; a new zone gets its limits and distances.
    pub(crate) fn zone_at(&mut self, at: Point) -> u32 {
        let before = self.zones.count();
        let zone = self.zones.zone_at(at);
        if self.zones.count() > before {
            self.zones.compute_new_limits(before, &self.registry);
            self.spatial.distances.set(zone, self.zones.distances(zone));
        }
        zone
    }

    /// Updates the zone transition of a member that moved.
    pub(crate) fn update_zone_transition(&mut self, peer: u32, from: Point, now: Duration) {
        let at = self.position(peer);
        let (zone, to) = (self.spatial.traits(peer).zone(), self.zone_at(at));
        if zone == to {
            self.zone_transitions.remove(peer);
            return;
        }
        let leave_m = self.zones.zone(zone).distances.leave_m;
        let jumped = from.distance_squared(at) > leave_m * leave_m;
        let settling = if jumped { Duration::ZERO } else { self.zones.border_settling(zone, to) };
        let before = self.zone_transitions.get(peer);
        let since = before.map_or(now, |transition| transition.since);
        // A transition that is due takes effect at the next flush, wherever the peer moves until then.
        let due = before.map_or(Duration::MAX, |transition| transition.due);
        let due = if due <= now { due } else { since.saturating_add(settling) };
        self.zone_transitions.0.insert(peer, ZoneTransition { to, since, due });
    }

    /// Counts a peer for a zone that it is no longer in, until the settling time has passed.
    pub(crate) fn begin_transition_from(&mut self, peer: u32, zone: u32, now: Duration) {
        let to = self.spatial.traits(peer).zone();
        let due = now.saturating_add(self.zones.border_settling(zone, to));
        self.set_zone(peer, zone);
        self.zone_transitions.0.insert(peer, ZoneTransition { to, since: now, due });
    }

    /// Counts a peer for a zone from now on.
    pub(crate) fn set_zone(&mut self, peer: u32, zone: u32) {
        self.zone_transitions.remove(peer);
        let traits = self.spatial.traits(peer);
        self.spatial.set_traits(peer, PeerTraits::new(zone, traits.capabilities()));
    }

    /// Counts a peer that is in no island for the zone at its position.
    pub(crate) fn enter_current_zone(&mut self, peer: u32) {
        let zone = self.zone_at(self.position(peer));
        self.set_zone(peer, zone);
    }
}

/// Applies the transitions that are due, and splits islands with members of different enclosures.
pub(crate) fn run(engine: &mut Engine, now: Duration) {
    let mut mixed = Vec::new();
    for (peer, to) in engine.zone_transitions.take_due(now) {
        let island = engine.spatial.island_of(peer);
        let from = engine.spatial.traits(peer).zone();
        engine.set_zone(peer, to);
        if island == NONE {
            continue;
        }
        engine.mark_dirty(island);
        // Another rule may apply to the island now.
        engine.mark_changed(island);
        if engine.spatial.distances.enclosure(from) != engine.spatial.distances.enclosure(to) {
            mixed.push(island);
        }
    }
    if std::mem::take(&mut engine.zones_rebuilt) {
        mixed = engine.islands.populated().collect();
    }
    mixed.sort_by_key(|&island| engine.islands[island].age);
    mixed.dedup();
    mixed.into_iter().for_each(|island| split_by_enclosure(engine, island));
}

/// Keeps the largest group of one enclosure in an island (of equal sizes, the one with the lowest
/// address), and removes the others as fragments.
fn split_by_enclosure(engine: &mut Engine, island: u32) {
    let mut members: Vec<Member> = engine.spatial.members(island).collect();
    let mut groups = group_by_enclosure(engine, &mut members);
    if groups.len() < 2 {
        return;
    }
    let rank = |group: &Vec<Member>| (group.len(), Reverse(lowest_address(&engine.peers, group)));
    let kept = (0..groups.len()).max_by_key(|&group| rank(&groups[group])).unwrap_or_default();
    groups.swap_remove(kept);
    for mut group in groups {
        group.iter().for_each(|member| engine.spatial.remove_member(member.peer));
        engine.add_fragments(&mut group);
    }
    engine.mark_changed(island);
}

/// The members grouped by enclosure, in the order of the enclosures.
fn group_by_enclosure(engine: &Engine, members: &mut [Member]) -> Vec<Vec<Member>> {
    let enclosure = |member: &Member| engine.spatial.distances.enclosure(member.traits.zone());
    members.sort_by_key(enclosure);
    members.chunk_by(|a, b| enclosure(a) == enclosure(b)).map(<[Member]>::to_vec).collect()
}
