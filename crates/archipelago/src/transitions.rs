//! People who walk from one zone to another.
//!
//! Crossing a border counts once it has lasted for the settling time, so that whoever walks along
//! it is not sent to and fro. It counts at once for those whom nothing can send to and fro: who
//! jumps farther than the leave distance, and who is cut off from all company anyway.

use std::{cmp::Reverse, time::Duration};

use rustc_hash::FxHashMap;

use crate::{
    engine::Engine,
    flush::lowest_address,
    slab::NONE,
    spatial::{Member, PeerTraits, Point},
};

/// Peers who stand in another zone than the one they are counted to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ZoneTransitions(FxHashMap<u32, ZoneTransition>);

/// Where somebody has gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ZoneTransition {
    pub(crate) to: u32,
    /// When it left the zone that it is counted to.
    pub(crate) since: Duration,
    /// When it is counted to the other.
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

    /// Takes out those that are due, in the order in which they fell due.
    fn take_due(&mut self, now: Duration) -> Vec<(u32, u32)> {
        let due = |crossing: &ZoneTransition| crossing.due <= now;
        let mut taken: Vec<(Duration, u32, u32)> = Vec::new();
        self.0.retain(|&peer, crossing| {
            if due(crossing) {
                taken.push((crossing.due, peer, crossing.to));
            }
            !due(crossing)
        });
        taken.sort_unstable();
        taken.into_iter().map(|(_, peer, to)| (peer, to)).collect()
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(u32, ZoneTransition)>() + 1)
    }
}

impl Engine {
    /// The zone that a point is in.
    pub(crate) fn zone_at(&mut self, at: Point) -> u32 {
        let before = self.zones.count();
        let zone = self.zones.zone_at(at);
        if self.zones.count() > before {
            self.zones.compute_new_limits(before, &self.registry);
            self.spatial.distances.set(zone, self.zones.distances(zone));
        }
        zone
    }

    /// Notes where a peer stands that is in an island.
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
        let since = before.map_or(now, |crossing| crossing.since);
        // What counts at the next flush does so wherever it goes until then.
        let due = before.map_or(Duration::MAX, |crossing| crossing.due);
        let due = if due <= now { due } else { since.saturating_add(settling) };
        self.zone_transitions.0.insert(peer, ZoneTransition { to, since, due });
    }

    /// Counts a peer to a zone that it no longer stands in, until that has lasted.
    pub(crate) fn begin_transition_from(&mut self, peer: u32, zone: u32, now: Duration) {
        let to = self.spatial.traits(peer).zone();
        let due = now.saturating_add(self.zones.border_settling(zone, to));
        self.set_zone(peer, zone);
        self.zone_transitions.0.insert(peer, ZoneTransition { to, since: now, due });
    }

    /// Counts a peer to a zone, from now on.
    pub(crate) fn set_zone(&mut self, peer: u32, zone: u32) {
        self.zone_transitions.remove(peer);
        let terms = self.spatial.traits(peer);
        self.spatial.set_traits(peer, PeerTraits::new(zone, terms.capabilities()));
    }

    /// Counts a peer that is in no island to the zone that it stands in.
    pub(crate) fn enter_current_zone(&mut self, peer: u32) {
        let zone = self.zone_at(self.position(peer));
        self.set_zone(peer, zone);
    }
}

/// Counts those who have crossed a border for long enough to where they stand, and parts islands
/// whose members are no longer of one enclosure.
pub(crate) fn run(engine: &mut Engine, now: Duration) {
    let mut torn = Vec::new();
    for (peer, to) in engine.zone_transitions.take_due(now) {
        let island = engine.spatial.island_of(peer);
        let from = engine.spatial.traits(peer).zone();
        engine.set_zone(peer, to);
        if island == NONE {
            continue;
        }
        engine.mark_dirty(island);
        // Another rule may be about the island now.
        engine.mark_changed(island);
        if engine.spatial.distances.enclosure(from) != engine.spatial.distances.enclosure(to) {
            torn.push(island);
        }
    }
    if std::mem::take(&mut engine.zones_rebuilt) {
        torn = engine.islands.populated().collect();
    }
    torn.sort_by_key(|&island| engine.islands[island].age);
    torn.dedup();
    torn.into_iter().for_each(|island| split_by_enclosure(engine, island));
}

/// Leaves in an island the most that are of one enclosure, and cuts off the others.
fn split_by_enclosure(engine: &mut Engine, island: u32) {
    let mut members: Vec<Member> = engine.spatial.members(island).collect();
    let mut parts = group_by_enclosure(engine, &mut members);
    if parts.len() < 2 {
        return;
    }
    let rank = |part: &Vec<Member>| (part.len(), Reverse(lowest_address(&engine.peers, part)));
    let kept = (0..parts.len()).max_by_key(|&part| rank(&parts[part])).unwrap_or_default();
    parts.swap_remove(kept);
    for mut part in parts {
        part.iter().for_each(|member| engine.spatial.remove_member(member.peer));
        engine.add_fragments(&mut part);
    }
    engine.mark_changed(island);
}

/// Those of each enclosure by themselves, in the order of the enclosures.
fn group_by_enclosure(engine: &Engine, members: &mut [Member]) -> Vec<Vec<Member>> {
    let enclosure = |member: &Member| engine.spatial.distances.enclosure(member.traits.zone());
    members.sort_by_key(enclosure);
    members.chunk_by(|a, b| enclosure(a) == enclosure(b)).map(<[Member]>::to_vec).collect()
}
