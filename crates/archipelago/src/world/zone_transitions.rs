//! Zone transitions: peers that moved from one zone to another.
//!
//! A peer counts for the new zone after it has been across the border for the settling time
//! (hysteresis), so that a peer walking along a border does not alternate between islands. The
//! transition is immediate where it cannot alternate: when the peer jumped farther than the leave
//! distance, and when it has no neighbours.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::ids::{PeerIndex, ZoneIndex};

/// Peers with a position in another zone than the one that they count for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ZoneTransitions(FxHashMap<PeerIndex, ZoneTransition>);

/// A pending transition to another zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ZoneTransition {
    /// The zone at the position of the peer.
    pub(crate) to: ZoneIndex,
    /// When the peer left the zone that it counts for.
    pub(crate) since: Duration,
    /// When it counts for the other zone.
    pub(crate) due: Duration,
}

impl ZoneTransitions {
    pub(crate) fn get(&self, peer: PeerIndex) -> Option<ZoneTransition> {
        self.0.get(&peer).copied()
    }

    pub(crate) fn insert(&mut self, peer: PeerIndex, transition: ZoneTransition) {
        self.0.insert(peer, transition);
    }

    pub(crate) fn remove(&mut self, peer: PeerIndex) {
        self.0.remove(&peer);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the transitions that are due, and returns peers and zones in the order in which they
    /// became due.
    pub(crate) fn take_due(&mut self, now: Duration) -> Vec<(PeerIndex, ZoneIndex)> {
        let mut due = Vec::new();
        self.0.retain(|&peer, transition| {
            let is_due = transition.due <= now;
            if is_due {
                due.push((transition.due, peer, transition.to));
            }
            !is_due
        });
        due.sort_unstable();
        due.into_iter().map(|(_, peer, to)| (peer, to)).collect()
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(PeerIndex, ZoneTransition)>() + 1)
    }
}
