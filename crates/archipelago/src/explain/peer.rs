//! Explains where a peer is, or why it is in no island.

use std::time::Duration;

use protocol::Address;

use super::{
    answer::{Cause, Explanation},
    facts::{PeerFacts, seconds},
};
use crate::{
    engine::Engine,
    ids::{IslandIndex, PeerIndex},
    world::{Flags, PeerState, ZoneTransition},
};

impl Engine {
    pub(super) fn peer_facts(&self, peer: PeerIndex, now: Duration) -> PeerFacts {
        let record = &self.world.peers[peer];
        let at = self.world.position(peer);
        let traits = self.world.spatial.traits(peer);
        let island = self.world.spatial.island_of(peer);
        let transition = self.world.zone_transitions.get(peer);
        let id = |serial| self.world.islands.ids.island_id(serial);
        PeerFacts {
            address: record.address,
            present: record.state == PeerState::Present,
            position: [at.x, record.height_m, at.z],
            heard_s_ago: seconds(now.saturating_sub(record.last_seen())),
            session: self.world.peers.session(peer).map(|session| session.to_string()),
            replaced_session_heard_s_ago: self
                .world
                .peers
                .stale_heartbeats
                .get(&peer)
                .map(|&at| seconds(now.saturating_sub(at))),
            can_join: self.capability_names(traits.capabilities()),
            areas: self.area_labels(traits.zone()),
            stands_in: transition.map(|transition| self.area_labels(transition.to)),
            counts_in_s: transition.map(|transition| seconds(transition.due.saturating_sub(now))),
            island: island.and_then(|island| self.world.islands.id(island)),
            desired_room: self.world.peers.preferred_island.get(&peer).map(|&serial| id(serial)),
            told_island: record.last_assigned.map(id),
            told_node: self.node_name(record.last_assigned_node),
        }
    }

    pub(super) fn explain_peer(&self, address: Address, now: Duration) -> Explanation {
        let Some(peer) = self.world.peers.find(address) else { return unknown_peer(address) };
        let mut explanation = match self.island_or_absence(peer, now) {
            Ok(island) => self.explain_present(peer, island, now),
            Err((cause, summary)) => Explanation::new(cause, summary),
        };
        explanation.peers.push(self.peer_facts(peer, now));
        explanation
    }

    fn explain_present(&self, peer: PeerIndex, island: IslandIndex, now: Duration) -> Explanation {
        let facts = self.island_facts(island, now);
        let settling = || {
            Some((Cause::Settling, self.crossing_summary(peer, self.world.zone_transitions.get(peer)?, now)))
        };
        let (cause, summary) = self
            .pending_assignment_cause(peer, island)
            .or_else(settling)
            .unwrap_or_else(|| self.placement_cause(island, &facts, now));
        Explanation { islands: vec![facts], ..Explanation::new(cause, summary) }
    }

    /// States that a peer has crossed a border and when the crossing takes effect.
    pub(super) fn crossing_summary(
        &self,
        peer: PeerIndex,
        transition: ZoneTransition,
        now: Duration,
    ) -> String {
        let (address, left) = (self.world.peers[peer].address, seconds(transition.due.saturating_sub(now)));
        format!("{address} has crossed a border, and the crossing takes effect in {left:.1} s")
    }

    /// The island of a peer with a current session; otherwise why it is in no island, or why
    /// its messages are ignored.
    pub(super) fn island_or_absence(
        &self,
        peer: PeerIndex,
        now: Duration,
    ) -> Result<IslandIndex, (Cause, String)> {
        let record = &self.world.peers[peer];
        let address = record.address;
        let silent_for = now.saturating_sub(record.last_seen());
        let replaced = self.world.peers.stale_heartbeats.get(&peer).map(|&at| now.saturating_sub(at));
        if let Some(ago) = replaced.filter(|&ago| ago <= self.settings.silence) {
            let summary = format!(
                "{address} has a newer session: heartbeats of a replaced session are ignored, and one arrived {:.1} s ago",
                seconds(ago)
            );
            return Err((Cause::OtherSession, summary));
        }
        Err(match record.state {
            PeerState::Departed if record.flags.has(Flags::TIMED_OUT) => {
                let limit = seconds(self.settings.silence);
                let summary = format!(
                    "{address} sent no message for {:.1} s, and the limit is {limit} s",
                    seconds(silent_for)
                );
                (Cause::SilentPeer, summary)
            }
            PeerState::Departed => (Cause::Left, format!("{address} disconnected")),
            PeerState::Connected => {
                (Cause::OtherSession, format!("{address} signed in and has not sent a position yet"))
            }
            PeerState::Forgotten => (Cause::Unknown, format!("{address} is not in the world")),
            PeerState::Present if record.flags.has(Flags::AWAITING_HEARTBEAT) => {
                let summary = format!("{address} has a new session, which has not sent a position yet");
                (Cause::OtherSession, summary)
            }
            PeerState::Present if !self.world.is_placeable(peer) => (
                Cause::OtherCluster,
                format!("{address} is in no cluster: clusters decide which peers share an island"),
            ),
            PeerState::Present => match self.world.spatial.island_of(peer) {
                Some(island) => return Ok(island),
                None => (
                    Cause::NextFlush,
                    format!("{address} has just arrived: the next flush assigns it to an island"),
                ),
            },
        })
    }

    /// Why a peer was not sent the present node of its island; `None`: it was, or there is no node.
    pub(super) fn pending_assignment_cause(
        &self,
        peer: PeerIndex,
        island: IslandIndex,
    ) -> Option<(Cause, String)> {
        let (record, island) = (&self.world.peers[peer], &self.world.islands[island]);
        let node = island.node?;
        if (record.last_assigned, record.last_assigned_node) == (island.serial, island.node) {
            return None;
        }
        let (address, nodes) = (record.address, &self.world.nodes);
        let name = nodes.name(node);
        Some(if !nodes.is_available(node) {
            (
                Cause::Draining,
                format!("{address} waits: {name}, the node of its island, accepts no new members"),
            )
        } else if nodes.is_overbooked(node) {
            (Cause::NoSeats, format!("{address} waits: {name}, the node of its island, has no free seat"))
        } else {
            (Cause::NextFlush, format!("{address} gets its assignment to {name} at the next flush"))
        })
    }
}

pub(super) fn unknown_peer(address: Address) -> Explanation {
    let summary = format!("{address} is not in the world: it never signed in, or left some time ago");
    Explanation::new(Cause::Unknown, summary)
}
