//! A session on a gateway, over either protocol.

use std::future::pending;

use bytes::Bytes;
use identity::Identity;
use protocol::v3::Heartbeat;
use tokio::time::timeout;

use crate::{
    Dialect, Disconnect, Settings, archipelago::ArchipelagoSession, bff::BffSession, link_event::IslandEvent,
    mesh_link::MeshOutput, sign_in::Welcome, topics::Topics,
};

/// A session on a gateway without heartbeats, rooms and reconnects. It serves to test whether a wallet can
/// sign in; [`crate::Explorer`] does the rest.
///
/// Dropping it drops the connection without a close frame; [`Session::close`] closes it in order.
#[derive(Debug)]
pub struct Session {
    inner: ProtocolSession,
    welcome: Welcome,
}

#[derive(Debug)]
enum ProtocolSession {
    Archipelago(ArchipelagoSession),
    Rpc(Box<BffSession>),
}

impl Session {
    /// Connects to the first gateway, signs the challenge, and waits for the welcome: for
    /// [`Settings::response_timeout`] at most.
    pub async fn sign_in(settings: &Settings, identity: &Identity) -> Result<Self, Disconnect> {
        Self::sign_in_at(&settings.gateway.url, settings, identity, &Bytes::new()).await
    }

    /// Signs in at the gateway `url`, with the resumption secret of the previous session; empty if there is
    /// none.
    pub(crate) async fn sign_in_at(
        url: &str,
        settings: &Settings,
        identity: &Identity,
        resume_secret: &Bytes,
    ) -> Result<Self, Disconnect> {
        let resume_secret = settings.resume_sessions.then(|| resume_secret.clone());
        let sign_in = async {
            Ok(match settings.gateway.dialect {
                Dialect::Archipelago => {
                    let signed_in =
                        ArchipelagoSession::sign_in(url, settings, identity, resume_secret).await?;
                    let (socket, welcome) = signed_in;
                    Self { inner: ProtocolSession::Archipelago(socket), welcome }
                }
                Dialect::Rpc => {
                    let (bff, welcome) = BffSession::sign_in(url, settings, identity, resume_secret).await?;
                    Self { inner: ProtocolSession::Rpc(Box::new(bff)), welcome }
                }
            })
        };
        let result = timeout(settings.response_timeout, sign_in).await;
        result.unwrap_or_else(|_| Err(Disconnect::broken("the gateway did not answer in time")))
    }

    /// The resumption fields of the gateway's welcome.
    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Sends a close frame, and waits for the answer: for a second at most.
    pub async fn close(self) {
        match self.inner {
            ProtocolSession::Archipelago(socket) => socket.close().await,
            ProtocolSession::Rpc(bff) => bff.close().await,
        }
    }

    /// Subscribes to the islands of this session and to the topics, over RPC. The archipelago socket needs no
    /// subscriptions.
    pub(crate) fn subscribe(&mut self, topics: &mut Topics) {
        if let ProtocolSession::Rpc(bff) = &mut self.inner {
            bff.subscribe(topics);
        }
    }

    /// Queues a heartbeat, to be sent when the socket is writable. It replaces one that is queued.
    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        match &mut self.inner {
            ProtocolSession::Archipelago(socket) => socket.heartbeat(heartbeat),
            ProtocolSession::Rpc(bff) => bff.heartbeat(heartbeat),
        }
    }

    /// Queues a message of a mesh. Over RPC no such messages are defined: it is dropped.
    pub(crate) fn mesh(&mut self, output: MeshOutput) {
        if let ProtocolSession::Archipelago(socket) = &mut self.inner {
            socket.mesh(output);
        }
    }

    /// Whether the gateway reported that a newer session of this wallet replaced this one.
    pub(crate) fn is_kicked(&self) -> bool {
        match &self.inner {
            ProtocolSession::Archipelago(socket) => socket.is_kicked(),
            ProtocolSession::Rpc(bff) => bff.is_kicked(),
        }
    }

    /// The next message of the gateway; serves the topics meanwhile. If `wanted` is false, no message is
    /// returned, and an archipelago socket, which has no topics, is not read at all (backpressure).
    /// Cancel-safe.
    pub(crate) async fn next(
        &mut self,
        topics: &mut Topics,
        wanted: bool,
    ) -> Result<IslandEvent, Disconnect> {
        match &mut self.inner {
            ProtocolSession::Archipelago(socket) if wanted => socket.next().await,
            ProtocolSession::Archipelago(_) => pending().await,
            ProtocolSession::Rpc(bff) => bff.next(topics, wanted).await,
        }
    }
}
