//! Which zone each peer counts for.

use std::time::Duration;

use super::{spatial::PeerTraits, state::World, zone_transitions::ZoneTransition};
use crate::{
    ids::{PeerIndex, ZoneIndex},
    point::Point,
};

impl World {
    /// The zone of a point; a new zone gets its limits and distances.
    fn zone_at(&mut self, at: Point) -> ZoneIndex {
        let (zone, is_new) = self.zones.zone_at(at, &self.nodes);
        if is_new {
            self.spatial.distances.set(zone, self.zones.distances(zone));
        }
        zone
    }

    /// Updates the zone transition of a member that moved.
    pub(crate) fn update_zone_transition(&mut self, peer: PeerIndex, from: Point, now: Duration) {
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
        self.zone_transitions.insert(peer, ZoneTransition { to, since, due });
    }

    /// Counts a peer for a zone that it is no longer in, until the settling time has passed.
    pub(crate) fn begin_transition_from(&mut self, peer: PeerIndex, zone: ZoneIndex, now: Duration) {
        let to = self.spatial.traits(peer).zone();
        let due = now.saturating_add(self.zones.border_settling(zone, to));
        self.set_zone(peer, zone);
        self.zone_transitions.insert(peer, ZoneTransition { to, since: now, due });
    }

    /// Counts a peer for a zone from now on.
    pub(crate) fn set_zone(&mut self, peer: PeerIndex, zone: ZoneIndex) {
        self.zone_transitions.remove(peer);
        let traits = self.spatial.traits(peer);
        self.spatial.set_traits(peer, PeerTraits::new(zone, traits.capabilities()));
    }

    /// Counts a peer that is in no island for the zone at its position.
    pub(crate) fn enter_current_zone(&mut self, peer: PeerIndex) {
        let zone = self.zone_at(self.position(peer));
        self.set_zone(peer, zone);
    }
}
