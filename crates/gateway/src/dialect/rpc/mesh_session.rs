//! The part of an RPC session that concerns the mesh of its island.

use bytes::Bytes;
use protocol::{
    Address, IslandId, Message as _,
    mesh::{Plan, Signal, signal::Content},
};
use tokio::time::Instant;

use crate::{
    mesh::{
        refusal::MeshRefusal,
        throttle::SignalThrottle,
        topics::{self, SignalKind},
    },
    session::message::IslandChange,
};

/// The mesh of one session, as far as the session's client is concerned.
#[derive(Debug)]
pub(crate) struct MeshSession {
    /// The island of the last assignment, if it is a mesh.
    island: Option<IslandId>,
    /// The newest plan of that island.
    plan: Option<Plan>,
    throttle: SignalThrottle,
    /// The call with the signals or the report that are being forwarded, and its response. There is at most one: the driver
    /// handles each request before it polls the next.
    forwarding: Option<(u32, Bytes)>,
}

/// A signal for the client, as a message in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MailboxMessage {
    pub(crate) sender: Address,
    pub(crate) kind: SignalKind,
    pub(crate) payload: Bytes,
}

impl MeshSession {
    /// The state of a client that has just connected.
    pub(crate) fn new(now: Instant) -> Self {
        Self { island: None, plan: None, throttle: SignalThrottle::new(now), forwarding: None }
    }

    /// Handles a new assignment. The plan remains if the island is the same mesh.
    pub(crate) fn change_island(&mut self, change: &IslandChange) {
        let island = change.is_mesh.then(|| change.island.clone());
        if island != self.island {
            self.plan = None;
        }
        self.island = island;
    }

    /// Handles an encoded plan. One of an earlier island is ignored.
    pub(crate) fn receive_plan(&mut self, plan: Bytes) {
        if let Ok(plan) = Plan::decode(plan)
            && self.is_current(&plan.island_id)
        {
            self.plan = Some(plan);
        }
    }

    /// Converts an encoded signal of another member. One of an earlier island is dropped: the message in the mailbox
    /// does not name the island.
    pub(crate) fn receive_signal(&self, signal: Bytes) -> Option<MailboxMessage> {
        let signal = Signal::decode(signal).ok().filter(|signal| self.is_current(&signal.island_id))?;
        let sender = signal.peer.parse().ok()?;
        let (kind, payload) = topics::encode_payload(signal, self.is_initiator(sender))?;
        Some(MailboxMessage { sender, kind, payload })
    }

    /// A signal to another member of the current mesh.
    pub(crate) fn signal(
        &self,
        recipient: &str,
        negotiation: u32,
        content: Content,
    ) -> Result<Signal, MeshRefusal> {
        let island = self.island.as_ref().ok_or(MeshRefusal::NoMember)?;
        let (island_id, peer) = (island.as_str().to_owned(), recipient.to_owned());
        Ok(Signal { island_id, peer, negotiation, content: Some(content) })
    }

    /// Charges a signal to the rate limit: see [`SignalThrottle::charge`].
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.throttle.charge(bytes, now)
    }

    /// Keeps the response of a call until its request has been handled.
    pub(crate) fn begin_forwarding(&mut self, number: u32, response: Bytes) {
        self.forwarding = Some((number, response));
    }

    /// Removes and returns the call that was kept last, and its response.
    pub(crate) fn end_forwarding(&mut self) -> Option<(u32, Bytes)> {
        self.forwarding.take()
    }

    fn is_current(&self, island: &str) -> bool {
        self.island.as_ref().is_some_and(|current| current.as_str() == island)
    }

    /// Whether the other end of a link sends its offers, by the newest plan: true without such a link.
    fn is_initiator(&self, other: Address) -> bool {
        let Some(plan) = &self.plan else { return true };
        let other = other.to_string();
        let alias = plan.members.iter().find(|member| member.address == other).map(|member| member.alias);
        !plan.links.iter().any(|link| Some(link.alias) == alias && link.initiate)
    }
}
