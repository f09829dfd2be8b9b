//! A session on a gateway, whatever is spoken with it.

use std::{fmt, future::pending};

use bytes::Bytes;
use identity::Identity;
use protocol::v3::{Heartbeat, IslandChangedMessage, JoinIslandMessage, LeftIslandMessage};
use tokio::time::timeout;

use crate::{Dialect, Ended, Settings, archipelago::Socket, bff::Bff, topics::Topics};

/// A session on a gateway and nothing that follows: no heartbeats, no rooms, no coming back. An
/// [`crate::Explorer`] does all that; this is for who only wants to know whether one can sign in.
///
/// Dropped, it breaks its connection; [`Session::close`] says goodbye.
#[derive(Debug)]
pub struct Session {
    spoken: Spoken,
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
enum Spoken {
    Archipelago(Socket),
    Rpc(Box<Bff>),
}

/// What a gateway says to a session.
#[derive(Debug)]
pub(crate) enum News {
    IslandChanged(IslandChangedMessage),
    Joined(JoinIslandMessage),
    Left(LeftIslandMessage),
}

impl Session {
    /// Connects to the first gateway, has the challenge signed, and waits for the welcome: for
    /// [`Settings::deadline`] at most.
    pub async fn sign_in(settings: &Settings, identity: &Identity) -> Result<Self, Ended> {
        Self::sign_in_at(&settings.gateway.url, settings, identity, &Bytes::new()).await
    }

    /// The same at this one, with the resumption secret of the session before; empty if there is none.
    pub(crate) async fn sign_in_at(
        url: &str,
        settings: &Settings,
        identity: &Identity,
        resume_secret: &Bytes,
    ) -> Result<Self, Ended> {
        let resume_secret = settings.resumes.then(|| resume_secret.clone());
        let signing_in = async {
            Ok(match settings.gateway.dialect {
                Dialect::Archipelago => {
                    let signed_in = Socket::sign_in(url, settings, identity, resume_secret).await?;
                    let (socket, welcome) = signed_in;
                    Self { spoken: Spoken::Archipelago(socket), welcome }
                }
                Dialect::Rpc => {
                    let (bff, welcome) = Bff::sign_in(url, settings, identity, resume_secret).await?;
                    Self { spoken: Spoken::Rpc(Box::new(bff)), welcome }
                }
            })
        };
        let in_time = timeout(settings.deadline, signing_in).await;
        in_time.unwrap_or_else(|_| Err(Ended::broken("the gateway did not answer in time")))
    }

    /// The resumption fields of the gateway's welcome.
    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Says goodbye, and waits for a second at most for the answer.
    pub async fn close(self) {
        match self.spoken {
            Spoken::Archipelago(socket) => socket.close().await,
            Spoken::Rpc(bff) => bff.close().await,
        }
    }

    /// Asks for what an explorer wants to hear from now on.
    pub(crate) fn listen(&mut self, topics: &mut Topics) {
        if let Spoken::Rpc(bff) = &mut self.spoken {
            bff.listen(topics);
        }
    }

    /// Has this sent, once the gateway takes it.
    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        match &mut self.spoken {
            Spoken::Archipelago(socket) => socket.heartbeat(heartbeat),
            Spoken::Rpc(bff) => bff.heartbeat(heartbeat),
        }
    }

    /// Whether the gateway said that a newer session of this wallet took over.
    pub(crate) fn is_kicked(&self) -> bool {
        match &self.spoken {
            Spoken::Archipelago(socket) => socket.is_kicked(),
            Spoken::Rpc(bff) => bff.is_kicked(),
        }
    }

    /// What the gateway says next; topics are served meanwhile. Unless news are wanted, there are
    /// none, and what serves no topics is not read. Cancel-safe.
    pub(crate) async fn next(&mut self, topics: &mut Topics, wanted: bool) -> Result<News, Ended> {
        match &mut self.spoken {
            Spoken::Archipelago(socket) if wanted => socket.next().await,
            Spoken::Archipelago(_) => pending().await,
            Spoken::Rpc(bff) => bff.next(topics, wanted).await,
        }
    }
}

/// Whether what a server wants signed is a challenge. Anything else could be a message to another
/// service.
pub(crate) fn check_challenge(challenge: &str) -> Result<(), Ended> {
    match challenge.starts_with("dcl-") {
        true => Ok(()),
        false => Err(Ended::broken("the server wants something signed that is no challenge")),
    }
}
