//! People who stand still, talk, and write down all that they are told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Address, Dialect, Disconnect, Event, Explorer, Gateway, Handle, IslandId, Position, Settings};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{cluster::Cluster, wire::TEST_TIMEOUT};

/// An explorer that stands still, until it is dropped.
pub(crate) struct Observer {
    pub(crate) address: Address,
    handle: Handle,
    events: EventLog,
    talking: JoinHandle<()>,
}

type EventLog = Arc<Mutex<Vec<(Instant, Observed)>>>;

/// What it noticed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Observed {
    SignedIn,
    /// Of its island; the URL is that of the room, without the token.
    Assigned {
        island: IslandId,
        url: String,
    },
    /// Somebody joined its island, or left it.
    IslandMemberChanged,
    Entered {
        url: String,
    },
    /// Somebody came into its room, or went.
    RoomMemberChanged,
    Received(Address),
    /// It left a room.
    Left(Disconnect),
    Closed(Disconnect),
}

/// How often it says something.
const SEND_INTERVAL: Duration = Duration::from_millis(100);

impl Observer {
    /// Somebody who goes to the gateway of this name first.
    pub(crate) async fn start(cluster: &Cluster, gateways: &[&str], x: f32) -> Self {
        let url = |name: &&str| format!("{}/archipelago/ws", cluster[name].ws);
        let others = gateways[1..].iter().map(url).collect();
        let gateway = Gateway { other_urls: others, ..Gateway::new(Dialect::Archipelago, url(&gateways[0])) };
        let identity = client::guest().unwrap();
        let address = identity.address();
        let explorer = Explorer::start(Settings::new(gateway), identity);
        let (handle, diary, at) = (explorer.handle(), EventLog::default(), Position::new(x, 0.0, 0.0));
        tokio::spawn(record_events(explorer, diary.clone()));
        let talking = tokio::spawn(publish_and_heartbeat(handle.clone(), at));
        Self { address, handle, events: diary, talking }
    }

    /// What it noticed since then, but for what it heard, with the times.
    pub(crate) fn since(&self, mark: Instant) -> Vec<(Instant, Observed)> {
        let diary = self.events.lock().unwrap();
        let news = diary.iter().filter(|(at, seen)| *at >= mark && !matches!(seen, Observed::Received(_)));
        news.cloned().collect()
    }

    /// How often it was assigned another island or room since then. A node that restarts sends new strings for the
    /// rooms that it has: those are no moves.
    pub(crate) fn moves_since(&self, mark: Instant) -> usize {
        let diary = self.events.lock().unwrap();
        let mut places: Vec<_> =
            diary.iter().filter(|(_, seen)| matches!(seen, Observed::Assigned { .. })).collect();
        places.dedup_by(|(_, later), (_, earlier)| later == earlier);
        places.iter().filter(|(at, _)| *at >= mark).count()
    }

    /// The first thing since then that this picks, once it is there, and how long after.
    pub(crate) async fn first_event<T>(
        &self,
        what: &str,
        mark: Instant,
        pick: impl Fn(&Observed) -> Option<T>,
    ) -> (Duration, T) {
        let seen = async {
            loop {
                let picked = self.since(mark).iter().find_map(|(at, seen)| Some((*at - mark, pick(seen)?)));
                match picked {
                    Some(picked) => return picked,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let seen = timeout(2 * TEST_TIMEOUT, seen).await;
        seen.unwrap_or_else(|_| panic!("not in time: {what}; seen: {:#?}", self.since(mark)))
    }

    /// The island and the room of which it was last told.
    pub(crate) fn last_assignment(&self) -> Option<(IslandId, String)> {
        let diary = self.events.lock().unwrap();
        diary.iter().rev().find_map(|(_, seen)| match seen {
            Observed::Assigned { island, url } => Some((island.clone(), url.clone())),
            _ => None,
        })
    }

    /// The longest time since then in which it did not hear somebody.
    pub(crate) fn longest_silence(&self, mark: Instant, of: Address) -> Duration {
        let diary = self.events.lock().unwrap();
        let heard = diary.iter().filter(|(at, seen)| *at >= mark && *seen == Observed::Received(of));
        let times: Vec<Instant> =
            [mark].into_iter().chain(heard.map(|(at, _)| *at)).chain([Instant::now()]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.talking.abort();
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.leave().await });
    }
}

async fn record_events(mut explorer: Explorer, diary: EventLog) {
    while let Some(event) = explorer.next().await {
        let seen = match event {
            Event::SignedIn => Observed::SignedIn,
            Event::IslandChanged { island, connection, .. } => {
                let url = connection.to_string().split('?').next().unwrap_or_default().to_owned();
                Observed::Assigned { island, url: url.trim_start_matches("ws-room:").to_owned() }
            }
            Event::IslandJoined { .. } | Event::IslandLeft { .. } => Observed::IslandMemberChanged,
            Event::RoomEntered { url, .. } => Observed::Entered { url },
            Event::PeerJoined { .. } | Event::PeerLeft { .. } => Observed::RoomMemberChanged,
            Event::Message { sender: Some(sender), .. } => Observed::Received(sender),
            Event::Message { sender: None, .. } | Event::Duplicate { .. } => continue,
            Event::RoomLeft { reason: ended, .. } => Observed::Left(ended),
            Event::Disconnected { reason, .. } => Observed::Closed(reason),
        };
        diary.lock().unwrap().push((Instant::now(), seen));
    }
}

async fn publish_and_heartbeat(handle: Handle, at: Position) {
    let mut steps = tokio::time::interval(SEND_INTERVAL);
    for step in 0_u32.. {
        steps.tick().await;
        if step % 10 == 0 {
            handle.heartbeat(at, None).await;
        }
        handle.send(step.to_be_bytes().to_vec().into(), true).await;
    }
}
