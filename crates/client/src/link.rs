//! The link to a gateway: signs in, sends heartbeats, and comes back when it breaks.

use std::time::Duration;

use identity::Identity;
use protocol::{Close, v3::Heartbeat};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Ended, Event, Session, Settings, explorer::IslandNews, pause::Pause, session::News, topics::Topics,
};

/// What the link needs.
pub(crate) struct Link {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    /// What to do; when its other end is gone, the link leaves.
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) news: mpsc::Sender<IslandNews>,
    pub(crate) topics: Topics,
    /// Where the explorer is, and where it would like to be: what each session is told first.
    pub(crate) place: Option<Heartbeat>,
}

/// What the explorer wants of its link.
pub(crate) enum Request {
    /// Send this.
    Heartbeat(Heartbeat),
    /// Sign in again, so that the gateway names the island again.
    SignInAgain,
}

/// The explorer has gone.
struct Gone;

impl Link {
    /// Holds the link until the explorer goes or must not come back.
    pub(crate) async fn run(mut self) {
        let mut pause = Pause::new(self.settings.longest_pause);
        loop {
            let reason = self.hold(&mut pause).await;
            self.topics.disconnected();
            let comes_back = reason.come_back().then(|| pause.next(reason.retry_after(), Instant::now()));
            let told = self.events.send(Event::Closed { reason, comes_back }).await;
            let Some(wait) = comes_back.filter(|_| told.is_ok()) else { return };
            if self.wait(wait).await.is_err() {
                return;
            }
        }
    }

    /// Remembers where the explorer is while nobody can be told.
    async fn wait(&mut self, wait: Duration) -> Result<(), Gone> {
        let mut over = std::pin::pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                request = self.requests.recv() => {
                    if let Request::Heartbeat(heartbeat) = request.ok_or(Gone)? {
                        self.stand(heartbeat);
                    }
                }
                () = self.topics.serve_disconnected() => {}
            }
        }
    }

    /// One connection, from sign-in to its end.
    async fn hold(&mut self, pause: &mut Pause) -> Ended {
        let mut session = match Session::sign_in(&self.settings, &self.identity).await {
            Ok(session) => session,
            Err(ended) => return ended,
        };
        pause.succeeded(Instant::now());
        if self.events.send(Event::SignedIn).await.is_err() {
            return Ended::Left;
        }
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

    async fn serve(&mut self, session: &mut Session) -> Ended {
        let mut next_heartbeat = Instant::now();
        loop {
            let served = tokio::select! {
                request = self.requests.recv() => match request {
                    Some(Request::Heartbeat(heartbeat)) => {
                        self.stand(heartbeat.clone());
                        next_heartbeat = Instant::now() + self.settings.heartbeat_interval;
                        session.heartbeat(heartbeat);
                        Ok(())
                    }
                    Some(Request::SignInAgain) => {
                        Err(Ended::broken("signing in again for another room token"))
                    }
                    None => Err(Ended::Left),
                },
                () = sleep_until(next_heartbeat), if self.place.is_some() => {
                    next_heartbeat = Instant::now() + self.settings.heartbeat_interval;
                    if let Some(place) = &self.place {
                        session.heartbeat(place.clone());
                    }
                    Ok(())
                }
                news = session.next(&mut self.topics, true) => match news {
                    Ok(News::IslandChanged(change)) => self.tell(Some(IslandNews::Changed(change))).await,
                    Ok(News::Joined(join)) => {
                        self.tell(named(&join.island_id, &join.peer_id, IslandNews::Joined)).await
                    }
                    Ok(News::Left(left)) => {
                        self.tell(named(&left.island_id, &left.peer_id, IslandNews::Left)).await
                    }
                    Err(ended) => Err(ended),
                },
            };
            if let Err(ended) = served {
                return ended;
            }
        }
    }

    /// Remembers where the explorer is. A preference holds until another is said.
    fn stand(&mut self, heartbeat: Heartbeat) {
        let before = self.place.take().and_then(|place| place.desired_room);
        let desired_room = heartbeat.desired_room.or(before);
        self.place = Some(Heartbeat { desired_room, ..heartbeat });
    }

    async fn tell(&mut self, news: Option<IslandNews>) -> Result<(), Ended> {
        let Some(news) = news else {
            tracing::warn!("the gateway sent an island or a peer that cannot be read");
            return Ok(());
        };
        self.news.send(news).await.map_err(|_| Ended::Left)
    }
}

fn named<I, A>(island: &str, peer: &str, news: impl FnOnce(I, A) -> IslandNews) -> Option<IslandNews>
where
    I: std::str::FromStr,
    A: std::str::FromStr,
{
    Some(news(island.parse().ok()?, peer.parse().ok()?))
}
