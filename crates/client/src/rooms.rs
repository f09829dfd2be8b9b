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
    Disconnect, Event, RoomId, Settings,
    backoff::Backoff,
    dedup::Dedup,
    room::{Destination, OutgoingMessage, RoomConnection, RoomProgress},
};

pub(crate) struct Rooms {
    settings: Settings,
    identity: Identity,
    events: mpsc::Sender<Event>,
    next_room: u64,
    dedup: Dedup,
    /// Where the explorer belongs.
    current: Option<CurrentRoom>,
    /// Rooms of before, and when to leave them: once the present one has been entered.
    leaving: Vec<(RoomConnection, Option<Instant>)>,
    /// Whether the present session did not resume the one before, whose tokens have been revoked: the
    /// next room is entered anew, even if the explorer is in it.
    must_reenter: bool,
}

struct CurrentRoom {
    /// With its token.
    url: String,
    /// Without it.
    public_url: String,
    island: IslandId,
    /// When the gateway named it.
    assigned_at: Instant,
    /// Whether that was after it was entered: the present stay began with an older token.
    token_renewed: bool,
    backoff: Backoff,
    state: RoomState,
}

enum RoomState {
    /// In the room, or entering it.
    Active(RoomConnection),
    /// Tries again at this time.
    Backoff(Instant),
    /// The room takes this token no more; the next change of island brings another.
    Refused,
}

/// A token that is refused so long after it was given has expired, and nothing may ever change that
/// would bring another: the gateway has to be asked again. One that is refused sooner is from before
/// a change that is on its way.
const TOKEN_EXPIRED_AFTER: Duration = Duration::from_secs(60);

/// The gateway has to be asked for the present island again, by a new sign-in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SignInNeeded;

impl Rooms {
    pub(crate) fn new(settings: Settings, identity: Identity, events: mpsc::Sender<Event>) -> Self {
        Self {
            settings,
            identity,
            events,
            next_room: 0,
            dedup: Dedup::default(),
            current: None,
            leaving: Vec::new(),
            must_reenter: false,
        }
    }

    /// A session began, and resumes the one before unless the explorer must enter its room anew.
    pub(crate) fn signed_in(&mut self, keeps_room: bool) {
        self.must_reenter = !keeps_room;
    }

    /// Goes where the gateway says, and gives what to tell of it; what cannot be read is skipped.
    pub(crate) fn apply_assignment(&mut self, change: IslandChangedMessage) -> Option<Event> {
        let connection: Result<ConnectionString, ConnectionStringError> = change.conn_str.parse();
        let (Ok(connection), Ok(island)) = (connection, change.island_id.parse::<IslandId>()) else {
            tracing::warn!(island = change.island_id, "the gateway sent an island that cannot be read");
            return None;
        };
        let room = match (connection.room_url(), &connection) {
            (Some(url), ConnectionString::WsRoom { url: public_url, .. }) => Some((url, public_url)),
            _ => None,
        };
        let must_reenter = std::mem::replace(&mut self.must_reenter, false);
        match (&mut self.current, room) {
            // Stock clients enter it again.
            (Some(present), Some((url, public_url)))
                if self.settings.overlap.is_some() && present.is_in(public_url, &island) =>
            {
                if must_reenter {
                    self.reenter(url);
                } else {
                    present.renew_token(url);
                }
            }
            (_, room) => self.switch_to(room, &island),
        }
        let peers: BTreeMap<Address, Position> = change
            .peers
            .iter()
            .filter_map(|(peer, place)| Some((peer.parse().ok()?, Position::new(place.x, place.y, place.z))))
            .collect();
        Some(Event::IslandChanged { island, connection, from: change.from_island_id, peers })
    }

    /// Leaves the present room for another, with and without its token; `None`: for what is no room.
    fn switch_to(&mut self, room: Option<(String, &String)>, island: &IslandId) {
        let before = self.current.take();
        match self.settings.overlap {
            None => self.leaving.clear(),
            Some(overlap) => {
                // Without another room to enter, there is no welcome to wait for.
                let leave_at = room.is_none().then(|| Instant::now() + overlap);
                if let Some(CurrentRoom { state: RoomState::Active(stay), .. }) = before {
                    self.leaving.push((stay, None));
                }
                self.schedule_leave(leave_at);
            }
        }
        self.current = room.map(|(url, public_url)| CurrentRoom {
            state: RoomState::Active(self.enter(&url, public_url, island)),
            url,
            public_url: public_url.clone(),
            island: island.clone(),
            assigned_at: Instant::now(),
            token_renewed: false,
            backoff: Backoff::new(self.settings.max_backoff),
        });
    }

    /// Enters the present room anew, with this newer token. The room kicks the older socket when it admits
    /// the newer one, and ignores messages of the older one from then on. So the client sends nothing more
    /// through the older socket and queues its messages until the welcome. No message arrives through both.
    fn reenter(&mut self, url: String) {
        self.dedup = Dedup::default();
        let Some(mut present) = self.current.take() else { return };
        let stay = self.enter(&url, &present.public_url, &present.island).queue_until_welcome();
        if let RoomState::Active(older) = std::mem::replace(&mut present.state, RoomState::Active(stay)) {
            self.leaving.push((older.without_sending(), None));
        }
        present.renew_token(url);
        present.token_renewed = false;
        self.current = Some(present);
    }

    /// Says something in every room, and gives in which.
    pub(crate) fn send(&self, say: &OutgoingMessage) -> Vec<RoomId> {
        let present = self.current.iter().filter_map(|present| match &present.state {
            RoomState::Active(stay) => Some(stay),
            _ => None,
        });
        let stays = self.leaving.iter().map(|(stay, _)| stay).chain(present);
        stays.filter_map(|stay| stay.send(say)).collect()
    }

    /// Waits until something happens to a room, and does what follows. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> Option<SignInNeeded> {
        let leave_at = self.leaving.iter().filter_map(|(_, until)| *until).min();
        let leave = async {
            match leave_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let present = async {
            match self.current.as_mut().map(|present| &mut present.state) {
                Some(RoomState::Active(stay)) => Some(stay.progress().await),
                Some(RoomState::Backoff(until)) => {
                    sleep_until(*until).await;
                    None
                }
                Some(RoomState::Refused) | None => pending().await,
            }
        };
        tokio::select! {
            () = leave => {
                let now = Instant::now();
                self.leaving.retain(|(_, until)| until.is_none_or(|until| until > now));
                None
            }
            progress = present => self.advance(progress),
        }
    }

    fn advance(&mut self, progress: Option<RoomProgress>) -> Option<SignInNeeded> {
        let mut present = self.current.take()?;
        let mut sign_in_needed = None;
        match progress {
            Some(RoomProgress::Entered) => {
                present.backoff.succeeded(Instant::now());
                self.schedule_leave(self.settings.overlap.map(|overlap| Instant::now() + overlap));
            }
            Some(RoomProgress::Ended(ended)) if ended.is_retryable() => {
                let now = Instant::now();
                present.state =
                    RoomState::Backoff(now + present.backoff.next_delay(ended.retry_after(), now));
            }
            // What is wrong with the older token is not with the newer one, which is held by now.
            Some(RoomProgress::Ended(ended)) if present.token_renewed && ended.is_token_rejected() => {
                present.state = RoomState::Backoff(Instant::now());
            }
            Some(RoomProgress::Ended(ended)) => {
                let token_refused =
                    matches!(ended, Disconnect::Closed { code, .. } if code == Close::TokenRefused.code());
                sign_in_needed = (token_refused && present.assigned_at.elapsed() >= TOKEN_EXPIRED_AFTER)
                    .then_some(SignInNeeded);
                present.state = RoomState::Refused;
            }
            None => {
                present.state =
                    RoomState::Active(self.enter(&present.url, &present.public_url, &present.island));
                present.token_renewed = false;
            }
        }
        self.current = Some(present);
        sign_in_needed
    }

    /// Rooms of before are left then, those excepted for which an earlier time is known.
    fn schedule_leave(&mut self, leave_at: Option<Instant>) {
        for (_, until) in &mut self.leaving {
            *until = until.or(leave_at);
        }
    }

    fn enter(&mut self, url: &str, public_url: &str, island: &IslandId) -> RoomConnection {
        let id = RoomId(self.next_room);
        self.next_room += 1;
        let destination = Destination {
            url: url.to_owned(),
            public_url: public_url.to_owned(),
            island: island.clone(),
            identity: self.identity.clone(),
            options: self.settings.connect_options(),
        };
        RoomConnection::open(id, destination, &self.dedup, self.events.clone())
    }
}

impl CurrentRoom {
    /// Whether the explorer has been welcomed to this room of this island, and is still there.
    fn is_in(&self, public_url: &str, island: &IslandId) -> bool {
        let inside = matches!(&self.state, RoomState::Active(stay) if stay.is_entered());
        inside && self.public_url == public_url && self.island == *island
    }

    /// The gateway names it again: the explorer stays, and the others notice nothing. The newer token
    /// is for another entry.
    fn renew_token(&mut self, url: String) {
        (self.url, self.assigned_at, self.token_renewed) = (url, Instant::now(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, Gateway, guest};

    /// What follows when the room that was named so long ago ends the stay like this.
    fn after_close(age: Duration, close: Close) -> (Option<SignInNeeded>, bool) {
        let (events, _) = mpsc::channel(1);
        let mut rooms = Rooms::new(Settings::new(gateway()), guest().unwrap(), events);
        let assigned_at = Instant::now().checked_sub(age).unwrap();
        let backoff = Backoff::new(Duration::from_secs(1));
        let (url, public_url, island) = (String::new(), String::new(), "I1".parse().unwrap());
        let (token_renewed, state) = (false, RoomState::Refused);
        rooms.current =
            Some(CurrentRoom { url, public_url, island, assigned_at, token_renewed, backoff, state });
        let ended = Disconnect::Closed { code: close.code(), reason: String::new() };
        let needed = rooms.advance(Some(RoomProgress::Ended(ended)));
        let retries = matches!(rooms.current, Some(CurrentRoom { state: RoomState::Backoff(_), .. }));
        (needed, retries)
    }

    fn gateway() -> Gateway {
        Gateway::new(Dialect::Archipelago, "ws://127.0.0.1:9")
    }

    fn rooms(settings: Settings) -> Rooms {
        Rooms::new(settings, guest().unwrap(), mpsc::channel(8).0)
    }

    fn assign(rooms: &mut Rooms, island: &str, connection: &str) -> bool {
        let (island_id, conn_str) = (island.to_owned(), connection.to_owned());
        rooms.apply_assignment(IslandChangedMessage { island_id, conn_str, ..Default::default() }).is_some()
    }

    const LIVEKIT: &str = "livekit:ws://127.0.0.1:9?access_token=t";

    #[tokio::test]
    async fn old_room_is_left_after_the_welcome_of_the_new_one() {
        let mut rooms = rooms(Settings::new(gateway()));
        assert!(assign(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/rooms/I1"));
        assert!(assign(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/nodes/2/rooms/I1"));
        assert!(matches!(rooms.leaving[..], [(_, None)]) && rooms.current.is_some());
        rooms.advance(Some(RoomProgress::Entered));
        assert!(matches!(rooms.leaving[..], [(_, Some(_))]));
    }

    #[tokio::test]
    async fn room_is_left_without_welcome_for_other_transports() {
        let mut rooms = rooms(Settings::new(gateway()));
        assert!(assign(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/rooms/I1"));
        assert!(assign(&mut rooms, "I1", LIVEKIT));
        assert!(matches!(rooms.leaving[..], [(_, Some(_))]) && rooms.current.is_none());
    }

    #[tokio::test]
    async fn stock_client_leaves_as_soon_as_it_is_reassigned() {
        for connection in ["ws-room:ws://127.0.0.1:9/nodes/2/rooms/I1", LIVEKIT] {
            let mut rooms = rooms(Settings::stock(gateway()));
            assert!(assign(&mut rooms, "I1", "ws-room:ws://127.0.0.1:9/rooms/I1"));
            assert!(assign(&mut rooms, "I1", connection));
            assert!(rooms.leaving.is_empty());
            assert_eq!(rooms.current.is_some(), connection != LIVEKIT);
        }
    }

    #[tokio::test]
    async fn lost_room_is_reentered_or_sign_in_is_requested() {
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(61));
        assert_eq!(after_close(old, Close::Silent), (None, true));
        assert_eq!(after_close(old, Close::TokenRefused), (Some(SignInNeeded), false));
        assert_eq!(after_close(young, Close::TokenRefused), (None, false), "a change is on its way");
        assert_eq!(after_close(old, Close::NewSession), (None, false), "somebody else uses this wallet");
        assert_eq!(after_close(old, Close::Moved), (None, false));
    }
}
