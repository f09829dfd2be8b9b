//! People who stand still, talk, and write down all that they are told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Address, Dialect, Ended, Event, Explorer, Gateway, Handle, IslandId, Position, Settings};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{cluster::Cluster, wire::PATIENCE};

/// An explorer that stands still, until it is dropped.
pub(crate) struct Witness {
    pub(crate) address: Address,
    handle: Handle,
    diary: Diary,
    talking: JoinHandle<()>,
}

type Diary = Arc<Mutex<Vec<(Instant, Seen)>>>;

/// What it noticed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    SignedIn,
    /// Of its island; the URL is that of the room, without the token.
    Told {
        island: IslandId,
        url: String,
    },
    /// Somebody joined its island, or left it.
    MemberChanged,
    Entered {
        url: String,
    },
    /// Somebody came into its room, or went.
    NeighbourChanged,
    Heard(Address),
    /// It left a room.
    Left(Ended),
    Closed(Ended),
}

/// How often it says something.
const STEP: Duration = Duration::from_millis(100);

impl Witness {
    /// Somebody who goes to the gateway of this name first.
    pub(crate) async fn start(cluster: &Cluster, gateways: &[&str], x: f32) -> Self {
        let url = |name: &&str| format!("{}/archipelago/ws", cluster[name].ws);
        let others = gateways[1..].iter().map(url).collect();
        let gateway = Gateway { others, ..Gateway::new(Dialect::Archipelago, url(&gateways[0])) };
        let identity = client::guest().unwrap();
        let address = identity.address();
        let explorer = Explorer::start(Settings::new(gateway), identity);
        let (handle, diary, at) = (explorer.handle(), Diary::default(), Position::new(x, 0.0, 0.0));
        tokio::spawn(watch(explorer, diary.clone()));
        let talking = tokio::spawn(talk(handle.clone(), at));
        Self { address, handle, diary, talking }
    }

    /// What it noticed since then, but for what it heard, with the times.
    pub(crate) fn since(&self, mark: Instant) -> Vec<(Instant, Seen)> {
        let diary = self.diary.lock().unwrap();
        let news = diary.iter().filter(|(at, seen)| *at >= mark && !matches!(seen, Seen::Heard(_)));
        news.cloned().collect()
    }

    /// How often it was assigned another island or room since then. A node that restarts sends new strings for the
    /// rooms that it has: those are no moves.
    pub(crate) fn moves_since(&self, mark: Instant) -> usize {
        let diary = self.diary.lock().unwrap();
        let mut places: Vec<_> = diary.iter().filter(|(_, seen)| matches!(seen, Seen::Told { .. })).collect();
        places.dedup_by(|(_, later), (_, earlier)| later == earlier);
        places.iter().filter(|(at, _)| *at >= mark).count()
    }

    /// The first thing since then that this picks, once it is there, and how long after.
    pub(crate) async fn first<T>(
        &self,
        what: &str,
        mark: Instant,
        pick: impl Fn(&Seen) -> Option<T>,
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
        let seen = timeout(2 * PATIENCE, seen).await;
        seen.unwrap_or_else(|_| panic!("not in time: {what}; seen: {:#?}", self.since(mark)))
    }

    /// The island and the room of which it was last told.
    pub(crate) fn told(&self) -> Option<(IslandId, String)> {
        let diary = self.diary.lock().unwrap();
        diary.iter().rev().find_map(|(_, seen)| match seen {
            Seen::Told { island, url } => Some((island.clone(), url.clone())),
            _ => None,
        })
    }

    /// The longest time since then in which it did not hear somebody.
    pub(crate) fn longest_silence(&self, mark: Instant, of: Address) -> Duration {
        let diary = self.diary.lock().unwrap();
        let heard = diary.iter().filter(|(at, seen)| *at >= mark && *seen == Seen::Heard(of));
        let times: Vec<Instant> =
            [mark].into_iter().chain(heard.map(|(at, _)| *at)).chain([Instant::now()]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.talking.abort();
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.leave().await });
    }
}

async fn watch(mut explorer: Explorer, diary: Diary) {
    while let Some(event) = explorer.next().await {
        let seen = match event {
            Event::SignedIn => Seen::SignedIn,
            Event::IslandChanged { island, connection, .. } => {
                let url = connection.to_string().split('?').next().unwrap_or_default().to_owned();
                Seen::Told { island, url: url.trim_start_matches("ws-room:").to_owned() }
            }
            Event::IslandJoined { .. } | Event::IslandLeft { .. } => Seen::MemberChanged,
            Event::RoomEntered { url, .. } => Seen::Entered { url },
            Event::PeerJoined { .. } | Event::PeerLeft { .. } => Seen::NeighbourChanged,
            Event::Message { sender: Some(sender), .. } => Seen::Heard(sender),
            Event::Message { sender: None, .. } | Event::Double { .. } => continue,
            Event::RoomLeft { ended, .. } => Seen::Left(ended),
            Event::Closed { reason, .. } => Seen::Closed(reason),
        };
        diary.lock().unwrap().push((Instant::now(), seen));
    }
}

async fn talk(handle: Handle, at: Position) {
    let mut steps = tokio::time::interval(STEP);
    for step in 0_u32.. {
        steps.tick().await;
        if step % 10 == 0 {
            handle.heartbeat(at, None).await;
        }
        handle.say(step.to_be_bytes().to_vec().into(), true).await;
    }
}
