//! A session on a gateway, whatever is spoken with it.

use std::{fmt, future::pending};

use bytes::Bytes;
use identity::Identity;
use protocol::v3::{Heartbeat, IslandChangedMessage, JoinIslandMessage, LeftIslandMessage};
use tokio::time::timeout;

use crate::{
    Dialect, Disconnect, Settings, archipelago::ArchipelagoSession, bff::BffSession, topics::Topics,
};

/// A session on a gateway and nothing that follows: no heartbeats, no rooms, no coming back. An
/// [`crate::Explorer`] does all that; this is for who only wants to know whether one can sign in.
///
/// Dropped, it breaks its connection; [`Session::from_close`] says goodbye.
#[derive(Debug)]
pub struct Session {
    inner: ProtocolSession,
    welcome: Welcome,
}

/// The resumption fields of a gateway's welcome.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Welcome {
    /// The secret that lets the next session resume this one. Empty: the gateway knows nothing of it.
    pub(crate) resume_secret: Bytes,
    /// Whether this session resumed the one before.
    pub(crate) resumed: bool,
}

// Secrets stay out of logs.
impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome").field("resumed", &self.resumed).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum ProtocolSession {
    Archipelago(ArchipelagoSession),
    Rpc(Box<BffSession>),
}

/// What a gateway says to a session.
#[derive(Debug)]
pub(crate) enum IslandEvent {
    IslandChanged(IslandChangedMessage),
    Joined(JoinIslandMessage),
    Left(LeftIslandMessage),
}

impl Session {
    /// Connects to the first gateway, has the challenge signed, and waits for the welcome: for
    /// [`Settings::deadline`] at most.
    pub async fn sign_in(settings: &Settings, identity: &Identity) -> Result<Self, Disconnect> {
        Self::sign_in_at(&settings.gateway.url, settings, identity, &Bytes::new()).await
    }

    /// The same at this one, with the resumption secret of the session before; empty if there is none.
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

    /// Says goodbye, and waits for a second at most for the answer.
    pub async fn close(self) {
        match self.inner {
            ProtocolSession::Archipelago(socket) => socket.close().await,
            ProtocolSession::Rpc(bff) => bff.close().await,
        }
    }

    /// Asks for what an explorer wants to hear from now on.
    pub(crate) fn subscribe(&mut self, topics: &mut Topics) {
        if let ProtocolSession::Rpc(bff) = &mut self.inner {
            bff.subscribe(topics);
        }
    }

    /// Has this sent, once the gateway takes it.
    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        match &mut self.inner {
            ProtocolSession::Archipelago(socket) => socket.heartbeat(heartbeat),
            ProtocolSession::Rpc(bff) => bff.heartbeat(heartbeat),
        }
    }

    /// Whether the gateway said that a newer session of this wallet took over.
    pub(crate) fn is_kicked(&self) -> bool {
        match &self.inner {
            ProtocolSession::Archipelago(socket) => socket.is_kicked(),
            ProtocolSession::Rpc(bff) => bff.is_kicked(),
        }
    }

    /// What the gateway says next; topics are served meanwhile. Unless news are wanted, there are
    /// none, and what serves no topics is not read. Cancel-safe.
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

/// Whether what a server wants signed is a challenge. Anything else could be a message to another
/// service.
pub(crate) fn check_challenge(challenge: &str) -> Result<(), Disconnect> {
    match challenge.starts_with("dcl-") {
        true => Ok(()),
        false => Err(Disconnect::broken("the server wants something signed that is no challenge")),
    }
}
