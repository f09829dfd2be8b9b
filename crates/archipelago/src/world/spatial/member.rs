//! Members of islands as queries return them.

use super::peer_traits::PeerTraits;
use crate::{ids::PeerIndex, point::Point};

/// A member of an island, with its position and traits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) peer: PeerIndex,
    pub(crate) at: Point,
    pub(crate) traits: PeerTraits,
}
