//! The zones of the world, and the distances, size limits and settling times that the rules set in
//! each.
//!
//! A *zone* is all ground that lies in the same set of areas, so the same rules apply everywhere in it;
//! it need not be contiguous. All values that do not depend on the number of peers are computed once
//! for each zone. A zone is created when the first peer enters it.

mod active_rules;
mod crowding;
mod room_sizes;
mod size_limits;
mod zone_table;

pub(crate) use self::zone_table::Zones;
