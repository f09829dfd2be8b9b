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
    Ended, Event, Session, Settings,
    explorer::LinkNews,
    pause::Pause,
    round::Round,
    session::{News, Welcome},
    topics::Topics,
};

/// What the link needs.
pub(crate) struct Link {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    /// When its other end is gone, the link leaves.
    pub(crate) wishes: watch::Receiver<Wishes>,
    pub(crate) news: mpsc::Sender<LinkNews>,
    pub(crate) topics: Topics,
    /// The secret of the last session. Empty before the first session, or if its gateway sent none.
    pub(crate) resume_secret: Bytes,
}

/// What the explorer wants of its link; the newest counts.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// Where it is, and where it would like to be: what each session is told first.
    pub(crate) place: Option<Heartbeat>,
    /// How often it needed another sign-in, so that the gateway names the island again.
    pub(crate) sign_ins: u64,
}

impl Wishes {
    /// It is somewhere else now. A preference holds until another is said.
    pub(crate) fn stand(&mut self, heartbeat: Heartbeat) {
        let before = self.place.take().and_then(|place| place.desired_room);
        let desired_room = heartbeat.desired_room.or(before);
        self.place = Some(Heartbeat { desired_room, ..heartbeat });
    }
}

/// The explorer has gone.
struct Gone;

impl Link {
    /// Holds the link until the explorer goes or must not come back.
    pub(crate) async fn run(mut self) {
        let mut pause = Pause::new(self.settings.longest_pause);
        let mut round = Round::new(&self.settings.gateway);
        loop {
            let reason = self.hold(round.url(), &mut pause).await;
            self.topics.disconnected();
            let comes_back = reason.come_back().then(|| {
                let now = Instant::now();
                pause.next(round.advance(reason.retry_after(), now), now)
            });
            let told = self.tell(LinkNews::Event(Event::Closed { reason, comes_back })).await;
            let Some(wait) = comes_back.filter(|_| told.is_ok()) else { return };
            if self.wait(wait).await.is_err() {
                return;
            }
        }
    }

    /// While there is no session.
    async fn tell(&mut self, news: LinkNews) -> Result<(), Gone> {
        tokio::select! {
            told = self.news.send(news) => told.map_err(|_| Gone),
            never = self.topics.serve_disconnected() => match never {},
        }
    }

    async fn wait(&mut self, wait: Duration) -> Result<(), Gone> {
        tokio::select! {
            () = sleep(wait) => Ok(()),
            gone = gone(&mut self.wishes) => Err(gone),
            never = self.topics.serve_disconnected() => match never {},
        }
    }

    /// One connection, from sign-in to its end.
    async fn hold(&mut self, url: &str, pause: &mut Pause) -> Ended {
        let signed_in = tokio::select! {
            signed_in = Session::sign_in_at(url, &self.settings, &self.identity, &self.resume_secret) => {
                signed_in
            }
            Gone = gone(&mut self.wishes) => return Ended::Left,
            never = self.topics.serve_disconnected() => match never {},
        };
        let mut session = match signed_in {
            Ok(session) => session,
            Err(ended) => return ended,
        };
        pause.succeeded(Instant::now());
        self.resume_secret = session.welcome().resume_secret.clone();
        session.listen(&mut self.topics);
        match self.serve(&mut session).await {
            Ended::Left => {
                session.close().await;
                Ended::Left
            }
            // Somebody else uses this wallet: coming back would kick them in turn.
            _ if session.is_kicked() => Ended::close(Close::NewSession),
            ended => ended,
        }
    }

    /// What cannot be told yet is kept, and no other news are taken meanwhile.
    async fn serve(&mut self, session: &mut Session) -> Ended {
        // Behind a gateway that sends no secret, no director ends the last session's memberships.
        let Welcome { resume_secret, resumed } = session.welcome();
        let keeps_room = *resumed || resume_secret.is_empty();
        let mut untold = Some(LinkNews::SignedIn { keeps_room });
        // This was one.
        let sign_ins = self.wishes.borrow_and_update().sign_ins;
        let mut next_heartbeat = Instant::now();
        loop {
            tokio::select! {
                wished = self.wishes.changed() => {
                    if wished.is_err() {
                        return Ended::Left;
                    }
                    if self.wishes.borrow_and_update().sign_ins != sign_ins {
                        return Ended::broken("signing in again for another room token");
                    }
                    next_heartbeat = Instant::now();
                }
                () = sleep_until(next_heartbeat) => {
                    next_heartbeat = Instant::now() + self.settings.heartbeat_interval;
                    if let Some(place) = self.wishes.borrow().place.clone() {
                        session.heartbeat(place);
                    }
                }
                place = self.news.reserve(), if untold.is_some() => match (place, untold.take()) {
                    (Ok(place), Some(news)) => place.send(news),
                    _ => return Ended::Left,
                },
                news = session.next(&mut self.topics, untold.is_none()) => match news {
                    Ok(news) => {
                        untold = to_tell(news);
                        if untold.is_none() {
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
async fn gone(wishes: &mut watch::Receiver<Wishes>) -> Gone {
    while wishes.changed().await.is_ok() {}
    Gone
}

/// `None`: it cannot be read.
fn to_tell(news: News) -> Option<LinkNews> {
    Some(match news {
        News::IslandChanged(change) => LinkNews::IslandChanged(change),
        News::Joined(join) => {
            let (island, address) = (join.island_id.parse().ok()?, join.peer_id.parse().ok()?);
            LinkNews::Event(Event::IslandJoined { island, address })
        }
        News::Left(left) => {
            let (island, address) = (left.island_id.parse().ok()?, left.peer_id.parse().ok()?);
            LinkNews::Event(Event::IslandLeft { island, address })
        }
    })
}
