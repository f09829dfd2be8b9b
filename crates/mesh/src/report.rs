//! Reports: the input of the members.

use protocol::{Address, Position};

use crate::plan::Alias;

/// The links of one member, as it sees them.
///
/// The lists are complete: a link that is not listed is not up. Aliases that the mesh does not know are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkReport {
    /// The newest plan that the member has; 0 before the first.
    pub version: u32,
    /// The members that it has a link to.
    pub connected_to: Vec<Alias>,
    /// Targets of its plan that could not be linked after retries.
    pub failed: Vec<Alias>,
    /// Neighbours that it disconnected because they exceeded its rate limit. They count as failed on both sides.
    pub flooding: Vec<Alias>,
    /// Deliveries since its last report: messages × members that each was meant for.
    pub sent: u32,
    /// The part of `sent` that went through gateways.
    pub sent_by_fallback: u32,
}

/// One member of a mesh that is [restored](crate::Mesh::restore).
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredMember {
    /// Its address.
    pub address: Address,
    /// Its position.
    pub position: Position,
    /// As in [`Mesh::join`](crate::Mesh::join).
    pub prefers_to_initiate: bool,
    /// The state that it reported; `None` if it did not report in time.
    pub reported: Option<RestoredState>,
}

/// The state of a member under the former planner of its mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredState {
    /// Its own alias.
    pub alias: Alias,
    /// The newest plan that it has.
    pub version: u32,
    /// The greatest alias that it has seen in any plan of this mesh.
    pub highest_alias: Alias,
    /// The links that are up: alias and address of the other end.
    pub links: Vec<(Alias, Address)>,
}
