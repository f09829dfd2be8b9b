use std::time::Duration;

use protocol::{Address, Position};

use super::{Cause, Explanation, facts::seconds};
use crate::{
    engine::Engine,
    peers::{Flags, PeerState},
    slab::NONE,
    spatial::Point,
    transitions::ZoneTransition,
};

impl Engine {
    pub(super) fn explain_position(&self, position: Position) -> Explanation {
        let place = self.position_facts(Point { x: position.x, z: position.z });
        let rule = place.rules.iter().find(|rule| rule.matches);
        let summary = match (rule, &place.exclusive) {
            (Some(rule), Some(area)) => {
                format!(
                    "rule `{}` is the first for those who stand here, who are kept to themselves in {area}",
                    rule.name
                )
            }
            (Some(rule), None) => format!("rule `{}` is the first for those who stand here", rule.name),
            (None, _) => "no rule is about this place".to_owned(),
        };
        let cause = if place.exclusive.is_some() { Cause::ExclusiveRule } else { Cause::AsWanted };
        Explanation { place: Some(place), ..Explanation::new(cause, summary) }
    }

    pub(super) fn explain_peer(&self, address: Address, now: Duration) -> Explanation {
        let Some(peer) = self.peers.find(address) else { return unknown_peer(address) };
        let mut explanation = match self.absence_cause(peer, now) {
            Some((cause, summary)) => Explanation::new(cause, summary),
            None => self.explain_present(peer, now),
        };
        explanation.peers.push(self.peer_facts(peer, now));
        explanation
    }

    fn explain_present(&self, peer: u32, now: Duration) -> Explanation {
        let island = self.spatial.island_of(peer);
        let facts = self.island_facts(island, now);
        let settling =
            || Some((Cause::Settling, self.crossing_summary(peer, self.zone_transitions.get(peer)?, now)));
        let (cause, summary) = self
            .pending_assignment_cause(peer)
            .or_else(settling)
            .unwrap_or_else(|| self.placement_cause(island, &facts, now));
        Explanation { islands: vec![facts], ..Explanation::new(cause, summary) }
    }

    /// That a peer is on the other side of a border.
    pub(super) fn crossing_summary(&self, peer: u32, crossing: ZoneTransition, now: Duration) -> String {
        let (address, left) = (self.peers[peer].address, seconds(crossing.due.saturating_sub(now)));
        format!("{address} has crossed a border, which counts when it has lasted, in {left:.1} s")
    }

    /// Why a peer is in no island, if it is not.
    pub(super) fn absence_cause(&self, peer: u32, now: Duration) -> Option<(Cause, String)> {
        let record = &self.peers[peer];
        let address = record.address;
        let quiet = now.saturating_sub(record.last_seen());
        let replaced = self.stale_heartbeats.get(&peer).map(|&at| now.saturating_sub(at));
        if let Some(ago) = replaced.filter(|&ago| ago <= self.settings.silence) {
            let summary = format!(
                "{address} signed in again elsewhere: what a session says that was replaced counts for nothing, and one did so {:.1} s ago",
                seconds(ago)
            );
            return Some((Cause::OtherSession, summary));
        }
        match record.state {
            PeerState::Departed if record.flags.has(Flags::TIMED_OUT) => {
                let limit = seconds(self.settings.silence);
                let summary = format!(
                    "{address} was not heard for {:.1} s, and {limit} s are the most",
                    seconds(quiet)
                );
                Some((Cause::SilentPeer, summary))
            }
            PeerState::Departed => {
                Some((Cause::Left, format!("{address} signed off, or its connection ended")))
            }
            PeerState::Connected => {
                Some((Cause::OtherSession, format!("{address} signed in and has not yet said where it is")))
            }
            PeerState::Forgotten => Some((Cause::Unknown, format!("{address} is not in the world"))),
            PeerState::Present if record.flags.has(Flags::AWAITING_HEARTBEAT) => {
                let summary = format!(
                    "{address} signed in again, and in its new session it has not yet said where it is"
                );
                Some((Cause::OtherSession, summary))
            }
            PeerState::Present if !self.is_placeable(peer) => Some((
                Cause::OtherCluster,
                format!("{address} is in no cluster, and clusters say who is together"),
            )),
            PeerState::Present if self.spatial.island_of(peer) == NONE => {
                Some((Cause::NextFlush, format!("{address} has just come: the next flush places it")))
            }
            PeerState::Present => None,
        }
    }

    /// Why a peer that is in an island with a node was not told of that.
    pub(super) fn pending_assignment_cause(&self, peer: u32) -> Option<(Cause, String)> {
        let (record, place) = (&self.peers[peer], &self.islands[self.spatial.island_of(peer)]);
        let node = self.registry.name(place.node)?;
        if (record.last_assigned, record.last_assigned_node) == (place.serial, place.node) {
            return None;
        }
        let address = record.address;
        Some(if !self.registry.is_available(place.node) {
            (Cause::Draining, format!("{address} waits: {node}, where its island is, takes no more people"))
        } else if self.registry.is_overbooked(place.node) {
            (Cause::NoSeats, format!("{address} waits: {node}, where its island is, has no seat for it"))
        } else {
            (Cause::NextFlush, format!("{address} is told of {node} at the next flush"))
        })
    }
}

pub(super) fn unknown_peer(address: Address) -> Explanation {
    let summary = format!("{address} is not in the world: it never came, or has been gone for a while");
    Explanation::new(Cause::Unknown, summary)
}
