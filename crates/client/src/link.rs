//! The link to a gateway: signs in, sends heartbeats, and comes back when it breaks.

use std::time::Duration;

use bytes::Bytes;
use identity::Identity;
use protocol::{Close, v3::Heartbeat};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Disconnect, Event, Session, Settings,
    backoff::Backoff,
    explorer::LinkEvent,
    rotation::GatewayRotation,
    session::{IslandEvent, Welcome},
    topics::Topics,
};

/// What the link needs.
pub(crate) struct Link {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    /// When its other end is gone, the link leaves.
    pub(crate) desired: watch::Receiver<DesiredState>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) topics: Topics,
    /// The secret of the last session. Empty before the first session, or if its gateway sent none.
    pub(crate) resume_secret: Bytes,
}

/// What the explorer wants of its link; the newest counts.
#[derive(Debug, Default)]
pub(crate) struct DesiredState {
    /// Where it is, and where it would like to be: what each session is told first.
    pub(crate) heartbeat: Option<Heartbeat>,
    /// How often it needed another sign-in, so that the gateway names the island again.
    pub(crate) sign_in_requests: u64,
}

impl DesiredState {
    /// It is somewhere else now. A preference holds until another is said.
    pub(crate) fn set_heartbeat(&mut self, heartbeat: Heartbeat) {
        let before = self.heartbeat.take().and_then(|place| place.desired_room);
        let desired_room = heartbeat.desired_room.or(before);
        self.heartbeat = Some(Heartbeat { desired_room, ..heartbeat });
    }
}

/// The explorer has gone.
struct ExplorerStopped;

impl Link {
    /// Holds the link until the explorer goes or must not come back.
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

    /// While there is no session.
    async fn emit(&mut self, news: LinkEvent) -> Result<(), ExplorerStopped> {
        tokio::select! {
            told = self.events.send(news) => told.map_err(|_| ExplorerStopped),
            never = self.topics.serve_disconnected() => match never {},
        }
    }

    async fn wait_for_retry(&mut self, wait: Duration) -> Result<(), ExplorerStopped> {
        tokio::select! {
            () = sleep(wait) => Ok(()),
            gone = explorer_stopped(&mut self.desired) => Err(gone),
            never = self.topics.serve_disconnected() => match never {},
        }
    }

    /// One connection, from sign-in to its end.
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
            Err(ended) => return ended,
        };
        backoff.succeeded(Instant::now());
        self.resume_secret = session.welcome().resume_secret.clone();
        session.subscribe(&mut self.topics);
        match self.serve(&mut session).await {
            Disconnect::Left => {
                session.close().await;
                Disconnect::Left
            }
            // Somebody else uses this wallet: coming back would kick them in turn.
            _ if session.is_kicked() => Disconnect::from_close(Close::NewSession),
            ended => ended,
        }
    }

    /// What cannot be told yet is kept, and no other news are taken meanwhile.
    async fn serve(&mut self, session: &mut Session) -> Disconnect {
        // Behind a gateway that sends no secret, no director ends the last session's memberships.
        let Welcome { resume_secret, resumed } = session.welcome();
        let keeps_room = *resumed || resume_secret.is_empty();
        let mut pending = Some(LinkEvent::SignedIn { keeps_room });
        // This was one.
        let sign_ins = self.desired.borrow_and_update().sign_in_requests;
        let mut next_heartbeat = Instant::now();
        loop {
            tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return Disconnect::Left;
                    }
                    if self.desired.borrow_and_update().sign_in_requests != sign_ins {
                        return Disconnect::broken("signing in again for another room token");
                    }
                    next_heartbeat = Instant::now();
                }
                () = sleep_until(next_heartbeat) => {
                    next_heartbeat = Instant::now() + self.settings.heartbeat_interval;
                    if let Some(place) = self.desired.borrow().heartbeat.clone() {
                        session.heartbeat(place);
                    }
                }
                place = self.events.reserve(), if pending.is_some() => match (place, pending.take()) {
                    (Ok(place), Some(news)) => place.send(news),
                    _ => return Disconnect::Left,
                },
                news = session.next(&mut self.topics, pending.is_none()) => match news {
                    Ok(news) => {
                        pending = link_event(news);
                        if pending.is_none() {
                            tracing::warn!("the gateway sent an island or a peer that cannot be read");
                        }
                    }
                    Err(ended) => return ended,
                },
            }
        }
    }
}

/// Waits until nobody wishes anything any more.
async fn explorer_stopped(desired: &mut watch::Receiver<DesiredState>) -> ExplorerStopped {
    while desired.changed().await.is_ok() {}
    ExplorerStopped
}

/// `None`: it cannot be read.
fn link_event(news: IslandEvent) -> Option<LinkEvent> {
    Some(match news {
        IslandEvent::IslandChanged(change) => LinkEvent::IslandChanged(change),
        IslandEvent::Joined(join) => {
            let (island, address) = (join.island_id.parse().ok()?, join.peer_id.parse().ok()?);
            LinkEvent::Event(Event::IslandJoined { island, address })
        }
        IslandEvent::Left(left) => {
            let (island, address) = (left.island_id.parse().ok()?, left.peer_id.parse().ok()?);
            LinkEvent::Event(Event::IslandLeft { island, address })
        }
    })
}
