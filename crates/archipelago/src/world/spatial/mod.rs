//! A spatial hash grid of peer positions, grouped by island.
//!
//! Cells are squares as wide as the largest distance of any query, so all points within that distance
//! of a point are in its cell or in one of the eight around it. The members of one island and zone in
//! one cell form a *group*. Queries between islands compare group with group: members of one island are
//! never compared with each other, and where all peers are at one position there is one group per
//! island and zone, however many peers.

mod cells;
mod distances;
mod index;
mod island_stats;
mod islands;
mod lists;
mod member;
mod membership;
mod memory_order;
mod peer_traits;
mod queries;
mod visited_islands;

pub(crate) use self::{
    distances::{DistanceTable, ZoneDistances},
    index::SpatialIndex,
    member::Member,
    peer_traits::{MAX_ZONES, PeerTraits},
};
