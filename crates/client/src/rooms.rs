//! The rooms that an explorer is in: one, or two while it moves.

use std::{collections::BTreeMap, future::pending, time::Duration};

use identity::Identity;
use protocol::{
    Address, Close, ConnectionString, ConnectionStringError, IslandId, Position, v3::IslandChangedMessage,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Ended, Event, RoomId, Settings,
    doubles::Doubles,
    pause::Pause,
    room::{Destination, Progress, Say, Stay},
};

pub(crate) struct Rooms {
    settings: Settings,
    identity: Identity,
    events: mpsc::Sender<Event>,
    next_room: u64,
    doubles: Doubles,
    /// Where the explorer belongs.
    present: Option<Present>,
    /// Rooms of before, and when to leave them: once the present one has been entered.
    past: Vec<(Stay, Option<Instant>)>,
    /// Whether the present session did not resume the one before, whose tokens have been revoked: the
    /// next room is entered anew, even if the explorer is in it.
    enters_anew: bool,
}

struct Present {
    /// With its token.
    url: String,
    /// Without it.
    public_url: String,
    island: IslandId,
    /// When the gateway named it.
    told: Instant,
    /// Whether that was after it was entered: the present stay began with an older token.
    renewed: bool,
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
    pub(crate) fn new(settings: Settings, identity: Identity, events: mpsc::Sender<Event>) -> Self {
        Self {
            settings,
            identity,
            events,
            next_room: 0,
            doubles: Doubles::default(),
            present: None,
            past: Vec::new(),
            enters_anew: false,
        }
    }

    /// A session began, and resumes the one before unless the explorer must enter its room anew.
    pub(crate) fn signed_in(&mut self, keeps_room: bool) {
        self.enters_anew = !keeps_room;
    }

    /// Goes where the gateway says, and gives what to tell of it; what cannot be read is skipped.
    pub(crate) fn follow(&mut self, change: IslandChangedMessage) -> Option<Event> {
        let connection: Result<ConnectionString, ConnectionStringError> = change.conn_str.parse();
        let (Ok(connection), Ok(island)) = (connection, change.island_id.parse::<IslandId>()) else {
            tracing::warn!(island = change.island_id, "the gateway sent an island that cannot be read");
            return None;
        };
        let place = match (connection.room_url(), &connection) {
            (Some(url), ConnectionString::WsRoom { url: public_url, .. }) => Some((url, public_url)),
            _ => None,
        };
        let enters_anew = std::mem::replace(&mut self.enters_anew, false);
        match (&mut self.present, place) {
            // Stock clients enter it again.
            (Some(present), Some((url, public_url)))
                if self.settings.overlap.is_some() && present.is_inside(public_url, &island) =>
            {
                if enters_anew {
                    self.enter_again(url);
                } else {
                    present.renew(url);
                }
            }
            (_, place) => self.go(place, &island),
        }
        let peers: BTreeMap<Address, Position> = change
            .peers
            .iter()
            .filter_map(|(peer, place)| Some((peer.parse().ok()?, Position::new(place.x, place.y, place.z))))
            .collect();
        Some(Event::IslandChanged { island, connection, from: change.from_island_id, peers })
    }

    /// Leaves the present room for another, with and without its token; `None`: for what is no room.
    fn go(&mut self, place: Option<(String, &String)>, island: &IslandId) {
        let before = self.present.take();
        match self.settings.overlap {
            None => self.past.clear(),
            Some(overlap) => {
                // Without another room to enter, there is no welcome to wait for.
                let leave_at = place.is_none().then(|| Instant::now() + overlap);
                if let Some(Present { state: State::Staying(stay), .. }) = before {
                    self.past.push((stay, None));
                }
                self.leave_past(leave_at);
            }
        }
        self.present = place.map(|(url, public_url)| Present {
            state: State::Staying(self.enter(&url, public_url, island)),
            url,
            public_url: public_url.clone(),
            island: island.clone(),
            told: Instant::now(),
            renewed: false,
            pause: Pause::new(self.settings.longest_pause),
        });
    }

    /// Enters the present room anew, with this newer token. The room kicks the older socket when it admits
    /// the newer one, and ignores messages of the older one from then on. So the client sends nothing more
    /// through the older socket and queues its messages until the welcome. No message arrives through both.
    fn enter_again(&mut self, url: String) {
        self.doubles = Doubles::default();
        let Some(mut present) = self.present.take() else { return };
        let stay = self.enter(&url, &present.public_url, &present.island).saying_early();
        if let State::Staying(older) = std::mem::replace(&mut present.state, State::Staying(stay)) {
            self.past.push((older.silent(), None));
        }
        present.renew(url);
        present.renewed = false;
        self.present = Some(present);
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
                present.pause.succeeded(Instant::now());
                self.leave_past(self.settings.overlap.map(|overlap| Instant::now() + overlap));
            }
            Some(Progress::Ended(ended)) if ended.come_back() => {
                let now = Instant::now();
                present.state = State::Waiting(now + present.pause.next(ended.retry_after(), now));
            }
            // What is wrong with the older token is not with the newer one, which is held by now.
            Some(Progress::Ended(ended)) if present.renewed && ended.is_about_the_token() => {
                present.state = State::Waiting(Instant::now());
            }
            Some(Progress::Ended(ended)) => {
                let refused =
                    matches!(ended, Ended::Closed { code, .. } if code == Close::TokenRefused.code());
                ask_again = (refused && present.told.elapsed() >= TOKEN_AGE).then_some(AskAgain);
                present.state = State::Refused;
            }
            None => {
                present.state =
                    State::Staying(self.enter(&present.url, &present.public_url, &present.island));
                present.renewed = false;
            }
        }
        self.present = Some(present);
        ask_again
    }

    /// Rooms of before are left then, those excepted for which an earlier time is known.
    fn leave_past(&mut self, leave_at: Option<Instant>) {
        for (_, until) in &mut self.past {
            *until = until.or(leave_at);
        }
    }

    fn enter(&mut self, url: &str, public_url: &str, island: &IslandId) -> Stay {
        let id = RoomId(self.next_room);
        self.next_room += 1;
        let destination = Destination {
            url: url.to_owned(),
            public_url: public_url.to_owned(),
            island: island.clone(),
            identity: self.identity.clone(),
            opening: self.settings.opening(),
        };
        Stay::begin(id, destination, &self.doubles, self.events.clone())
    }
}

impl Present {
    /// Whether the explorer has been welcomed to this room of this island, and is still there.
    fn is_inside(&self, public_url: &str, island: &IslandId) -> bool {
        let inside = matches!(&self.state, State::Staying(stay) if stay.is_entered());
        inside && self.public_url == public_url && self.island == *island
    }

    /// The gateway names it again: the explorer stays, and the others notice nothing. The newer token
    /// is for another entry.
    fn renew(&mut self, url: String) {
        (self.url, self.told, self.renewed) = (url, Instant::now(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, Gateway, guest};

    /// What follows when the room that was named so long ago ends the stay like this.
    fn after(age: Duration, close: Close) -> (Option<AskAgain>, bool) {
        let (events, _) = mpsc::channel(1);
        let mut rooms = Rooms::new(Settings::new(gateway()), guest().unwrap(), events);
        let told = Instant::now().checked_sub(age).unwrap();
        let pause = Pause::new(Duration::from_secs(1));
        let (url, public_url, island) = (String::new(), String::new(), "I1".parse().unwrap());
        let (renewed, state) = (false, State::Refused);
        rooms.present = Some(Present { url, public_url, island, told, renewed, pause, state });
        let ended = Ended::Closed { code: close.code(), reason: String::new() };
        let asked = rooms.advance(Some(Progress::Ended(ended)));
        let waits = matches!(rooms.present, Some(Present { state: State::Waiting(_), .. }));
        (asked, waits)
    }

    fn gateway() -> Gateway {
        Gateway::new(Dialect::Archipelago, "ws://127.0.0.1:9")
    }

    fn rooms(settings: Settings) -> Rooms {
        Rooms::new(settings, guest().unwrap(), mpsc::channel(8).0)
    }

    fn told(rooms: &mut Rooms, island: &str, connection: &str) -> bool {
        let (island_id, conn_str) = (island.to_owned(), connection.to_owned());
        rooms.follow(IslandChangedMessage { island_id, conn_str, ..Default::default() }).is_some()
    }

    const LIVEKIT: &str = "livekit:ws://127.0.0.1:9?access_token=t";

    #[tokio::test]
    async fn an_explorer_leaves_once_it_is_welcome_elsewhere() {
        let mut rooms = rooms(Settings::new(gateway()));
        assert!(told(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/rooms/I1"));
        assert!(told(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/nodes/2/rooms/I1"));
        assert!(matches!(rooms.past[..], [(_, None)]) && rooms.present.is_some());
        rooms.advance(Some(Progress::Entered));
        assert!(matches!(rooms.past[..], [(_, Some(_))]));
    }

    #[tokio::test]
    async fn where_it_cannot_join_there_is_no_welcome_to_wait_for() {
        let mut rooms = rooms(Settings::new(gateway()));
        assert!(told(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/rooms/I1"));
        assert!(told(&mut rooms, "I1", LIVEKIT));
        assert!(matches!(rooms.past[..], [(_, Some(_))]) && rooms.present.is_none());
    }

    #[tokio::test]
    async fn stock_clients_leave_as_soon_as_they_are_told() {
        for connection in ["ws-room:ws://127.0.0.1:9/nodes/2/rooms/I1", LIVEKIT] {
            let mut rooms = rooms(Settings::stock(gateway()));
            assert!(told(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/rooms/I1"));
            assert!(told(&mut rooms, "I1", connection));
            assert!(rooms.past.is_empty());
            assert_eq!(rooms.present.is_some(), connection != LIVEKIT);
        }
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
