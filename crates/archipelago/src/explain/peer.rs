use std::time::Duration;

use protocol::{Address, Position};

use super::{Cause, Explanation, facts::seconds};
use crate::{
    crossing::Crossing,
    engine::Engine,
    ground::Point,
    peers::{Flags, State},
    slab::NONE,
};

impl Engine {
    pub(super) fn explain_place(&self, position: Position) -> Explanation {
        let place = self.place_facts(Point { x: position.x, z: position.z });
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
        let Some(peer) = self.peers.find(address) else { return unknown(address) };
        let mut explanation = match self.why_absent(peer, now) {
            Some((cause, summary)) => Explanation::new(cause, summary),
            None => self.explain_present(peer, now),
        };
        explanation.peers.push(self.peer_facts(peer, now));
        explanation
    }

    fn explain_present(&self, peer: u32, now: Duration) -> Explanation {
        let island = self.ground.island_of(peer);
        let facts = self.island_facts(island, now);
        let settling = || Some((Cause::Settling, self.who_crosses(peer, self.crossings.of(peer)?, now)));
        let (cause, summary) =
            self.why_untold(peer).or_else(settling).unwrap_or_else(|| self.why_there(island, &facts, now));
        Explanation { islands: vec![facts], ..Explanation::new(cause, summary) }
    }

    /// That a peer is on the other side of a border.
    pub(super) fn who_crosses(&self, peer: u32, crossing: Crossing, now: Duration) -> String {
        let (address, left) = (self.peers[peer].address, seconds(crossing.due.saturating_sub(now)));
        format!("{address} has crossed a border, which counts when it has lasted, in {left:.1} s")
    }

    /// Why a peer is in no island, if it is not.
    pub(super) fn why_absent(&self, peer: u32, now: Duration) -> Option<(Cause, String)> {
        let record = &self.peers[peer];
        let address = record.address;
        let quiet = now.saturating_sub(record.last_heard());
        let replaced = self.replaced.get(&peer).map(|&at| now.saturating_sub(at));
        if let Some(ago) = replaced.filter(|&ago| ago <= self.settings.silence) {
            let summary = format!(
                "{address} signed in again elsewhere: what a session says that was replaced counts for nothing, and one did so {:.1} s ago",
                seconds(ago)
            );
            return Some((Cause::OtherSession, summary));
        }
        match record.state {
            State::Departed if record.flags.has(Flags::SILENT) => {
                let limit = seconds(self.settings.silence);
                let summary = format!(
                    "{address} was not heard for {:.1} s, and {limit} s are the most",
                    seconds(quiet)
                );
                Some((Cause::SilentPeer, summary))
            }
            State::Departed => Some((Cause::Left, format!("{address} signed off, or its connection ended"))),
            State::Known => {
                Some((Cause::OtherSession, format!("{address} signed in and has not yet said where it is")))
            }
            State::Forgotten => Some((Cause::Unknown, format!("{address} is not in the world"))),
            State::Present if record.flags.has(Flags::MUTE) => {
                let summary = format!(
                    "{address} signed in again, and in its new session it has not yet said where it is"
                );
                Some((Cause::OtherSession, summary))
            }
            State::Present if !self.belongs(peer) => Some((
                Cause::OtherCluster,
                format!("{address} is in no cluster, and clusters say who is together"),
            )),
            State::Present if self.ground.island_of(peer) == NONE => {
                Some((Cause::NextFlush, format!("{address} has just come: the next flush places it")))
            }
            State::Present => None,
        }
    }

    /// Why a peer that is in an island with a node was not told of that.
    pub(super) fn why_untold(&self, peer: u32) -> Option<(Cause, String)> {
        let (record, place) = (&self.peers[peer], &self.islands[self.ground.island_of(peer)]);
        let node = self.registry.name(place.node)?;
        if (record.told, record.told_node) == (place.serial, place.node) {
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

pub(super) fn unknown(address: Address) -> Explanation {
    let summary = format!("{address} is not in the world: it never came, or has been gone for a while");
    Explanation::new(Cause::Unknown, summary)
}
