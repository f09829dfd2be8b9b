//! Explains where a peer is, or why it is in no island, and which rules apply at a position.

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
        let facts = self.position_facts(Point { x: position.x, z: position.z });
        let rule = facts.rules.iter().find(|rule| rule.matches);
        let summary = match (rule, &facts.exclusive) {
            (Some(rule), Some(area)) => {
                format!("rule `{}` is the first that applies here, in the exclusive area {area}", rule.name)
            }
            (Some(rule), None) => format!("rule `{}` is the first that applies here", rule.name),
            (None, _) => "no rule applies here".to_owned(),
        };
        let cause = if facts.exclusive.is_some() { Cause::ExclusiveRule } else { Cause::AsWanted };
        Explanation { place: Some(facts), ..Explanation::new(cause, summary) }
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

    /// States that a peer has crossed a border and when the crossing takes effect.
    pub(super) fn crossing_summary(&self, peer: u32, transition: ZoneTransition, now: Duration) -> String {
        let (address, left) = (self.peers[peer].address, seconds(transition.due.saturating_sub(now)));
        format!("{address} has crossed a border, and the crossing takes effect in {left:.1} s")
    }

    /// Why a peer is in no island, or why its messages are ignored; `None`: it is in an island and its
    /// session is the current one.
    pub(super) fn absence_cause(&self, peer: u32, now: Duration) -> Option<(Cause, String)> {
        let record = &self.peers[peer];
        let address = record.address;
        let silent_for = now.saturating_sub(record.last_seen());
        let replaced = self.stale_heartbeats.get(&peer).map(|&at| now.saturating_sub(at));
        if let Some(ago) = replaced.filter(|&ago| ago <= self.settings.silence) {
            let summary = format!(
                "{address} has a newer session: heartbeats of a replaced session are ignored, and one arrived {:.1} s ago",
                seconds(ago)
            );
            return Some((Cause::OtherSession, summary));
        }
        match record.state {
            PeerState::Departed if record.flags.has(Flags::TIMED_OUT) => {
                let limit = seconds(self.settings.silence);
                let summary = format!(
                    "{address} sent no message for {:.1} s, and the limit is {limit} s",
                    seconds(silent_for)
                );
                Some((Cause::SilentPeer, summary))
            }
            PeerState::Departed => Some((Cause::Left, format!("{address} disconnected"))),
            PeerState::Connected => {
                Some((Cause::OtherSession, format!("{address} signed in and has not sent a position yet")))
            }
            PeerState::Forgotten => Some((Cause::Unknown, format!("{address} is not in the world"))),
            PeerState::Present if record.flags.has(Flags::AWAITING_HEARTBEAT) => {
                let summary = format!("{address} has a new session, which has not sent a position yet");
                Some((Cause::OtherSession, summary))
            }
            PeerState::Present if !self.is_placeable(peer) => Some((
                Cause::OtherCluster,
                format!("{address} is in no cluster: clusters decide which peers share an island"),
            )),
            PeerState::Present if self.spatial.island_of(peer) == NONE => Some((
                Cause::NextFlush,
                format!("{address} has just arrived: the next flush assigns it to an island"),
            )),
            PeerState::Present => None,
        }
    }

    /// Why a peer was not sent the present node of its island; `None`: it was, or there is no node.
    pub(super) fn pending_assignment_cause(&self, peer: u32) -> Option<(Cause, String)> {
        let (record, island) = (&self.peers[peer], &self.islands[self.spatial.island_of(peer)]);
        let node = self.registry.name(island.node)?;
        if (record.last_assigned, record.last_assigned_node) == (island.serial, island.node) {
            return None;
        }
        let address = record.address;
        Some(if !self.registry.is_available(island.node) {
            (
                Cause::Draining,
                format!("{address} waits: {node}, the node of its island, accepts no new members"),
            )
        } else if self.registry.is_overbooked(island.node) {
            (Cause::NoSeats, format!("{address} waits: {node}, the node of its island, has no free seat"))
        } else {
            (Cause::NextFlush, format!("{address} gets its assignment to {node} at the next flush"))
        })
    }
}

pub(super) fn unknown_peer(address: Address) -> Explanation {
    let summary = format!("{address} is not in the world: it never signed in, or left some time ago");
    Explanation::new(Cause::Unknown, summary)
}
