//! The rooms that an explorer is in: one, or two while it moves.

use std::{collections::BTreeMap, future::pending, time::Duration};

use protocol::{
    Address, Close, ConnectionString, ConnectionStringError, IslandId, Position, v3::IslandChangedMessage,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Ended, Event, RoomId, Settings,
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
    /// When the gateway named it.
    told: Instant,
    pause: Pause,
    state: State,
}

enum State {
    /// In the room, or entering it.
    Staying(Stay),
    /// Tries again at this time.
    Waiting(Instant),
    /// The room takes this token no more; the next change of island brings another.
    Refused,
}

/// A token that is refused so long after it was given has expired, and nothing may ever change that
/// would bring another: the gateway has to be asked again. One that is refused sooner is from before
/// a change that is on its way.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// The gateway has to be asked for the present island again, by a new sign-in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AskAgain;

impl Rooms {
    pub(crate) fn new(settings: Settings, address: Address, events: mpsc::Sender<Event>) -> Self {
        Self { settings, address, events, next_room: 0, present: None, past: Vec::new() }
    }

    /// Goes where the gateway says, and gives what to tell of it; what cannot be read is skipped.
    pub(crate) fn follow(&mut self, change: IslandChangedMessage) -> Option<Event> {
        let connection: Result<ConnectionString, ConnectionStringError> = change.conn_str.parse();
        let (Ok(connection), Ok(island)) = (connection, change.island_id.parse::<IslandId>()) else {
            tracing::warn!(island = change.island_id, "the gateway sent an island that cannot be read");
            return None;
        };
        if let Some(Present { state: State::Staying(stay), .. }) = self.present.take() {
            self.past.push((stay, None));
        }
        let peers: BTreeMap<Address, Position> = change
            .peers
            .iter()
            .filter_map(|(peer, place)| Some((peer.parse().ok()?, Position::new(place.x, place.y, place.z))))
            .collect();
        if let Some(url) = connection.room_url() {
            let pause = Pause::new(self.settings.longest_pause);
            let state = State::Staying(self.enter(&url, &island));
            self.present = Some(Present { url, island: island.clone(), told: Instant::now(), pause, state });
        }
        Some(Event::IslandChanged { island, connection, from: change.from_island_id, peers })
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
    pub(crate) async fn progress(&mut self) -> Option<AskAgain> {
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
                None
            }
            progress = present => self.advance(progress),
        }
    }

    fn advance(&mut self, progress: Option<Progress>) -> Option<AskAgain> {
        let mut present = self.present.take()?;
        let mut ask_again = None;
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
            Some(Progress::Ended(ended)) => {
                let refused =
                    matches!(ended, Ended::Closed { code, .. } if code == Close::TokenRefused.code());
                ask_again = (refused && present.told.elapsed() >= TOKEN_AGE).then_some(AskAgain);
                present.state = State::Refused;
            }
            None => present.state = State::Staying(self.enter(&present.url, &present.island)),
        }
        self.present = Some(present);
        ask_again
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows when the room that was named so long ago ends the stay like this.
    fn after(age: Duration, close: Close) -> (Option<AskAgain>, bool) {
        let (events, _) = mpsc::channel(1);
        let mut rooms = Rooms::new(Settings::new("ws://127.0.0.1:9"), Address::new([1; 20]), events);
        let told = Instant::now().checked_sub(age).unwrap();
        let pause = Pause::new(Duration::from_secs(1));
        let (url, island) = (String::new(), "I1".parse().unwrap());
        rooms.present = Some(Present { url, island, told, pause, state: State::Refused });
        let ended = Ended::Closed { code: close.code(), reason: String::new() };
        let asked = rooms.advance(Some(Progress::Ended(ended)));
        let waits = matches!(rooms.present, Some(Present { state: State::Waiting(_), .. }));
        (asked, waits)
    }

    #[tokio::test]
    async fn a_room_that_broke_is_entered_again_or_asked_for_when_the_token_has_expired() {
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(61));
        assert_eq!(after(old, Close::Silent), (None, true));
        assert_eq!(after(old, Close::TokenRefused), (Some(AskAgain), false));
        assert_eq!(after(young, Close::TokenRefused), (None, false), "a change is on its way");
        assert_eq!(after(old, Close::NewSession), (None, false), "somebody else uses this wallet");
        assert_eq!(after(old, Close::Moved), (None, false));
    }
}
