//! Observers: clients that do not move, publish, and record all events.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Address, Dialect, Disconnect, Event, Explorer, Gateway, Handle, IslandId, Position, Settings};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{Cluster, TEST_TIMEOUT};

/// A client that does not move, until it is dropped.
pub struct Observer {
    /// Its address.
    pub address: Address,
    handle: Handle,
    events: EventLog,
    talking: JoinHandle<()>,
}

type EventLog = Arc<Mutex<Vec<(Instant, Observed)>>>;

/// An event that an observer recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// It signed in.
    SignedIn,
    /// It was assigned an island; the URL is that of the room, without the token.
    Assigned {
        /// The island.
        island: IslandId,
        /// The URL of its room.
        url: String,
    },
    /// Another member joined or left its island.
    IslandMemberChanged,
    /// It entered a room.
    Entered {
        /// The URL of the room, without the token.
        url: String,
    },
    /// Another member entered or left its room.
    RoomMemberChanged,
    /// It received a message of this peer.
    Received(Address),
    /// It left a room.
    Left(Disconnect),
    /// Its session ended.
    Closed(Disconnect),
}

/// The interval of its room messages.
const SEND_INTERVAL: Duration = Duration::from_millis(100);

impl Observer {
    /// Starts an observer at this x coordinate. It prefers the first of these gateways.
    pub async fn start(cluster: &Cluster, gateways: &[&str], x: f32) -> Self {
        let url = |name: &&str| format!("{}/archipelago/ws", cluster[name].ws);
        let others = gateways[1..].iter().map(url).collect();
        let gateway = Gateway { other_urls: others, ..Gateway::new(Dialect::Archipelago, url(&gateways[0])) };
        let identity = client::guest().unwrap();
        let address = identity.address();
        let explorer = Explorer::start(Settings::new(gateway), identity);
        let (handle, events, at) = (explorer.handle(), EventLog::default(), Position::new(x, 0.0, 0.0));
        tokio::spawn(record_events(explorer, events.clone()));
        let talking = tokio::spawn(publish_and_heartbeat(handle.clone(), at));
        Self { address, handle, events, talking }
    }

    /// All events since then with their times, without received messages.
    pub fn since(&self, mark: Instant) -> Vec<(Instant, Observed)> {
        let events = self.events.lock().unwrap();
        let events_since =
            events.iter().filter(|(at, event)| *at >= mark && !matches!(event, Observed::Received(_)));
        events_since.cloned().collect()
    }

    /// How often it was assigned another island or room since then. A restarted node publishes new
    /// connection strings for its rooms: those are no moves.
    pub fn moves_since(&self, mark: Instant) -> usize {
        let events = self.events.lock().unwrap();
        let mut assignments: Vec<_> =
            events.iter().filter(|(_, event)| matches!(event, Observed::Assigned { .. })).collect();
        assignments.dedup_by(|(_, later), (_, earlier)| later == earlier);
        assignments.iter().filter(|(at, _)| *at >= mark).count()
    }

    /// Waits for the first event since then that `pick` accepts; returns its delay and the picked
    /// value.
    pub async fn first_event<T>(
        &self,
        what: &str,
        mark: Instant,
        pick: impl Fn(&Observed) -> Option<T>,
    ) -> (Duration, T) {
        let event = async {
            loop {
                let picked = self.since(mark).iter().find_map(|(at, event)| Some((*at - mark, pick(event)?)));
                match picked {
                    Some(picked) => return picked,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let event = timeout(2 * TEST_TIMEOUT, event).await;
        event.unwrap_or_else(|_| panic!("not in time: {what}; seen: {:#?}", self.since(mark)))
    }

    /// The island and the room URL of its last assignment.
    pub fn last_assignment(&self) -> Option<(IslandId, String)> {
        let events = self.events.lock().unwrap();
        events.iter().rev().find_map(|(_, event)| match event {
            Observed::Assigned { island, url } => Some((island.clone(), url.clone())),
            _ => None,
        })
    }

    /// The longest time since then in which it received nothing of this address.
    pub fn longest_silence(&self, mark: Instant, of: Address) -> Duration {
        let events = self.events.lock().unwrap();
        let received = events.iter().filter(|(at, event)| *at >= mark && *event == Observed::Received(of));
        let times: Vec<Instant> =
            [mark].into_iter().chain(received.map(|(at, _)| *at)).chain([Instant::now()]).collect();
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

async fn record_events(mut explorer: Explorer, events: EventLog) {
    while let Some(event) = explorer.next().await {
        let event = match event {
            Event::SignedIn => Observed::SignedIn,
            Event::IslandChanged { island, connection, .. } => {
                let url = connection.to_string().split('?').next().unwrap_or_default().to_owned();
                Observed::Assigned { island, url: url.trim_start_matches("ws-room:").to_owned() }
            }
            Event::IslandJoined { .. } | Event::IslandLeft { .. } => Observed::IslandMemberChanged,
            Event::RoomEntered { url, .. } => Observed::Entered { url },
            Event::PeerJoined { .. } | Event::PeerLeft { .. } => Observed::RoomMemberChanged,
            Event::Message { sender: Some(sender), .. } => Observed::Received(sender),
            Event::Message { sender: None, .. } | Event::Duplicate { .. } | Event::LinksChanged { .. } => {
                continue;
            }
            Event::RoomLeft { reason: ended, .. } => Observed::Left(ended),
            Event::Disconnected { reason, .. } => Observed::Closed(reason),
        };
        events.lock().unwrap().push((Instant::now(), event));
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
