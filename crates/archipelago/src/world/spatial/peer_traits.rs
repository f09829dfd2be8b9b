//! What the engine needs to know of a peer besides its position: its zone and its capabilities.

use crate::{
    ids::{TableIndex, ZoneIndex},
    world::capabilities::Capabilities,
};

/// The zone of a peer (after the settling time at a border) in the upper 24 bits, and the transports
/// that its client can join in the lower 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PeerTraits(u32);

/// The greatest number of zones.
pub(crate) const MAX_ZONES: usize = 1 << 24;

impl PeerTraits {
    pub(crate) fn new(zone: ZoneIndex, capabilities: Capabilities) -> Self {
        Self((zone.position() as u32) << 8 | u32::from(capabilities.0))
    }

    pub(crate) fn zone(self) -> ZoneIndex {
        ZoneIndex::new((self.0 >> 8) as usize)
    }

    pub(crate) fn capabilities(self) -> Capabilities {
        Capabilities(self.0 as u8)
    }
}
