//! The part of an RPC session that concerns the mesh of its island.

use bytes::Bytes;
use protocol::{
    Address, IslandId, Message as _,
    bff::{self, Path, PeerRoutingTable, PeerStatus},
    mesh::{LinkReport, Member, Plan, Signal, signal::Content},
};
use rpc::{Backlog, ErrorCode};
use tokio::time::Instant;

use crate::{
    mesh::{
        refusal::MeshRefusal,
        throttle::SignalThrottle,
        topics::{self, SignalKind},
    },
    metrics,
    session::message::IslandChange,
};

/// The mesh of one session, as far as the session's client is concerned.
#[derive(Debug, Default)]
pub(crate) struct MeshSession {
    /// The island of the last assignment, if it is a mesh.
    island: Option<IslandId>,
    /// The island of the last assignment, if it is a mesh or was one: fallback messages are still exchanged while it
    /// moves. The registry of sessions decides for how long.
    fallback_island: Option<IslandId>,
    /// The newest plan of that island.
    plan: Option<Plan>,
    /// The newest ICE servers, if they changed since the assignment.
    ice_servers: String,
    throttle: SignalThrottle,
    /// The call with the signals or the report that are being forwarded, and its response. There is at most one: the
    /// driver handles each request before it polls the next.
    forwarding: Option<(u32, Bytes)>,
    tables: Option<TableStream>,
    fallbacks: Option<FallbackStream>,
}

/// The stream of routing tables. Each is built when the client requests it, so nothing is queued.
#[derive(Debug)]
struct TableStream {
    number: u32,
    /// Whether there is a table that the client was not sent.
    is_due: bool,
}

/// The stream of fallback messages, with those that the client has not requested yet.
#[derive(Debug)]
struct FallbackStream {
    number: u32,
    backlog: Backlog,
}

/// Bounds of the queue of a [`FallbackStream`]. At either the newest message is dropped and counted.
const FALLBACK_MESSAGES: usize = 64;
const FALLBACK_BYTES: usize = 256 * 1024;

/// The most recipients of one call of `MessagingService.Publish`.
const MAX_RECIPIENTS: usize = 16;

/// The most neighbours of a status. A plan lists six.
const MAX_NEIGHBOURS: usize = 64;

/// A signal for the client, as a message in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MailboxMessage {
    pub(crate) sender: Address,
    pub(crate) kind: SignalKind,
    pub(crate) payload: Bytes,
}

/// Why a call is rejected. The client is sent the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MeshCallError {
    #[error(transparent)]
    Refused(#[from] MeshRefusal),
    #[error("no plan of this island was received")]
    NoPlan,
    #[error("the room is not the island of the newest plan")]
    OtherRoom,
    #[error("a message has no packet")]
    NoPacket,
    #[error("a message has 1 to {MAX_RECIPIENTS} recipients")]
    Recipients,
    #[error("a status has at most {MAX_NEIGHBOURS} neighbours")]
    Neighbours,
    #[error("a stream of this procedure is open")]
    StreamOpen,
}

impl MeshCallError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(MeshRefusal::NoMember | MeshRefusal::Candidate) => ErrorCode::Refused,
            Self::Refused(MeshRefusal::Rate) | Self::Recipients | Self::Neighbours => ErrorCode::LimitReached,
            Self::Refused(_) | Self::NoPacket => ErrorCode::BadPayload,
            Self::NoPlan | Self::OtherRoom | Self::StreamOpen => ErrorCode::Refused,
        }
    }
}

impl MeshSession {
    /// Handles a new assignment, which has new ICE servers. The plan remains if the island is the same mesh.
    pub(crate) fn change_island(&mut self, change: &IslandChange) {
        let island = change.is_mesh.then(|| change.island.clone());
        if island != self.island {
            self.plan = None;
        }
        self.fallback_island.take_if(|before| *before != change.island);
        if island.is_some() {
            self.fallback_island.clone_from(&island);
        }
        self.island = island;
        self.ice_servers.clear();
    }

    /// Handles an encoded plan. One of an earlier island is ignored.
    pub(crate) fn receive_plan(&mut self, plan: Bytes) {
        if let Ok(plan) = Plan::decode(plan)
            && self.is_current(&plan.island_id)
        {
            self.plan = Some(plan);
            self.table_changed();
        }
    }

    /// Handles new ICE servers.
    pub(crate) fn receive_ice_servers(&mut self, servers: &[u8]) {
        if let Ok(servers) = std::str::from_utf8(servers)
            && self.island.is_some()
        {
            servers.clone_into(&mut self.ice_servers);
            self.table_changed();
        }
    }

    /// Converts an encoded signal of another member. One of an earlier island is dropped: the message in the mailbox
    /// does not name the island. A fallback is also queued for its stream.
    pub(crate) fn receive_signal(&mut self, signal: Bytes) -> Option<MailboxMessage> {
        let signal = Signal::decode(signal).ok()?;
        let island = self.island_of(signal.content.as_ref()?);
        island.filter(|island| island.as_str() == signal.island_id)?;
        let sender = signal.peer.parse().ok()?;
        if let (Some(Content::Fallback(packet)), Some(stream)) = (&signal.content, &mut self.fallbacks) {
            stream.push(sender, packet);
        }
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
        let island = self.island_of(&content).ok_or(MeshRefusal::NoMember)?;
        let (island_id, peer) = (island.as_str().to_owned(), recipient.to_owned());
        Ok(Signal { island_id, peer, negotiation, content: Some(content) })
    }

    /// The island in which a signal is exchanged.
    fn island_of(&self, content: &Content) -> Option<&IslandId> {
        match content {
            Content::Fallback(_) => self.fallback_island.as_ref(),
            _ => self.island.as_ref(),
        }
    }

    /// The fallback signals of a message to several members.
    pub(crate) fn fallbacks(&self, request: bff::Request) -> Result<Vec<Signal>, MeshCallError> {
        let packet = request.packet.ok_or(MeshCallError::NoPacket)?.payload;
        if !(1..=MAX_RECIPIENTS).contains(&request.peers.len()) {
            return Err(MeshCallError::Recipients);
        }
        let fallback = |peer: &String| Ok(self.signal(peer, 0, Content::Fallback(packet.clone()))?);
        request.peers.iter().map(fallback).collect()
    }

    /// The link report of a status. Members of earlier plans, and addresses that never were members, are ignored.
    pub(crate) fn report(&self, status: PeerStatus) -> Result<LinkReport, MeshCallError> {
        if let Some(report) = status.report {
            return Ok(report);
        }
        let plan = self.plan.as_ref().ok_or(MeshCallError::NoPlan)?;
        if status.connected_to.len() > MAX_NEIGHBOURS {
            return Err(MeshCallError::Neighbours);
        }
        if status.room != plan.island_id {
            return Err(MeshCallError::OtherRoom);
        }
        let is_linked = |member: &&Member| {
            member.alias != plan.alias
                && status.connected_to.iter().any(|address| address.eq_ignore_ascii_case(&member.address))
        };
        let neighbours: Vec<Member> = plan.members.iter().filter(is_linked).cloned().collect();
        Ok(LinkReport {
            island_id: plan.island_id.clone(),
            version: plan.version,
            connected_to: neighbours.iter().map(|member| member.alias).collect(),
            alias: plan.alias,
            highest_alias: plan.members.iter().map(|member| member.alias).max().unwrap_or_default(),
            neighbours,
            ..LinkReport::default()
        })
    }

    /// Opens the stream of routing tables.
    pub(crate) fn open_tables(&mut self, number: u32) -> Result<(), MeshCallError> {
        if self.tables.is_some() {
            return Err(MeshCallError::StreamOpen);
        }
        self.tables = Some(TableStream { number, is_due: self.plan.is_some() });
        Ok(())
    }

    /// Opens the stream of fallback messages. Earlier ones are not kept for it.
    pub(crate) fn open_fallbacks(&mut self, number: u32) -> Result<(), MeshCallError> {
        if self.fallbacks.is_some() {
            return Err(MeshCallError::StreamOpen);
        }
        self.fallbacks = Some(FallbackStream { number, backlog: Backlog::new(FALLBACK_MESSAGES) });
        Ok(())
    }

    /// Handles the end of a stream by the client.
    pub(crate) fn stream_ended(&mut self, number: u32) {
        self.tables.take_if(|stream| stream.number == number);
        self.fallbacks.take_if(|stream| stream.number == number);
    }

    /// Removes and returns the next element of a stream, encoded.
    pub(crate) fn pop(&mut self, number: u32) -> Option<Bytes> {
        if let Some(stream) = self.fallbacks.as_mut().filter(|stream| stream.number == number) {
            return stream.backlog.pop().map(|element| element.payload);
        }
        let stream = self.tables.as_mut().filter(|stream| stream.number == number)?;
        let plan = self.plan.as_ref()?;
        let (paths, ice_servers) = (paths(plan), self.ice_servers.clone());
        let table = || PeerRoutingTable { paths, plan: Some(plan.clone()), ice_servers };
        std::mem::take(&mut stream.is_due).then(|| table().encode_to_vec().into())
    }

    /// Charges signals to the rate limit: see [`SignalThrottle::charge`].
    pub(crate) fn charge(
        &mut self,
        signals: &[Signal],
        bytes: usize,
        now: Instant,
    ) -> Result<Option<Instant>, MeshRefusal> {
        self.throttle.charge(signals, bytes, now)
    }

    /// Keeps the response of a call until its request has been handled.
    pub(crate) fn begin_forwarding(&mut self, number: u32, response: Bytes) {
        self.forwarding = Some((number, response));
    }

    /// Removes and returns the call that was kept last, and its response.
    pub(crate) fn end_forwarding(&mut self) -> Option<(u32, Bytes)> {
        self.forwarding.take()
    }

    fn table_changed(&mut self) {
        if let Some(stream) = &mut self.tables {
            stream.is_due = true;
        }
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

impl FallbackStream {
    fn push(&mut self, sender: Address, packet: &Bytes) {
        let packet = bff::Packet { source: sender.to_string(), payload: packet.clone() }.encode_to_vec();
        let fits = self.backlog.bytes() + packet.len() <= FALLBACK_BYTES;
        if !fits || self.backlog.push(packet.into()).is_err() {
            metrics::mesh_messages_dropped().increment(1);
        }
    }
}

/// One path for each neighbour to which the recipient of the plan sends its own messages.
fn paths(plan: &Plan) -> Vec<Path> {
    let own = plan.routes.iter().filter(|route| route.source == plan.alias);
    let neighbours = own.flat_map(|route| &route.to);
    let address = |alias: &u32| plan.members.iter().find(|member| member.alias == *alias);
    neighbours.filter_map(address).map(|member| Path { peers: vec![member.address.clone()] }).collect()
}

#[cfg(test)]
mod tests;
