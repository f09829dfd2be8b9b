//! Peers that arrive, move, change their client and leave.

use protocol::{Address, SessionId};

use super::{
    capabilities::Capabilities,
    invalidation::RuleChange,
    peers::{Flags, PeerState, SessionCheck},
    spatial::PeerTraits,
    state::World,
};
use crate::{
    ids::{NodeIndex, PeerIndex, ZoneIndex},
    point::Point,
};

impl World {
    /// The peer that sent a message in this session, which resumes the older session `resumes` if it is
    /// new; `None` if the session has been replaced by a newer one. An unknown peer is added.
    pub(crate) fn sender(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        resumes: Option<SessionId>,
    ) -> Option<PeerIndex> {
        let (peer, new) = self.peers.intern(address);
        if new {
            let capabilities = self.nodes.capabilities.set_of(self.peers.transports(peer));
            let traits = PeerTraits::new(ZoneIndex::OPEN, capabilities);
            self.add_capability_set(capabilities);
            self.spatial.add_peer(peer, traits);
        }
        match self.peers.check_session(peer, session, resumes) {
            SessionCheck::Stale => None,
            SessionCheck::Current => Some(peer),
            SessionCheck::TakenOver => {
                self.mark_taken_over(peer);
                Some(peer)
            }
        }
    }

    /// Notes that a newer session of a peer did not resume the one before. The tokens of the old
    /// session are revoked by the next flush if the peer is in an island by then, otherwise by the
    /// flush that adds it to one.
    pub(crate) fn mark_taken_over(&mut self, peer: PeerIndex) {
        self.peers[peer].flags.replace(Flags::TAKEN_OVER, true);
        if self.spatial.island_of(peer).is_some() {
            self.queue_report(peer);
        }
    }

    /// Marks a peer as present in the world.
    pub(crate) fn mark_present(&mut self, peer: PeerIndex) {
        self.peers.set_state(peer, PeerState::Present);
        // A peer that left since the last flush is still a member of its island.
        if self.spatial.island_of(peer).is_none() && self.is_placeable(peer) {
            self.changes.joining.push(peer);
        }
    }

    /// Marks a peer as departed; the next flush removes it from its island.
    pub(crate) fn mark_departed(&mut self, peer: PeerIndex) {
        if self.peers[peer].state == PeerState::Present {
            self.peers.set_state(peer, PeerState::Departed);
            self.changes.leaving.push(peer);
        }
    }

    /// Records the position of a peer. Returns the position before.
    pub(crate) fn set_position(&mut self, peer: PeerIndex, to: Point) -> Point {
        if let Some(clusters) = &mut self.clusters {
            return clusters.set_position(peer, to);
        }
        self.set_indexed_position(peer, to)
    }

    /// Sets the point of a peer in the spatial index. Returns the point before.
    fn set_indexed_position(&mut self, peer: PeerIndex, to: Point) -> Point {
        let from = self.spatial.position(peer);
        if from != to {
            self.spatial.set_position(peer, to);
            self.mark_moved(peer, from);
        }
        from
    }

    /// Sets or clears the cluster of a peer. The next flush moves the peer to another island.
    pub(crate) fn set_cluster(&mut self, peer: PeerIndex, cluster: Option<&str>) {
        let Some(clusters) = &mut self.clusters else { return };
        if !clusters.set(peer, cluster) {
            return;
        }
        let anchor = clusters.anchor(peer);
        let outside = self.spatial.island_of(peer).is_none();
        if let Some(anchor) = anchor {
            self.set_indexed_position(peer, anchor);
            if outside && self.peers[peer].state == PeerState::Present {
                self.changes.joining.push(peer);
            }
        } else if !outside {
            self.changes.unclustered.push(peer);
        }
    }

    /// Sets the preferred island of a peer; an id that is not an island of this engine clears it.
    pub(crate) fn set_preferred_island(&mut self, peer: PeerIndex, room: &str) {
        // An id that this engine neither restored nor can have assigned is never a merge candidate.
        let preferred = self.islands.ids.serial(room);
        let before = match preferred {
            Some(island) => self.peers.preferred_island.insert(peer, island),
            None => self.peers.preferred_island.remove(&peer),
        };
        if before != preferred
            && let Some(island) = self.spatial.island_of(peer)
        {
            self.mark_dirty(island);
        }
    }

    /// Recomputes the capabilities of a peer from its announced or assumed transports.
    pub(crate) fn update_capabilities(&mut self, peer: PeerIndex) {
        let capabilities = self.nodes.capabilities.set_of(self.peers.transports(peer));
        let before = self.spatial.traits(peer);
        if before.capabilities() == capabilities {
            return;
        }
        let traits = PeerTraits::new(before.zone(), capabilities);
        self.add_capability_set(capabilities);
        self.spatial.set_traits(peer, traits);
        if let Some(island) = self.spatial.island_of(peer) {
            self.mark_dirty(island);
            self.mark_changed(island);
        }
    }

    /// A node announced a capability that was not known before: recomputes the capabilities of every
    /// peer.
    pub(crate) fn update_all_capabilities(&mut self) {
        let known: Vec<PeerIndex> = self.peers.known().collect();
        for peer in known {
            self.update_capabilities(peer);
        }
    }

    /// Computes the size limits for a set of capabilities, if it is new.
    fn add_capability_set(&mut self, capabilities: Capabilities) {
        if self.zones.add_capability_set(capabilities) {
            self.invalidate(RuleChange::CapabilitySets);
        }
    }

    /// A node has another URL or a restarted process: its clients need a new connection string, so
    /// every peer that was assigned to it gets a new assignment at the next flush.
    pub(crate) fn invalidate_assignments(&mut self, node: NodeIndex) {
        let known: Vec<PeerIndex> = self.peers.known().collect();
        for peer in known {
            if self.peers[peer].last_assigned_node == Some(node) {
                self.peers[peer].last_assigned_node = None;
                if self.island_has_node(peer) {
                    self.queue_report(peer);
                }
            }
        }
    }

    /// Removes all data of a peer that is in no island.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex) {
        self.zone_transitions.remove(peer);
        self.spatial.remove_peer(peer);
        self.set_cluster(peer, None);
        self.peers.remove(peer);
    }
}
