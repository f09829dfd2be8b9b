//! The limits and distances that islands are checked against.

use std::collections::HashMap;

use protocol::Address;

use crate::{
    engine::Engine,
    ids::{AreaIndex, ZoneIndex},
    settings::Settings,
    world::Capabilities,
};

/// The limits and distances that islands are checked against.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Size limit of an island.
    pub limit: u32,
    /// See [`Settings::join_distance_m`].
    pub join_distance_m: f32,
    /// See [`Settings::leave_distance_m`].
    pub leave_distance_m: f32,
    /// Bounds that rules and client capabilities change, by peer; `None`: the same bounds apply to all peers.
    pub per_peer: Option<PerPeerBounds>,
}

/// Bounds that differ between peers, because of rules or client capabilities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PerPeerBounds {
    /// The bounds of each peer.
    pub(crate) peers: HashMap<Address, PeerBounds>,
    /// Size limit of an island, by zone and by the capabilities that all members have.
    pub(crate) limits: HashMap<(ZoneIndex, Capabilities), u32>,
}

/// The bounds of one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerBounds {
    /// The zone in effect for it: the ground that is in the same areas.
    pub(crate) zone: ZoneIndex,
    /// Only peers with the same enclosure share islands.
    pub(crate) enclosure: Option<AreaIndex>,
    /// Its client's capabilities.
    pub(crate) capabilities: Capabilities,
    /// Join distance in metres; the smaller one of two peers applies.
    pub(crate) join_m: f32,
    /// Leave distance in metres; the smaller one of two peers applies.
    pub(crate) leave_m: f32,
}

impl Bounds {
    /// The same bounds for all peers.
    pub fn uniform(limit: u32, join_distance_m: f32, leave_distance_m: f32) -> Self {
        Self { limit, join_distance_m, leave_distance_m, per_peer: None }
    }

    /// The bounds in effect in an engine.
    pub fn of(engine: &Engine) -> Self {
        let &Settings { join_distance_m, leave_distance_m, .. } = engine.settings();
        Self {
            per_peer: PerPeerBounds::of(engine),
            ..Self::uniform(engine.open_zone_limit(), join_distance_m, leave_distance_m)
        }
    }

    /// Join distance of two peers, in metres; `None`: they may not share an island.
    pub fn join_m(&self, one: Address, other: Address) -> Option<f32> {
        self.smaller_of_pair(one, other, self.join_distance_m, |bounds| bounds.join_m)
    }

    /// Leave distance of two peers, in metres; `None`: they may not share an island.
    pub fn leave_m(&self, one: Address, other: Address) -> Option<f32> {
        self.smaller_of_pair(one, other, self.leave_distance_m, |bounds| bounds.leave_m)
    }

    fn smaller_of_pair(
        &self,
        one: Address,
        other: Address,
        uniform_m: f32,
        of_peer: impl Fn(&PeerBounds) -> f32,
    ) -> Option<f32> {
        let Some(PerPeerBounds { peers, .. }) = &self.per_peer else { return Some(uniform_m) };
        let (Some(one), Some(other)) = (peers.get(&one), peers.get(&other)) else { return Some(uniform_m) };
        (one.enclosure == other.enclosure).then(|| of_peer(one).min(of_peer(other)))
    }

    /// Size limit of an island with these members.
    pub fn limit_of(&self, members: impl IntoIterator<Item = Address>) -> u32 {
        let Some(PerPeerBounds { peers, limits }) = &self.per_peer else { return self.limit };
        let bounds: Vec<&PeerBounds> = members.into_iter().filter_map(|peer| peers.get(&peer)).collect();
        let capabilities =
            bounds.iter().fold(Capabilities::ALL, |all, bounds| all.intersection(bounds.capabilities));
        let limit = |bounds: &&PeerBounds| limits.get(&(bounds.zone, capabilities)).copied();
        bounds.iter().filter_map(limit).min().unwrap_or(self.limit)
    }

    /// The enclosure of a peer, if it is in one; `None`: all peers have the same.
    pub(super) fn enclosure(&self, peer: Address) -> Option<Option<AreaIndex>> {
        Some(self.per_peer.as_ref()?.peers.get(&peer)?.enclosure)
    }

    /// The greatest leave distance of any peer, in metres.
    pub(super) fn max_leave_m(&self) -> f32 {
        let bounds = self.per_peer.iter().flat_map(|bounds| bounds.peers.values());
        bounds.map(|bounds| bounds.leave_m).fold(self.leave_distance_m, f32::max)
    }
}

impl PerPeerBounds {
    /// The distances and limits of each peer; `None` if the settings apply to all.
    fn of(engine: &Engine) -> Option<Self> {
        let Settings { join_distance_m, leave_distance_m, .. } = engine.settings;
        let world = &engine.world;
        let open = world.zones.distances(ZoneIndex::OPEN);
        let plain = (open.join_m, open.leave_m) == (join_distance_m, leave_distance_m);
        if plain && !world.zones.is_partitioned() && world.zones.uniform_limit().is_some() {
            return None;
        }
        let peers = world.peers.known().map(|peer| {
            let traits = world.spatial.traits(peer);
            let distances = world.zones.distances(traits.zone());
            let bounds = PeerBounds {
                zone: traits.zone(),
                enclosure: distances.enclosure,
                capabilities: traits.capabilities(),
                join_m: distances.join_m,
                leave_m: distances.leave_m,
            };
            (world.peers[peer].address, bounds)
        });
        let limits = world.zones.limits().map(|(zone, capabilities, limit)| ((zone, capabilities), limit));
        Some(Self { peers: peers.collect(), limits: limits.collect() })
    }
}
