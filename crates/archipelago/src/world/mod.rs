//! The world: peers, islands, nodes and zones, the positions of all of them, and the changes since the last
//! flush. It knows neither the inputs of the engine nor the phases of a flush.

mod assignment_retry;
mod capabilities;
mod changes;
mod clusters;
mod invalidation;
mod islands;
mod node;
mod nodes;
mod peers;
mod placements;
mod presence;
mod reconnect_grace;
mod size_limits;
mod spatial;
mod state;
mod zone_transitions;
mod zones;
mod zoning;

#[cfg(test)]
pub(crate) use self::spatial::{PeerTraits, ZoneDistances};
pub(crate) use self::{
    capabilities::Capabilities,
    changes::{Evaluated, MoveOrigin},
    invalidation::RuleChange,
    islands::{EmptyIsland, IslandRule, IslandState},
    node::{Demand, NodeRejection},
    peers::{Flags, PeerState},
    placements::PlacementState,
    reconnect_grace::LastIsland,
    spatial::{DistanceTable, Member},
    state::World,
    zone_transitions::ZoneTransition,
};
