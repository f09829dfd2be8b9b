//! The rooms of a client: one, or two while it moves.

use std::{collections::BTreeMap, future::pending};

use identity::Identity;
use protocol::{
    Address, ConnectionString, ConnectionStringError, IslandId, Position, timing::TOKEN_EXPIRED_AFTER,
    v3::IslandChangedMessage,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Event, RoomId, Settings,
    backoff::Backoff,
    dedup::Dedup,
    mesh_link::{MeshMessage, MeshOutput, NewestMesh},
    room::{Destination, OutgoingMessage, RoomAddress, RoomConnection, RoomProgress},
};

pub(crate) struct Rooms {
    settings: Settings,
    identity: Identity,
    events: mpsc::Sender<Event>,
    next_room: u64,
    dedup: Dedup,
    /// The assigned room.
    current: Option<CurrentRoom>,
    /// Previous rooms, and the times to leave them. A time is set when the current room has admitted the
    /// client.
    leaving: Vec<(RoomConnection, Option<Instant>)>,
    /// Whether the current session did not resume the previous one. The tokens of that one are revoked, so
    /// the client must enter the next assigned room anew, even if it is in it.
    must_reenter: bool,
    /// The messages of meshes to the gateway.
    to_gateway: mpsc::Sender<MeshOutput>,
    newest_mesh: NewestMesh,
}

struct CurrentRoom {
    address: RoomAddress,
    island: IslandId,
    /// The time of the last assignment.
    assigned_at: Instant,
    /// Whether a newer token arrived after the client entered the room with an older one.
    token_renewed: bool,
    backoff: Backoff,
    state: RoomState,
}

enum RoomState {
    /// The client is in the room, or enters it.
    Active(RoomConnection),
    /// The connection was lost. The client retries at this time.
    Backoff(Instant),
    /// The room rejected the token or the client. The next assignment brings another token.
    Refused,
}

/// The client must sign in again, so that the gateway sends the current assignment with a new token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SignInNeeded;

impl Rooms {
    pub(crate) fn new(
        settings: Settings,
        identity: Identity,
        events: mpsc::Sender<Event>,
        to_gateway: mpsc::Sender<MeshOutput>,
    ) -> Self {
        Self {
            settings,
            identity,
            events,
            next_room: 0,
            dedup: Dedup::default(),
            current: None,
            leaving: Vec::new(),
            must_reenter: false,
            to_gateway,
            newest_mesh: NewestMesh::default(),
        }
    }

    /// A session began. If `keeps_room` is false, the client must enter its room anew.
    pub(crate) fn signed_in(&mut self, keeps_room: bool) {
        self.must_reenter = !keeps_room;
        if !keeps_room {
            // The membership that the plan is for has ended.
            self.newest_mesh = NewestMesh::default();
        }
    }

    /// Passes a message of the gateway to the mesh of its island: to the newest one, if the client has entered the mesh
    /// again. ICE servers are for all meshes.
    pub(crate) fn mesh_message(&mut self, message: MeshMessage) {
        self.newest_mesh.keep(&message);
        let is_for = |connection: &&RoomConnection| {
            let island = connection.mesh_of().map(IslandId::as_str);
            island.is_some() && message.island().is_none_or(|of| island == Some(of))
        };
        let current = self.current.iter().filter_map(CurrentRoom::connection);
        let leaving = self.leaving.iter().rev().map(|(connection, _)| connection);
        let receivers = current.chain(leaving).filter(is_for);
        let count = if message.island().is_some() { 1 } else { usize::MAX };
        receivers.take(count).for_each(|connection| connection.mesh_message(message.clone()));
    }

    /// Moves to the assigned room and returns the event to emit. A malformed assignment is ignored.
    pub(crate) fn apply_assignment(&mut self, change: IslandChangedMessage) -> Option<Event> {
        let connection: Result<ConnectionString, ConnectionStringError> = change.conn_str.parse();
        let (Ok(connection), Ok(island)) = (connection, change.island_id.parse::<IslandId>()) else {
            tracing::warn!(island = change.island_id, "the gateway sent a malformed assignment; ignored");
            return None;
        };
        let address = RoomAddress::of(&connection);
        if let Some(servers) = address.as_ref().and_then(RoomAddress::ice_servers) {
            // Their credentials are newer than all earlier ones.
            self.mesh_message(MeshMessage::IceServers(servers.to_owned()));
        }
        if !address.as_ref().is_some_and(RoomAddress::is_mesh) {
            // A later mesh of this island has other plans.
            self.newest_mesh = NewestMesh::default();
        }
        let must_reenter = std::mem::replace(&mut self.must_reenter, false);
        match (&mut self.current, address) {
            // The client is in this room already. Stock clients (without overlap) enter it again
            // nevertheless.
            (Some(current), Some(address))
                if self.settings.overlap.is_some() && current.is_in(&address, &island) =>
            {
                if must_reenter {
                    self.reenter(address);
                } else {
                    current.renew_token(address);
                }
            }
            (_, address) => self.switch_to(address, &island),
        }
        let peers: BTreeMap<Address, Position> = change
            .peers
            .iter()
            .filter_map(|(peer, at)| Some((peer.parse().ok()?, Position::new(at.x, at.y, at.z))))
            .collect();
        Some(Event::IslandChanged { island, connection, from: change.from_island_id, peers })
    }

    /// Leaves the current room for the one at `address`, or for none.
    fn switch_to(&mut self, address: Option<RoomAddress>, island: &IslandId) {
        let previous = self.current.take();
        match self.settings.overlap {
            None => self.leaving.clear(),
            Some(overlap) => {
                // Without a new room, there is no welcome to wait for.
                let leave_at = address.is_none().then(|| Instant::now() + overlap);
                if let Some(CurrentRoom { state: RoomState::Active(connection), .. }) = previous {
                    self.leaving.push((connection, None));
                }
                self.schedule_leave(leave_at);
            }
        }
        self.current = address.map(|address| CurrentRoom {
            state: RoomState::Active(self.enter(&address, island)),
            address,
            island: island.clone(),
            assigned_at: Instant::now(),
            token_renewed: false,
            backoff: Backoff::new(self.settings.max_backoff),
        });
    }

    /// Enters the current room anew, with this newer token. The room kicks the older socket when it admits
    /// the newer one, and ignores messages of the older one from then on. So the client sends nothing more
    /// through the older socket and queues its messages until the welcome. No message arrives through both.
    fn reenter(&mut self, address: RoomAddress) {
        self.dedup = Dedup::default();
        let Some(mut current) = self.current.take() else { return };
        let newer = self.enter(&address, &current.island).queue_until_welcome();
        // Two members of a mesh with one address would compete for its links, and the older receives no signals. So the
        // older is left at once.
        let overlaps = !address.is_mesh();
        if let RoomState::Active(older) = std::mem::replace(&mut current.state, RoomState::Active(newer))
            && overlaps
        {
            self.leaving.push((older.without_sending(), None));
        }
        current.renew_token(address);
        current.token_renewed = false;
        self.current = Some(current);
    }

    /// Sends a message in every room, and returns the rooms that accepted it.
    pub(crate) fn send(&self, message: &OutgoingMessage) -> Vec<RoomId> {
        let current = self.current.iter().filter_map(CurrentRoom::connection);
        let connections = self.leaving.iter().map(|(connection, _)| connection).chain(current);
        connections.filter_map(|connection| connection.send(message)).collect()
    }

    /// Waits for the next change of a room, and applies it. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> Option<SignInNeeded> {
        let leave_at = self.leaving.iter().filter_map(|(_, until)| *until).min();
        let leave = async {
            match leave_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let current = async {
            match self.current.as_mut().map(|current| &mut current.state) {
                Some(RoomState::Active(connection)) => Some(connection.progress().await),
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
            progress = current => self.advance(progress),
        }
    }

    /// Applies the progress of the current room; `None` when its backoff has elapsed.
    fn advance(&mut self, progress: Option<RoomProgress>) -> Option<SignInNeeded> {
        let mut current = self.current.take()?;
        let mut sign_in_needed = None;
        match progress {
            Some(RoomProgress::Entered) => {
                current.backoff.succeeded(Instant::now());
                self.schedule_leave(self.settings.overlap.map(|overlap| Instant::now() + overlap));
            }
            Some(RoomProgress::Ended(reason)) if reason.is_retryable() => {
                let now = Instant::now();
                current.state =
                    RoomState::Backoff(now + current.backoff.next_delay(reason.retry_after(), now));
            }
            // The room rejected the older token. The client has received a newer one since, and uses it at
            // once.
            Some(RoomProgress::Ended(reason)) if current.token_renewed && reason.is_token_rejected() => {
                current.state = RoomState::Backoff(Instant::now());
            }
            Some(RoomProgress::Ended(reason)) => {
                sign_in_needed = (reason.is_token_refused()
                    && current.assigned_at.elapsed() >= TOKEN_EXPIRED_AFTER)
                    .then_some(SignInNeeded);
                current.state = RoomState::Refused;
            }
            None => {
                current.state = RoomState::Active(self.enter(&current.address, &current.island));
                current.token_renewed = false;
            }
        }
        self.current = Some(current);
        sign_in_needed
    }

    /// Sets the time to leave the previous rooms, except those that have one already.
    fn schedule_leave(&mut self, leave_at: Option<Instant>) {
        for (_, until) in &mut self.leaving {
            *until = until.or(leave_at);
        }
    }

    fn enter(&mut self, address: &RoomAddress, island: &IslandId) -> RoomConnection {
        let id = RoomId(self.next_room);
        self.next_room += 1;
        let destination = Destination {
            address: address.clone(),
            island: island.clone(),
            identity: self.identity.clone(),
            options: self.settings.connect_options(),
            #[cfg(feature = "webrtc")]
            udp_addresses: self.settings.udp_addresses.clone(),
            #[cfg(feature = "webrtc")]
            to_gateway: self.to_gateway.clone(),
        };
        let connection = RoomConnection::open(id, destination, &self.dedup, self.events.clone());
        if connection.mesh_of().is_some() {
            self.newest_mesh.messages(island.as_str()).for_each(|message| connection.mesh_message(message));
        }
        connection
    }
}

impl CurrentRoom {
    fn connection(&self) -> Option<&RoomConnection> {
        match &self.state {
            RoomState::Active(connection) => Some(connection),
            _ => None,
        }
    }

    /// Whether this room of this island has admitted the client, and the client is still in it.
    fn is_in(&self, address: &RoomAddress, island: &IslandId) -> bool {
        let entered = matches!(&self.state, RoomState::Active(connection) if connection.is_entered());
        entered && self.address.is_same_node(address) && self.island == *island
    }

    /// The gateway assigned the room again. The client stays in it, which no other member notices, and uses
    /// the newer token for the next entry.
    fn renew_token(&mut self, address: RoomAddress) {
        (self.address, self.assigned_at, self.token_renewed) = (address, Instant::now(), true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::Close;

    use super::*;
    use crate::{Dialect, Disconnect, Gateway, guest, mesh_link::MeshOutputs};

    /// Closes a room that was assigned `age` ago with this code. Returns whether a sign-in is needed, and
    /// whether the client retries.
    fn after_close(age: Duration, close: Close) -> (Option<SignInNeeded>, bool) {
        let (events, _) = mpsc::channel(1);
        let (to_gateway, _) = MeshOutputs::channel();
        let mut rooms = Rooms::new(Settings::new(gateway()), guest().unwrap(), events, to_gateway);
        let assigned_at = Instant::now().checked_sub(age).unwrap();
        let backoff = Backoff::new(Duration::from_secs(1));
        let (address, island) = (RoomAddress::of(&ROOM_1.parse().unwrap()).unwrap(), "I1".parse().unwrap());
        let (token_renewed, state) = (false, RoomState::Refused);
        rooms.current = Some(CurrentRoom { address, island, assigned_at, token_renewed, backoff, state });
        let reason = Disconnect::Closed { code: close.code(), reason: String::new() };
        let needed = rooms.advance(Some(RoomProgress::Ended(reason)));
        let retries = matches!(rooms.current, Some(CurrentRoom { state: RoomState::Backoff(_), .. }));
        (needed, retries)
    }

    fn gateway() -> Gateway {
        Gateway::new(Dialect::Archipelago, "ws://127.0.0.1:9")
    }

    fn rooms(settings: Settings) -> Rooms {
        Rooms::new(settings, guest().unwrap(), mpsc::channel(8).0, MeshOutputs::channel().0)
    }

    fn assign(rooms: &mut Rooms, island: &str, connection: &str) -> bool {
        let (island_id, conn_str) = (island.to_owned(), connection.to_owned());
        rooms.apply_assignment(IslandChangedMessage { island_id, conn_str, ..Default::default() }).is_some()
    }

    const ROOM_1: &str = "ws-room:ws://127.0.0.1:9/rooms/I1";
    const ROOM_2: &str = "ws-room:ws://127.0.0.1:9/nodes/2/rooms/I1";
    /// A transport that no client of ours can join.
    const NONE: &str = "offline:offline";
    #[cfg(feature = "webrtc")]
    const LIVEKIT: &str = "livekit:ws://127.0.0.1:9?access_token=t";
    #[cfg(feature = "webrtc")]
    const MESH: &str = "p2p:I1";
    #[cfg(feature = "webrtc")]
    const MOVES: [(&str, &str); 6] = [
        (ROOM_1, ROOM_2),
        (ROOM_1, LIVEKIT),
        (LIVEKIT, ROOM_1),
        (ROOM_1, MESH),
        (MESH, LIVEKIT),
        (LIVEKIT, "livekit:ws://127.0.0.2:9?access_token=t"),
    ];
    #[cfg(not(feature = "webrtc"))]
    const MOVES: [(&str, &str); 1] = [(ROOM_1, ROOM_2)];

    #[tokio::test]
    async fn old_room_is_left_after_the_welcome_of_the_new_one() {
        for (from, to) in MOVES {
            let mut rooms = rooms(Settings::new(gateway()));
            assert!(assign(&mut rooms, "I1", from));
            assert!(assign(&mut rooms, "I1", to));
            assert!(matches!(rooms.leaving[..], [(_, None)]) && rooms.current.is_some());
            rooms.advance(Some(RoomProgress::Entered));
            assert!(matches!(rooms.leaving[..], [(_, Some(_))]));
        }
    }

    #[tokio::test]
    async fn room_is_left_without_welcome_for_other_transports() {
        for (from, _) in MOVES {
            let mut rooms = rooms(Settings::new(gateway()));
            assert!(assign(&mut rooms, "I1", from));
            assert!(assign(&mut rooms, "I1", NONE));
            assert!(matches!(rooms.leaving[..], [(_, Some(_))]) && rooms.current.is_none());
        }
    }

    #[tokio::test]
    async fn stock_client_leaves_as_soon_as_it_is_reassigned() {
        for (from, to) in MOVES.into_iter().chain([(ROOM_1, NONE)]) {
            let mut rooms = rooms(Settings::stock(gateway()));
            assert!(assign(&mut rooms, "I1", from));
            assert!(assign(&mut rooms, "I1", to));
            assert!(rooms.leaving.is_empty());
            assert_eq!(rooms.current.is_some(), to != NONE);
        }
    }

    #[tokio::test]
    async fn lost_room_is_reentered_or_sign_in_is_requested() {
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(61));
        assert_eq!(after_close(old, Close::Silent), (None, true));
        assert_eq!(after_close(old, Close::TokenRefused), (Some(SignInNeeded), false));
        assert_eq!(after_close(young, Close::TokenRefused), (None, false), "an assignment is in flight");
        assert_eq!(after_close(old, Close::NewSession), (None, false), "another client uses this wallet");
        assert_eq!(after_close(old, Close::Moved), (None, false));
    }
}
