//! Plans: the part of the mesh that one member is sent.

use std::sync::Arc;

use protocol::Address;

/// The short name of a member within its mesh: from 1, never reused.
pub type Alias = u32;

/// The links and the forwarding table of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The version of the mesh that this plan belongs to, from 1. It grows with each plan that a member is sent.
    pub version: u32,
    /// The alias of the recipient.
    pub alias: Alias,
    /// All members, the recipient too, by alias. The plans of one version share the list.
    pub members: Arc<[PlanMember]>,
    /// The links that the recipient should hold, by alias.
    pub links: Vec<Link>,
    /// The forwarding table: the recipient's own route, and one for each source that a path leads from; by source.
    pub routes: Vec<Route>,
}

/// A member in the list of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanMember {
    /// Its alias.
    pub alias: Alias,
    /// Its address.
    pub address: Address,
}

/// A link that the recipient of a [`Plan`] should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The member at the other end.
    pub alias: Alias,
    /// Whether the recipient makes the offer. Exactly one of the two sides initiates.
    pub initiate: bool,
}

/// The forwarding of packets of one source, by the recipient of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The member that sent the packet first.
    pub source: Alias,
    /// The neighbour that the packet arrives from; `None` in the route of the recipient's own packets.
    pub from: Option<Alias>,
    /// The neighbours that the packet is forwarded to, by alias.
    pub to: Vec<Alias>,
    /// The members that no path reaches, by alias. Empty in routes of other sources.
    pub fallback: Vec<Alias>,
}
