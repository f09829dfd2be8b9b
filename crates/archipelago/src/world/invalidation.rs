//! Invalidates everything that is derived from the rules, when they or their conditions changed.

use super::state::World;
use crate::ids::{PeerIndex, ZoneIndex};

/// A change of the rules in force, or of the conditions that they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleChange {
    /// Other rules are in force: all indexes of zones are invalid.
    Rules,
    /// A crowding condition holds or no longer does.
    Crowding,
    /// The rooms on offer.
    Offers,
    /// There is a new set of capabilities that clients have.
    CapabilitySets,
}

impl World {
    /// Derives zones, distances and size limits again, as far as they depend on the change, and marks
    /// the parts of the state that the next flush evaluates again.
    pub(crate) fn invalidate(&mut self, change: RuleChange) {
        match change {
            RuleChange::Rules => {
                self.spatial.set_max_distance(self.zones.max_distance_m());
                self.spatial.distances.clear();
                self.spatial.distances.set(ZoneIndex::OPEN, self.zones.distances(ZoneIndex::OPEN));
            }
            RuleChange::Crowding => {
                for zone in self.zones.indexes() {
                    self.spatial.distances.set(zone, self.zones.distances(zone));
                }
            }
            RuleChange::Offers | RuleChange::CapabilitySets => {}
        }
        let limits_changed = self.zones.recompute_limits(&self.nodes);
        if change == RuleChange::Rules {
            self.enter_current_zones();
            self.islands.placements.reset_candidates();
            self.islands.forget_rules();
        }
        let invalidated = &mut self.changes.invalidated;
        invalidated.limits |= limits_changed || matches!(change, RuleChange::Rules | RuleChange::Crowding);
        invalidated.enclosures |= change == RuleChange::Rules;
        invalidated.placements |= change != RuleChange::CapabilitySets;
        invalidated.crowding |= change == RuleChange::Crowding;
    }

    /// Assigns every peer to the zone at its position, without waiting for the settling time.
    fn enter_current_zones(&mut self) {
        self.zone_transitions.clear();
        let known: Vec<PeerIndex> = self.peers.known().collect();
        known.into_iter().for_each(|peer| self.enter_current_zone(peer));
    }
}
