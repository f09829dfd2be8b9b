//! The link to a gateway: signs in, sends heartbeats, and reconnects when the connection is lost.

use std::time::Duration;

use bytes::Bytes;
use identity::Identity;
use protocol::{Close, v3::Heartbeat};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Disconnect, Event, Session, Settings, backoff::Backoff, link_event::LinkEvent, mesh_link::MeshOutputs,
    rotation::GatewayRotation, sign_in::Welcome, topics::Topics,
};

/// The task that keeps a session on a gateway.
pub(crate) struct Link {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    /// The link closes its session when the sender is dropped.
    pub(crate) desired: watch::Receiver<DesiredState>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) topics: Topics,
    /// The messages of meshes to the gateway.
    pub(crate) mesh: MeshOutputs,
    /// The resumption secret of the last session. Empty before the first session, or if its gateway sent
    /// none.
    pub(crate) resume_secret: Bytes,
}

/// The state that the link has to establish at the gateway. Only the newest value matters.
#[derive(Debug, Default)]
pub(crate) struct DesiredState {
    /// The position and the preferred island, which the link sends first in each session.
    pub(crate) heartbeat: Option<Heartbeat>,
    /// The number of requests for a new sign-in, after which the gateway sends the assignment again.
    pub(crate) sign_in_requests: u64,
}

impl DesiredState {
    /// Sets the position. A heartbeat without a preferred island keeps the previous one.
    pub(crate) fn set_heartbeat(&mut self, heartbeat: Heartbeat) {
        let previous = self.heartbeat.take().and_then(|previous| previous.desired_room);
        let desired_room = heartbeat.desired_room.or(previous);
        self.heartbeat = Some(Heartbeat { desired_room, ..heartbeat });
    }
}

/// The owner of the link was dropped or has stopped.
struct ExplorerStopped;

impl Link {
    /// Keeps a session, and reconnects after each end of it, until the owner stops or reconnecting would be
    /// wrong.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.max_backoff);
        let mut rotation = GatewayRotation::new(&self.settings.gateway);
        loop {
            let reason = self.run_session(rotation.url(), &mut backoff).await;
            self.topics.disconnected();
            let retry_in = reason.is_retryable().then(|| {
                let now = Instant::now();
                backoff.next_delay(rotation.advance(reason.retry_after(), now), now)
            });
            let emitted = self.emit(LinkEvent::Event(Event::Disconnected { reason, retry_in })).await;
            let Some(wait) = retry_in.filter(|_| emitted.is_ok()) else { return };
            if self.wait_for_retry(wait).await.is_err() {
                return;
            }
        }
    }

    /// Emits an event while there is no session.
    async fn emit(&mut self, event: LinkEvent) -> Result<(), ExplorerStopped> {
        tokio::select! {
            sent = self.events.send(event) => sent.map_err(|_| ExplorerStopped),
            never = self.topics.serve_disconnected() => match never {},
        }
    }

    async fn wait_for_retry(&mut self, wait: Duration) -> Result<(), ExplorerStopped> {
        tokio::select! {
            () = sleep(wait) => Ok(()),
            stopped = explorer_stopped(&mut self.desired) => Err(stopped),
            never = self.topics.serve_disconnected() => match never {},
        }
    }

    /// Runs one session, from the sign-in to its end.
    async fn run_session(&mut self, url: &str, backoff: &mut Backoff) -> Disconnect {
        let signed_in = tokio::select! {
            signed_in = Session::sign_in_at(url, &self.settings, &self.identity, &self.resume_secret) => {
                signed_in
            }
            ExplorerStopped = explorer_stopped(&mut self.desired) => return Disconnect::Left,
            never = self.topics.serve_disconnected() => match never {},
        };
        let mut session = match signed_in {
            Ok(session) => session,
            Err(disconnect) => return disconnect,
        };
        backoff.succeeded(Instant::now());
        self.resume_secret = session.welcome().resume_secret.clone();
        session.subscribe(&mut self.topics);
        match self.serve(&mut session).await {
            Disconnect::Left => {
                session.close().await;
                Disconnect::Left
            }
            // Another client uses this wallet. Reconnecting would kick its session in turn.
            _ if session.is_kicked() => Disconnect::from_close(Close::NewSession),
            disconnect => disconnect,
        }
    }

    /// Serves a session. An event that the owner has no capacity for is kept, and the link reads no further
    /// message until it is delivered (backpressure).
    async fn serve(&mut self, session: &mut Session) -> Disconnect {
        // A director ends the room memberships of the last session unless this one resumes it. A gateway
        // without resumption (no secret) has a director that ends none.
        let Welcome { resume_secret, resumed } = session.welcome();
        let keeps_room = *resumed || resume_secret.is_empty();
        let mut pending = Some(LinkEvent::SignedIn { keeps_room });
        // This sign-in fulfils all requests so far.
        let fulfilled = self.desired.borrow_and_update().sign_in_requests;
        let mut next_heartbeat = Instant::now();
        self.mesh.discard();
        loop {
            tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return Disconnect::Left;
                    }
                    if self.desired.borrow_and_update().sign_in_requests != fulfilled {
                        return Disconnect::broken("signing in again for another room token");
                    }
                    next_heartbeat = Instant::now();
                }
                () = sleep_until(next_heartbeat) => {
                    next_heartbeat = Instant::now() + self.settings.heartbeat_interval;
                    if let Some(heartbeat) = self.desired.borrow().heartbeat.clone() {
                        session.heartbeat(heartbeat);
                    }
                }
                output = self.mesh.next() => session.mesh(output),
                permit = self.events.reserve(), if pending.is_some() => match (permit, pending.take()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => return Disconnect::Left,
                },
                event = session.next(&mut self.topics, pending.is_none()) => match event {
                    Ok(event) => {
                        pending = LinkEvent::new(event);
                        if pending.is_none() {
                            tracing::warn!("the gateway sent a malformed island or peer id; ignored");
                        }
                    }
                    Err(disconnect) => return disconnect,
                },
            }
        }
    }
}

/// Waits until the sender of the desired state is dropped.
async fn explorer_stopped(desired: &mut watch::Receiver<DesiredState>) -> ExplorerStopped {
    while desired.changed().await.is_ok() {}
    ExplorerStopped
}
