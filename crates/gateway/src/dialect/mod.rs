//! The protocols that clients speak.

pub(crate) mod archipelago;
pub(crate) mod rpc;

use std::future::Future;

use bytes::Bytes;
use protocol::{
    Address, Close, Topic,
    mesh::{LinkReport, Signal},
    v3::{ChallengeRequestMessage, Heartbeat},
};
use tokio::time::Instant;

use crate::{
    mesh::refusal::MeshRefusal,
    session::{message::SessionMessage, resumption::Resumption},
};

/// A protocol between a client and the gateway: decodes requests and encodes responses. Sans-IO: the session
/// driver reads and writes the socket.
///
/// The driver processes all requests and writes all output before it waits for the next frame, session message
/// or timer.
pub(crate) trait Dialect: Send + Sync {
    /// Processes a message of the client. Returns the close code of an undecodable one.
    fn receive(&mut self, message: Bytes) -> Result<FrameCost, Close>;

    /// The next request in the messages that were received.
    fn poll_request(&mut self, now: Instant) -> Option<ClientRequest>;

    /// Responds to [`ClientRequest::Challenge`].
    fn challenge(&mut self, challenge_to_sign: &str, already_connected: bool);

    /// Responds to the last request of the sign-in that it is rejected. The socket is closed next.
    fn reject(&mut self, reason: &str);

    /// Responds to [`ClientRequest::Authenticate`] that `peer` is signed in.
    fn welcome(&mut self, peer: Address, resumption: Option<Resumption>);

    /// Passes a message of the session on to the client.
    fn deliver(&mut self, message: &SessionMessage);

    /// Reports whether the last [`ClientRequest::MeshSignals`] or [`ClientRequest::MeshLinks`] was forwarded.
    fn mesh_request_handled(&mut self, result: Result<(), MeshRefusal>);

    /// Reports that a newer session replaced this one. The socket is closed next.
    fn kick(&mut self);

    /// The next message to write.
    fn poll_output(&mut self) -> Option<Bytes>;

    /// Waits for output that has another cause than a call of this trait. Cancel-safe.
    fn wait_for_output(&self) -> impl Future<Output = ()> + Send;
}

/// A request of a client.
#[derive(Debug, PartialEq)]
pub(crate) enum ClientRequest {
    /// Send a challenge to sign.
    Challenge(ChallengeRequestMessage),
    /// Verify the auth chain that signs the challenge.
    Authenticate { auth_chain_json: String },
    /// Publish this heartbeat.
    Heartbeat(Heartbeat),
    /// Publish this payload under this topic. The rate limit of topics delays the next read until `read_at`.
    Publish { topic: Topic, payload: Bytes, read_at: Option<Instant> },
    /// Forward these signals, which arrived in one frame, to other members of the mesh. Instead of the rate limit of
    /// frames that of signals applies: it delays the next read until `read_at`.
    MeshSignals { signals: Vec<Signal>, read_at: Option<Instant> },
    /// Forward this report of links to the director.
    MeshLinks(LinkReport),
}

/// Whether a frame counts against the rate limit of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameCost {
    Charged,
    /// The server caused the frame, and no client can send more of them.
    Free,
}
