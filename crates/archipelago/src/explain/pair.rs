//! Explains why two peers do not share an island, or do not receive each other.

use std::time::Duration;

use protocol::Address;

use super::{
    answer::{Cause, Explanation},
    peer::unknown_peer,
};
use crate::{
    engine::Engine,
    ids::{IslandIndex, PeerIndex},
    world::{Capabilities, Member},
};

/// The two members of two islands that are nearest to merging, and their distance.
struct NearestPair {
    distance_m: f32,
    ours: Member,
    theirs: Member,
}

impl Engine {
    pub(super) fn explain_pair(&self, one: Address, other: Address, now: Duration) -> Explanation {
        let (Some(a), Some(b)) = (self.world.peers.find(one), self.world.peers.find(other)) else {
            let missing = if self.world.peers.find(one).is_none() { one } else { other };
            let found = [one, other].into_iter().filter_map(|peer| self.world.peers.find(peer));
            let peers = found.map(|peer| self.peer_facts(peer, now)).collect();
            return Explanation { peers, ..unknown_peer(missing) };
        };
        let (cause, summary) = self.separation_cause(a, b, now);
        let islands = [a, b].into_iter().filter_map(|peer| self.world.spatial.island_of(peer));
        let mut islands: Vec<IslandIndex> = islands.collect();
        islands.dedup();
        Explanation {
            peers: vec![self.peer_facts(a, now), self.peer_facts(b, now)],
            islands: islands.into_iter().map(|island| self.island_facts(island, now)).collect(),
            ..Explanation::new(cause, summary)
        }
    }

    fn separation_cause(&self, a: PeerIndex, b: PeerIndex, now: Duration) -> (Cause, String) {
        let islands = (self.island_or_absence(a, now), self.island_or_absence(b, now));
        let (ours, theirs) = match islands {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(absent), _) | (_, Err(absent)) => return absent,
        };
        if ours == theirs {
            return self.same_island_cause([a, b], ours, now);
        }
        let clusters =
            [a, b].map(|peer| self.world.clusters.as_ref().and_then(|clusters| clusters.name(peer)));
        if let [Some(one), Some(other)] = clusters
            && one != other
        {
            let [a, b] = [a, b].map(|peer| self.world.peers[peer].address);
            let summary = format!(
                "{a} is in cluster {one:?}, {b} in {other:?}: clusters decide which peers share an island"
            );
            return (Cause::OtherCluster, summary);
        }
        let [from, to] = [a, b].map(|peer| self.world.spatial.traits(peer).zone());
        if self.world.spatial.distances.enclosure(from) != self.world.spatial.distances.enclosure(to) {
            return self.enclosure_cause(a, b, now);
        }
        let Some(nearest) = self.nearest_pair(ours, theirs) else {
            return (Cause::Unknown, "an island has no members".to_owned());
        };
        let NearestPair {
            distance_m,
            ours: Member { traits: our_traits, .. },
            theirs: Member { traits: their_traits, .. },
        } = nearest;
        let join_m =
            self.world.spatial.distances.join_squared(our_traits.zone(), their_traits.zone()).max(0.0).sqrt();
        let leave_m = self
            .world
            .spatial
            .distances
            .leave_squared(our_traits.zone(), their_traits.zone())
            .max(0.0)
            .sqrt();
        if distance_m > leave_m {
            let summary = format!(
                "their islands are {distance_m:.1} m apart at the nearest members, and the join distance is {join_m} m"
            );
            return (Cause::TooFar, summary);
        }
        if distance_m > join_m {
            let summary = format!(
                "their islands are {distance_m:.1} m apart: beyond the join distance of {join_m} m, within the leave distance of {leave_m} m"
            );
            return (Cause::Hysteresis, summary);
        }
        self.unmerged_cause([a, b], [ours, theirs])
    }

    /// Why two members of one island may not receive each other.
    fn same_island_cause(
        &self,
        peers: [PeerIndex; 2],
        island: IslandIndex,
        now: Duration,
    ) -> (Cause, String) {
        let facts = self.island_facts(island, now);
        if self.world.islands[island].node.is_none() {
            return self.placement_cause(island, &facts, now);
        }
        if let Some(pending) = peers.into_iter().find_map(|peer| self.pending_assignment_cause(peer, island))
        {
            return pending;
        }
        let node = facts.node.map(|node| node.to_string()).unwrap_or_default();
        (Cause::Together, format!("both are in {} on {node} and were sent that assignment", facts.id))
    }

    /// Why peers of two enclosures do not share an island.
    fn enclosure_cause(&self, a: PeerIndex, b: PeerIndex, now: Duration) -> (Cause, String) {
        let enclosure_at_position = |peer: PeerIndex| {
            let zone_in_effect = self.world.spatial.traits(peer).zone();
            let zone =
                self.world.zone_transitions.get(peer).map_or(zone_in_effect, |transition| transition.to);
            self.world.spatial.distances.enclosure(zone)
        };
        let transitions =
            [a, b].into_iter().filter_map(|peer| Some((self.world.zone_transitions.get(peer)?, peer)));
        let last = transitions.max_by_key(|(transition, _)| transition.due);
        if let Some((transition, peer)) =
            last.filter(|_| enclosure_at_position(a) == enclosure_at_position(b))
        {
            return (Cause::Settling, self.crossing_summary(peer, transition, now));
        }
        let inside = [a, b].into_iter().find_map(|peer| {
            let zone = self.world.zones.zone(self.world.spatial.traits(peer).zone());
            Some((peer, zone.enclosure?))
        });
        let peer = inside.map_or(a, |(peer, _)| peer);
        let area = inside.map(|(_, area)| area);
        let rules = self.world.zones.rules();
        let exclusive = rules.numbered().find(|&(index, rule)| {
            rule.exclusive && rule.area == area && self.world.zones.is_active_now(index)
        });
        let rule = exclusive.map(|(_, rule)| rule.name.as_str()).unwrap_or_default();
        let label = area.map_or("", |area| rules.area(area).label.as_str());
        let summary = format!(
            "rule `{rule}` makes {label} exclusive, and only {} is inside",
            self.world.peers[peer].address
        );
        (Cause::ExclusiveRule, summary)
    }

    /// Why two islands within the join distance have not merged.
    fn unmerged_cause(&self, peers: [PeerIndex; 2], [ours, theirs]: [IslandIndex; 2]) -> (Cause, String) {
        let size = self.world.spatial.size(ours) + self.world.spatial.size(theirs);
        let limit = self.world.merged_size_limit(ours, theirs);
        if size <= limit {
            return (
                Cause::NextFlush,
                "they are within the join distance: the next flush merges their islands".to_owned(),
            );
        }
        // Would the merged island fit if all members could join every available transport?
        let zones =
            self.world.spatial.member_zones(ours, None).chain(self.world.spatial.member_zones(theirs, None));
        let limits = zones.map(|zone| self.world.zones.size_limit(zone, Capabilities::ALL));
        if limits.min().is_some_and(|limit| size <= limit) {
            let [our_transports, their_transports] = [ours, theirs].map(|island| {
                self.capability_names(self.world.spatial.capabilities(island, None)).join(", ")
            });
            let summary = format!(
                "no transport that all members can join has room for both: one island can join {}, the other {}",
                or_nothing(&our_transports),
                or_nothing(&their_transports)
            );
            return (Cause::Capability, summary);
        }
        for (peer, island) in peers.into_iter().zip([ours, theirs]) {
            let serial = self.world.islands[island].serial;
            if serial.is_some() && self.world.peers.preferred_island.get(&peer) == serial.as_ref() {
                let id = self.island_id(island);
                let address = self.world.peers[peer].address;
                return (Cause::Preference, format!("{address} prefers {id} and is in it"));
            }
        }
        let summary = format!("a merged island would have {size} members, and the limit is {limit}");
        (Cause::FullIsland, summary)
    }

    /// The pair of members, one of each island, that is nearest to its join distance.
    fn nearest_pair(&self, one: IslandIndex, other: IslandIndex) -> Option<NearestPair> {
        let pairs = self.world.spatial.members(one).flat_map(|ours| {
            self.world.spatial.members(other).map(move |theirs| {
                let zones = (ours.traits.zone(), theirs.traits.zone());
                let join_m = self.world.spatial.distances.join_squared(zones.0, zones.1).max(0.0).sqrt();
                let distance_m = ours.at.distance_squared(theirs.at).sqrt();
                // The distance by which the pair exceeds its join distance.
                (distance_m - join_m, NearestPair { distance_m, ours, theirs })
            })
        });
        pairs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, nearest)| nearest)
    }
}

fn or_nothing(list: &str) -> &str {
    if list.is_empty() { "nothing" } else { list }
}
