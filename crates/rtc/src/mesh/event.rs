//! The outputs of a mesh peer.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{
    Address,
    mesh::{LinkReport, Signal},
};

/// An output of a mesh peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To send to the gateway: a part of a negotiation, or an own message for a member that no path reaches. `peer` is
    /// the recipient.
    Signal(Signal),
    /// To send to the gateway: the links of this member. On change, at most every 100 ms, and every 3 s.
    Report(LinkReport),
    /// A new plan has other members than the last one, or is the first. It precedes data of the new members.
    Members {
        /// The alias of this member.
        alias: u32,
        /// All members by alias, this one included.
        members: BTreeMap<u32, Address>,
    },
    /// A message was received.
    Data(Data),
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The member that sent it first. The gateway has authenticated the direct neighbours; the source of a relayed
    /// message is as trustworthy as the relays.
    pub sender: Address,
    /// The alias of the sender.
    pub alias: u32,
    /// The content.
    pub payload: Bytes,
    /// Whether it was sent reliably.
    pub reliable: bool,
}
