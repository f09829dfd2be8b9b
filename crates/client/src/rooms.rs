//! The rooms that an explorer is in: one, or two while it moves.

use std::{collections::BTreeMap, future::pending};

use protocol::{
    Address, ConnectionString, ConnectionStringError, IslandId, Position, v3::IslandChangedMessage,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Event, RoomId, Settings,
    pause::Pause,
    room::{Destination, Progress, Say, Stay},
};

pub(crate) struct Rooms {
    settings: Settings,
    address: Address,
    events: mpsc::Sender<Event>,
    next_room: u64,
    /// Where the explorer belongs.
    present: Option<Present>,
    /// Rooms of before, and when to leave them: once the present one has been entered.
    past: Vec<(Stay, Option<Instant>)>,
}

struct Present {
    url: String,
    island: IslandId,
    pause: Pause,
    state: State,
}

enum State {
    /// In the room, or entering it.
    Staying(Stay),
    /// Tries again at this time.
    Waiting(Instant),
    /// The room wants somebody with another token; the next change of island brings one.
    Refused,
}

impl Rooms {
    pub(crate) fn new(settings: Settings, address: Address, events: mpsc::Sender<Event>) -> Self {
        Self { settings, address, events, next_room: 0, present: None, past: Vec::new() }
    }

    /// Goes where the gateway says; what cannot be read is skipped.
    pub(crate) async fn follow(&mut self, change: IslandChangedMessage) {
        let connection: Result<ConnectionString, ConnectionStringError> = change.conn_str.parse();
        let (Ok(connection), Ok(island)) = (connection, change.island_id.parse::<IslandId>()) else {
            tracing::warn!(island = change.island_id, "the gateway sent an island that cannot be read");
            return;
        };
        if let Some(Present { state: State::Staying(stay), .. }) = self.present.take() {
            self.past.push((stay, None));
        }
        let peers: BTreeMap<Address, Position> = change
            .peers
            .iter()
            .filter_map(|(peer, place)| Some((peer.parse().ok()?, Position::new(place.x, place.y, place.z))))
            .collect();
        if let ConnectionString::WsRoom { url, access_token } = &connection {
            let joint = if url.contains('?') { '&' } else { '?' };
            let url = match access_token {
                Some(token) => format!("{url}{joint}access_token={token}"),
                None => url.clone(),
            };
            let pause = Pause::new(self.settings.longest_pause);
            let state = State::Staying(self.enter(&url, &island));
            self.present = Some(Present { url, island: island.clone(), pause, state });
        }
        let event = Event::IslandChanged { island, connection, from: change.from_island_id, peers };
        // Whoever no longer listens is found out by the explorer's own loop.
        let _ = self.events.send(event).await;
    }

    /// Says something in every room, and gives in which.
    pub(crate) fn say(&self, say: &Say) -> Vec<RoomId> {
        let present = self.present.iter().filter_map(|present| match &present.state {
            State::Staying(stay) => Some(stay),
            _ => None,
        });
        let stays = self.past.iter().map(|(stay, _)| stay).chain(present);
        stays.filter_map(|stay| stay.say(say)).collect()
    }

    /// Waits until something happens to a room, and does what follows. Cancel-safe.
    pub(crate) async fn progress(&mut self) {
        let leave_at = self.past.iter().filter_map(|(_, until)| *until).min();
        let leave = async {
            match leave_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let present = async {
            match self.present.as_mut().map(|present| &mut present.state) {
                Some(State::Staying(stay)) => Some(stay.progress().await),
                Some(State::Waiting(until)) => {
                    sleep_until(*until).await;
                    None
                }
                Some(State::Refused) | None => pending().await,
            }
        };
        tokio::select! {
            () = leave => {
                let now = Instant::now();
                self.past.retain(|(_, until)| until.is_none_or(|until| until > now));
            }
            progress = present => self.advance(progress),
        }
    }

    fn advance(&mut self, progress: Option<Progress>) {
        let Some(mut present) = self.present.take() else { return };
        match progress {
            Some(Progress::Entered) => {
                present.pause.reset();
                let leave_at = Instant::now() + self.settings.overlap;
                for (_, until) in &mut self.past {
                    until.get_or_insert(leave_at);
                }
            }
            Some(Progress::Ended(ended)) if ended.come_back() => {
                present.state = State::Waiting(Instant::now() + present.pause.next());
            }
            Some(Progress::Ended(_)) => present.state = State::Refused,
            None => present.state = State::Staying(self.enter(&present.url, &present.island)),
        }
        self.present = Some(present);
    }

    fn enter(&mut self, url: &str, island: &IslandId) -> Stay {
        let id = RoomId(self.next_room);
        self.next_room += 1;
        let (url, island) = (url.to_owned(), island.clone());
        let destination =
            Destination { url, island, address: self.address, deadline: self.settings.deadline };
        Stay::begin(id, destination, self.events.clone())
    }
}
