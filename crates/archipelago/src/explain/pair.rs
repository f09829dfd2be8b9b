use std::time::Duration;

use protocol::Address;

use super::{Cause, Explanation, peer::unknown_peer};
use crate::{
    engine::Engine,
    registry::NO_NODE,
    slab::NONE,
    spatial::{Capabilities, Member},
};

/// Two members of two islands who are nearest to each other, and how far that is.
struct NearestPair {
    distance_m: f32,
    ours: Member,
    theirs: Member,
}

impl Engine {
    pub(super) fn explain_pair(&self, one: Address, other: Address, now: Duration) -> Explanation {
        let (Some(a), Some(b)) = (self.peers.find(one), self.peers.find(other)) else {
            let missing = if self.peers.find(one).is_none() { one } else { other };
            let known = [one, other].into_iter().filter_map(|peer| self.peers.find(peer));
            let peers = known.map(|peer| self.peer_facts(peer, now)).collect();
            return Explanation { peers, ..unknown_peer(missing) };
        };
        let (cause, summary) = self.separation_cause(a, b, now);
        let mut islands: Vec<u32> = [a, b].map(|peer| self.spatial.island_of(peer)).into();
        islands.retain(|&island| island != NONE);
        islands.dedup();
        Explanation {
            peers: vec![self.peer_facts(a, now), self.peer_facts(b, now)],
            islands: islands.into_iter().map(|island| self.island_facts(island, now)).collect(),
            ..Explanation::new(cause, summary)
        }
    }

    fn separation_cause(&self, a: u32, b: u32, now: Duration) -> (Cause, String) {
        if let Some(absent) = self.absence_cause(a, now).or_else(|| self.absence_cause(b, now)) {
            return absent;
        }
        let [ours, theirs] = [a, b].map(|peer| self.spatial.island_of(peer));
        if ours == theirs {
            return self.same_island_cause(a, b, now);
        }
        let clusters = [a, b].map(|peer| self.clusters.as_ref().and_then(|clusters| clusters.name(peer)));
        if let [Some(one), Some(other)] = clusters
            && one != other
        {
            let [a, b] = [a, b].map(|peer| self.peers[peer].address);
            let summary =
                format!("{a} is in cluster {one:?}, {b} in {other:?}, and clusters say who is together");
            return (Cause::OtherCluster, summary);
        }
        let [from, to] = [a, b].map(|peer| self.spatial.traits(peer).zone());
        if self.spatial.distances.enclosure(from) != self.spatial.distances.enclosure(to) {
            return self.enclosure_cause(a, b, now);
        }
        let Some(gap) = self.nearest_pair(ours, theirs) else {
            return (Cause::Unknown, "an island has no members".to_owned());
        };
        let NearestPair {
            distance_m,
            ours: Member { traits: mine, .. },
            theirs: Member { traits: yours, .. },
        } = gap;
        let join_m = self.spatial.distances.join_squared(mine.zone(), yours.zone()).max(0.0).sqrt();
        let leave_m = self.spatial.distances.leave_squared(mine.zone(), yours.zone()).max(0.0).sqrt();
        if distance_m > leave_m {
            let summary = format!(
                "their islands are {distance_m:.1} m apart, where they are nearest, and {join_m} m is as far as people come together"
            );
            return (Cause::TooFar, summary);
        }
        if distance_m > join_m {
            let summary = format!(
                "their islands are {distance_m:.1} m apart: people come together within {join_m} m, and only stay together up to {leave_m} m"
            );
            return (Cause::Hysteresis, summary);
        }
        self.unmerged_cause(a, b)
    }

    /// Why two of one island may not hear each other.
    fn same_island_cause(&self, a: u32, b: u32, now: Duration) -> (Cause, String) {
        let island = self.spatial.island_of(a);
        let facts = self.island_facts(island, now);
        if self.islands[island].node == NO_NODE {
            return self.placement_cause(island, &facts, now);
        }
        if let Some(untold) = self.pending_assignment_cause(a).or_else(|| self.pending_assignment_cause(b)) {
            return untold;
        }
        let node = facts.node.map(|node| node.to_string()).unwrap_or_default();
        (Cause::Together, format!("they are together in {} on {node}, and both were told so", facts.id))
    }

    /// Why people of two enclosures are not together.
    fn enclosure_cause(&self, a: u32, b: u32, now: Duration) -> (Cause, String) {
        let standing = |peer: u32| {
            let counted = self.spatial.traits(peer).zone();
            let zone = self.zone_transitions.get(peer).map_or(counted, |crossing| crossing.to);
            self.spatial.distances.enclosure(zone)
        };
        let crossings = [a, b].into_iter().filter_map(|peer| Some((self.zone_transitions.get(peer)?, peer)));
        let last = crossings.max_by_key(|(crossing, _)| crossing.due);
        if let Some((crossing, peer)) = last.filter(|_| standing(a) == standing(b)) {
            return (Cause::Settling, self.crossing_summary(peer, crossing, now));
        }
        let inside = [a, b].into_iter().find_map(|peer| {
            let zone = self.zones.zone(self.spatial.traits(peer).zone());
            (zone.enclosure != NONE).then_some((peer, zone.enclosure))
        });
        let (peer, area) = inside.unwrap_or((a, NONE));
        let number = (0..).zip(&self.zones.rules.rules).find(|(number, rule)| {
            rule.exclusive && rule.area == Some(area as usize) && self.zones.is_active_now(*number)
        });
        let rule = number.map(|(_, rule)| rule.name.as_str()).unwrap_or_default();
        let place = self.zones.rules.areas.get(area as usize).map_or("", |area| area.label.as_str());
        let summary = format!(
            "rule `{rule}` keeps the people of {place} to themselves, and only {} is one of them",
            self.peers[peer].address
        );
        (Cause::ExclusiveRule, summary)
    }

    /// Why two islands near each other are two.
    fn unmerged_cause(&self, a: u32, b: u32) -> (Cause, String) {
        let [ours, theirs] = [a, b].map(|peer| self.spatial.island_of(peer));
        let size = self.spatial.size(ours) + self.spatial.size(theirs);
        let limit = self.merged_size_limit(ours, theirs);
        if size <= limit {
            return (
                Cause::NextFlush,
                "they are near each other: the next flush brings them together".to_owned(),
            );
        }
        // Both can join everything that is on offer, say: would they fit then?
        let zones = self.spatial.member_zones(ours, None).chain(self.spatial.member_zones(theirs, None));
        let limits = zones.map(|zone| self.zones.size_limit(zone, Capabilities::ALL));
        if limits.min().is_some_and(|limit| size <= limit) {
            let [mine, yours] = [ours, theirs]
                .map(|island| self.capability_names(self.spatial.capabilities(island, None)).join(", "));
            let summary = format!(
                "their clients have too little in common: one island can join {}, the other {}",
                or_nothing(&mine),
                or_nothing(&yours)
            );
            return (Cause::Capability, summary);
        }
        for (peer, island) in [(a, ours), (b, theirs)] {
            let serial = self.islands[island].serial;
            if self.preferred_island.get(&peer) == Some(&serial) {
                let id = self.ids.island_id(serial);
                let address = self.peers[peer].address;
                return (Cause::Preference, format!("{address} would like to be in {id}, and is"));
            }
        }
        let summary = format!("together their islands would have {size} members, and {limit} are the most");
        (Cause::FullIsland, summary)
    }

    /// Where two islands are nearest to each other.
    fn nearest_pair(&self, one: u32, other: u32) -> Option<NearestPair> {
        let pairs = self.spatial.members(one).flat_map(|ours| {
            self.spatial.members(other).map(move |theirs| {
                let zones = (ours.traits.zone(), theirs.traits.zone());
                let join_m = self.spatial.distances.join_squared(zones.0, zones.1).max(0.0).sqrt();
                let distance_m = ours.at.distance_squared(theirs.at).sqrt();
                // How far they still are from where they would come together.
                (distance_m - join_m, NearestPair { distance_m, ours, theirs })
            })
        });
        pairs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, gap)| gap)
    }
}

fn or_nothing(list: &str) -> &str {
    if list.is_empty() { "nothing" } else { list }
}
