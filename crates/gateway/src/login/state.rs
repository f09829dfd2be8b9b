//! The state that all logins share: the node of the fixed room, the replay cache and the rate limits.

use std::{cmp::Ordering, time::SystemTime};

use admission::{Network, RateLimiter};
use axum::http::StatusCode;
use identity::SignedFetch;
use parking_lot::Mutex;
use protocol::{
    Address, ConnectionString, NodeName, RoomName, UlidClock, atoll_bus::TransportAnnouncement,
    timing::NODE_TIMEOUT, unix_ms,
};
use serde_json::Value;
use tokio::time::Instant;
use transports::ws_room;

use crate::{
    login::{
        error::LoginError,
        realm_check::{RealmCheck, RealmNames},
        replay_cache::ReplayCache,
    },
    metrics,
    settings::{Realm, Settings},
};

/// The path of the endpoint below the realm's public URL.
pub(crate) const LOGIN_PATH: &str = "/signed-login";

/// The room that every login is sent to.
pub struct FixedRoom {
    /// The name of the room. It differs from every island id.
    pub name: RoomName,
    /// The node that hosts the room; `None`: a node that announces the room.
    pub node: Option<NodeName>,
    /// Mints tokens that the node accepts.
    pub minter: ws_room::Minter,
}

/// The `intent` and the `signer` that the metadata must name, in lower case as older clients sign them.
const INTENT: &str = "dcl:explorer:comms-handshake";
const SIGNER: &str = "dcl:explorer";
/// Capacity of the replay cache: some 100 bytes for each request until it expires. When it is full, logins
/// are refused. At the default rate, three dozen addresses can fill it together in six minutes.
const MAX_REPLAYS: usize = 250_000;
/// Upper bound of client networks with a rate limit entry. Each entry expires within seconds.
const MAX_NETWORKS: usize = 10_000;

/// State that all logins share.
pub(crate) struct Login {
    pub(crate) room: Option<FixedRoom>,
    guests: bool,
    names: RealmNames,
    check: RealmCheck,
    /// Whether the realm sends all clients here instead of to the archipelago socket.
    is_mandatory: bool,
    /// The path that clients sign: that of the public URL, even if a proxy rewrites it.
    pub(crate) signed_path: String,
    state: Mutex<LoginState>,
}

struct LoginState {
    replay_cache: ReplayCache,
    rates: RateLimiter<Network>,
    clock: UlidClock,
    /// The last announcement of the room's node, and its time.
    node: Option<(Instant, TransportAnnouncement)>,
}

impl Login {
    pub(crate) fn new(room: Option<FixedRoom>, settings: &Settings) -> Self {
        let (replay_cache, clock, node) =
            (ReplayCache::new(MAX_REPLAYS, SystemTime::now()), UlidClock::default(), None);
        let signed_path = format!("{}{LOGIN_PATH}", settings.path());
        let rates = RateLimiter::new(settings.logins_per_network, MAX_NETWORKS);
        let state = Mutex::new(LoginState { replay_cache, rates, clock, node });
        let Realm { guests, ref names, check, .. } = settings.realm;
        let names = names.clone();
        let is_fixed = matches!(settings.realm.fixed_adapter, Some(ConnectionString::SignedLogin { .. }));
        Self { is_mandatory: is_fixed && room.is_some(), room, guests, names, check, signed_path, state }
    }

    /// Processes the announcement of a node.
    pub(crate) fn observe_node(&self, announcement: TransportAnnouncement) {
        let Some(room) = &self.room else { return };
        let mut state = self.state.lock();
        let is_chosen = match &room.node {
            Some(node) => node.as_str() == announcement.node,
            None => {
                let announced = announcement.rooms.iter().any(|seats| seats.room == room.name.as_str());
                // The first node by name wins, so that all gateways choose the same one.
                let other = state.node.as_ref().filter(|(at, node)| accepts_users(*at, node));
                announced
                    && other.is_none_or(|(_, other)| match announcement.node.cmp(&other.node) {
                        Ordering::Less => !announcement.draining,
                        Ordering::Equal => true,
                        Ordering::Greater => false,
                    })
            }
        };
        if is_chosen {
            state.node = Some((Instant::now(), announcement));
        }
    }

    /// Whether the realm sends all clients here, and logins would be refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_mandatory
            && (self.node_url().is_err() || self.state.lock().replay_cache.is_full(SystemTime::now()))
    }

    /// All checks of a request that need no Ethereum node: metadata, node, replay cache, and the rate limit
    /// of `network`.
    pub(crate) fn precheck(&self, fetch: &SignedFetch, network: Network) -> Result<(), LoginError> {
        self.check_metadata(fetch)?;
        self.node_url()?;
        let mut state = self.state.lock();
        state.replay_cache.check(fetch.into(), SystemTime::now())?;
        Ok(state.rates.take(network, Instant::now())?)
    }

    /// Checks that the metadata names the purpose, the signer and the realm of a login, and that guests are
    /// allowed if it names one.
    fn check_metadata(&self, fetch: &SignedFetch) -> Result<(), LoginError> {
        let metadata_text = |key: &str| fetch.metadata.get(key).and_then(Value::as_str);
        let forbidden = |message: String| Err(LoginError::new(StatusCode::FORBIDDEN, message));
        if metadata_text("intent") != Some(INTENT) {
            return forbidden(format!("the request is not signed for a login: its intent must be {INTENT}"));
        }
        if metadata_text("signer") != Some(SIGNER) {
            return forbidden(format!(
                "the request is not signed by an explorer: its signer must be {SIGNER}"
            ));
        }
        if let Some((field, value)) = self.names.mismatch(&fetch.metadata) {
            let (action, refuse) = match self.check {
                RealmCheck::Refuse => ("refused", true),
                RealmCheck::Log => ("logged", false),
            };
            metrics::logins_for_other_realms(action).increment(1);
            tracing::info!(field, value, action, "a signed login names another realm");
            if refuse {
                return forbidden(format!("the request is signed for another realm: its {field} is {value}"));
            }
        }
        // Any value other than null or false counts as a guest.
        let is_guest =
            !matches!(fetch.metadata.get("isguest"), None | Some(Value::Null | Value::Bool(false)));
        if is_guest && !self.guests {
            return forbidden("guests are not let in: sign in with a wallet".to_owned());
        }
        Ok(())
    }

    /// The URL of the node that hosts the room, if the node is available and both have a free seat.
    pub(crate) fn node_url(&self) -> Result<String, LoginError> {
        let state = self.state.lock();
        match &state.node {
            Some((at, node)) if accepts_users(*at, node) => {
                let room = self.room.as_ref().map(|room| room.name.as_str());
                let seats = node.rooms.iter().find(|seats| Some(&*seats.room) == room);
                if node.available_seats == 0 || seats.is_some_and(|seats| seats.available_seats == 0) {
                    return Err(LoginError::retry_later("the room is full, come back later"));
                }
                Ok(node.public_url.clone())
            }
            _ => Err(LoginError::retry_later("the room is not available now, come back later")),
        }
    }

    /// Accepts a request once.
    pub(crate) fn accept(&self, fetch: &SignedFetch) -> Result<(), LoginError> {
        Ok(self.state.lock().replay_cache.accept(fetch.into(), SystemTime::now())?)
    }

    /// Mints a token for `address` and returns the connection string of the room.
    pub(crate) fn mint_connection(
        &self,
        room: &FixedRoom,
        node_url: &str,
        address: Address,
    ) -> Result<String, LoginError> {
        let failed = || LoginError::retry_later("no access token could be minted, come back later");
        let random = admission::random().map_err(|_| failed())?;
        let now = SystemTime::now();
        let minted = self.state.lock().clock.mint(unix_ms(now), u128::from_le_bytes(random));
        let connection = room.minter.connection(node_url, &room.name, address, minted, now);
        connection.map(|connection| connection.to_string()).map_err(|_| failed())
    }
}

/// Whether a node accepts users: its announcement is recent, and it does not drain.
fn accepts_users(at: Instant, node: &TransportAnnouncement) -> bool {
    at.elapsed() < NODE_TIMEOUT && !node.draining
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::atoll_bus::RoomSeats;

    use super::*;
    use crate::settings::tests::settings;

    fn plaza(node: Option<&str>) -> Login {
        let (name, node) = ("plaza".parse().unwrap(), node.map(|node| node.parse().unwrap()));
        let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
        let adapter = ConnectionString::SignedLogin { url: "https://realm.example/signed-login".to_owned() };
        let realm = Realm { fixed_adapter: Some(adapter), ..Realm::default() };
        Login::new(Some(FixedRoom { name, node, minter }), &Settings { realm, ..settings() })
    }

    #[tokio::test(start_paused = true)]
    async fn fixed_room_uses_first_node_that_announces_it() {
        let login = plaza(None);
        let announce = |node: &str, room: &str, draining| {
            let rooms = vec![RoomSeats { room: room.to_owned(), available_seats: 1 }];
            let (node, public_url) = (node.to_owned(), format!("ws://{node}"));
            let announcement =
                TransportAnnouncement { node, public_url, rooms, draining, ..Default::default() };
            login.observe_node(TransportAnnouncement { available_seats: -1, ..announcement });
        };
        let node_url = || login.node_url().ok();
        announce("rooms-1", "inn", false);
        assert_eq!(node_url(), None);
        announce("rooms-3", "plaza", false);
        assert_eq!(node_url().as_deref(), Some("ws://rooms-3"));
        announce("rooms-2", "plaza", true);
        assert_eq!(node_url().as_deref(), Some("ws://rooms-3"), "a node that drains accepts no users");
        for (node, draining) in [("rooms-2", false), ("rooms-3", false)] {
            announce(node, "plaza", draining);
            assert_eq!(node_url().as_deref(), Some("ws://rooms-2"));
        }
        announce("rooms-2", "plaza", true);
        assert_eq!(node_url(), None);
        announce("rooms-3", "plaza", false);
        assert_eq!(node_url().as_deref(), Some("ws://rooms-3"));
        announce("rooms-2", "plaza", false);
        tokio::time::advance(NODE_TIMEOUT).await;
        assert_eq!(node_url(), None);
        announce("rooms-3", "plaza", false);
        assert_eq!(node_url().as_deref(), Some("ws://rooms-3"), "the other node stopped announcing itself");
    }

    #[test]
    fn full_replay_cache_closes_login() {
        let login = plaza(Some("rooms-1"));
        assert!(login.is_closed(), "no node announced the room");
        let node = "rooms-1".to_owned();
        login.observe_node(TransportAnnouncement { node, available_seats: -1, ..Default::default() });
        assert!(!login.is_closed());
        login.state.lock().replay_cache = ReplayCache::new(0, SystemTime::now());
        assert!(login.is_closed());
    }

    #[test]
    fn signed_path_is_the_path_of_the_public_url() {
        let path = |public_url: &str| {
            Login::new(None, &Settings { public_url: public_url.to_owned(), ..settings() }).signed_path
        };
        assert_eq!(path("ws://127.0.0.1:5000"), "/signed-login");
        assert_eq!(path("wss://host/"), "/signed-login");
        assert_eq!(path("wss://host/realms/one/"), "/realms/one/signed-login");
    }
}
