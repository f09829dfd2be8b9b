//! The state of all peers and islands, built from bus messages.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bus::Envelope;
use protocol::{
    Address, IslandId, Message as _, Parcel, Position, PositionPrecision, SessionId, Subject,
    timing::DIRECTOR_TIMEOUT,
    v3::{Heartbeat, IslandChangedMessage, IslandStatusMessage, JoinIslandMessage, LeftIslandMessage},
};

use crate::{
    event::{Event, IslandClosed, IslandMoved, IslandOpened, PeerEvent, PeerMovedIsland, Transport},
    islands::{Change, Island, Islands},
    peer::Peer,
};

/// The last known state of each peer and island.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    positions: PositionPrecision,
    wallets: BTreeMap<Address, Wallet>,
    islands: Islands,
    /// The time of the last message about islands.
    islands_updated_at: Option<Instant>,
    /// The time of the last announcement of the director.
    director_seen_at: Option<Instant>,
    /// The time of the last message that changed a peer.
    peers_updated_at: Option<Instant>,
    /// The number of wallets with a present peer.
    peer_count: usize,
    changes: Changes,
}

/// A counter of the changes that affect a response. It is shared, so that a request reads it without the lock
/// of the presence. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<AtomicU64>);

impl Changes {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The state of a wallet. It is kept until the peer timeout after its peer has left, so that a late message
/// of an older session does not restore the peer.
#[derive(Debug)]
struct Wallet {
    /// The newest known session.
    session: Option<SessionId>,
    /// Whether that session has ended.
    ended: bool,
    last_seen: Instant,
    peer: Option<Peer>,
}

/// A copy of an island, from which a response is made without the lock of the presence.
#[derive(Debug)]
pub(crate) struct IslandCopy {
    pub(crate) id: IslandId,
    pub(crate) members: Vec<Address>,
    pub(crate) max_peers: Option<u32>,
    pub(crate) transport: Option<Transport>,
    pub(crate) reported: Option<(Position, f64)>,
    pub(crate) participants: Option<u32>,
}

impl IslandCopy {
    fn new(id: &IslandId, island: &Island) -> Self {
        Self {
            id: id.clone(),
            members: island.members.iter().copied().collect(),
            max_peers: island.max_peers,
            transport: island.transport.clone(),
            reported: island.reported,
            participants: island.participants,
        }
    }
}

/// The times after which state that is not refreshed is removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) peer: Duration,
    pub(crate) report: Duration,
}

impl Presence {
    /// A presence without peers, which stores positions in this precision.
    pub(crate) fn new(positions: PositionPrecision, changes: Changes) -> Self {
        Self { positions, changes, ..Self::default() }
    }

    /// Applies a message from the bus and returns the resulting events. A message that does not decode
    /// changes nothing.
    pub(crate) fn apply(&mut self, envelope: &Envelope, now: Instant, unix_ms: u64) -> Vec<Event> {
        let session = envelope.headers.session;
        let payload = &envelope.payload[..];
        match envelope.subject() {
            Some(Subject::PeerHeartbeat(address)) => {
                let Ok(heartbeat) = Heartbeat::decode(payload) else { return Vec::new() };
                match Position::checked(heartbeat.position.as_ref(), f32::MAX) {
                    Ok(position) => self.heartbeat(address, session, position, now, unix_ms),
                    Err(_) => Vec::new(),
                }
            }
            Some(Subject::PeerDisconnect(address)) => self.session_ended(address, session, now, unix_ms),
            Some(Subject::PeerConnect(address)) => {
                self.session_started(address, session, now);
                Vec::new()
            }
            Some(Subject::PeerIslandChanged(_)) => {
                let Ok(message) = IslandChangedMessage::decode(payload) else { return Vec::new() };
                let Ok(island) = message.island_id.parse::<IslandId>() else { return Vec::new() };
                if let Some(transport) = Transport::from_connection_string(&message.conn_str, &island) {
                    self.islands.set_transport(island, transport);
                    self.changes.add();
                }
                self.take_changes(unix_ms)
            }
            Some(Subject::IslandPeerJoin(island)) => {
                let Ok(message) = JoinIslandMessage::decode(payload) else { return Vec::new() };
                let Ok(peer) = message.peer_id.parse() else { return Vec::new() };
                self.touch_islands(now);
                self.islands.joined(&island, peer);
                self.take_changes(unix_ms)
            }
            Some(Subject::IslandPeerLeft(island)) => {
                let Ok(message) = LeftIslandMessage::decode(payload) else { return Vec::new() };
                let Ok(peer) = message.peer_id.parse() else { return Vec::new() };
                self.touch_islands(now);
                self.islands.left(&island, peer);
                self.take_changes(unix_ms)
            }
            Some(Subject::EngineIslands) => {
                let Ok(report) = IslandStatusMessage::decode(payload) else { return Vec::new() };
                self.touch_islands(now);
                self.islands.report(&report.data, self.positions);
                self.take_changes(unix_ms)
            }
            Some(Subject::EngineDiscovery) => {
                self.director_seen_at = Some(now);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn touch_islands(&mut self, now: Instant) {
        self.islands_updated_at = Some(now);
        self.changes.add();
    }

    /// Handles a heartbeat of a peer.
    fn heartbeat(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        position: Position,
        now: Instant,
        unix_ms: u64,
    ) -> Vec<Event> {
        let Some((session, previous)) = self.take_wallet(address, session, now) else { return Vec::new() };
        let position = self.positions.published(position);
        let peer = Peer { position, last_ping: unix_ms, session };
        let mut events = Vec::new();
        if previous.as_ref().is_none_or(|before| before.session != session) {
            events.extend(previous.map(|before| Event::Leave(PeerEvent::new(address, &before, unix_ms))));
            events.push(Event::Join(PeerEvent::new(address, &peer, unix_ms)));
        }
        self.wallets.insert(address, Wallet { session, ended: false, last_seen: now, peer: Some(peer) });
        self.peer_count += 1;
        events
    }

    /// Handles the start of a session. Later messages of older sessions are ignored.
    fn session_started(&mut self, address: Address, session: Option<SessionId>, now: Instant) {
        let started = Wallet { session: None, ended: false, last_seen: now, peer: None };
        let wallet = self.wallets.entry(address).or_insert(started);
        if session > wallet.session {
            (wallet.session, wallet.ended) = (session, false);
        }
    }

    /// Handles the end of a session.
    fn session_ended(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        now: Instant,
        unix_ms: u64,
    ) -> Vec<Event> {
        let Some((session, previous)) = self.take_wallet(address, session, now) else { return Vec::new() };
        self.wallets.insert(address, Wallet { session, ended: true, last_seen: now, peer: None });
        previous.iter().map(|peer| Event::Leave(PeerEvent::new(address, peer, unix_ms))).collect()
    }

    /// Removes the state of a wallet for which a message arrived, so that the caller inserts the new one.
    /// Returns the current session and the previous peer, or `None` if the message belongs to an outdated
    /// session.
    fn take_wallet(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        now: Instant,
    ) -> Option<(Option<SessionId>, Option<Peer>)> {
        if !self.is_current(address, session) {
            return None;
        }
        self.peers_updated_at = Some(now);
        self.changes.add();
        let before = self.wallets.remove(&address);
        self.peer_count -= usize::from(before.as_ref().is_some_and(|before| before.peer.is_some()));
        let session = session.or(before.as_ref().and_then(|before| before.session));
        Some((session, before.and_then(|before| before.peer)))
    }

    /// Whether a message of this session is current. A message without a session always is.
    fn is_current(&self, address: Address, session: Option<SessionId>) -> bool {
        let Some(wallet) = self.wallets.get(&address) else { return true };
        session.is_none() || session > wallet.session || (session == wallet.session && !wallet.ended)
    }

    /// The changes of the islands, as events.
    fn take_changes(&mut self, time: u64) -> Vec<Event> {
        let changes = self.islands.take_changes();
        let event = |change| match change {
            Change::Opened { island, transport } => {
                Event::IslandOpened(IslandOpened { time, island: island.to_string(), transport })
            }
            Change::Closed { island } => {
                Event::IslandClosed(IslandClosed { time, island: island.to_string() })
            }
            Change::Moved { island, from, to } => {
                Event::IslandMoved(IslandMoved { time, island: island.to_string(), from, to })
            }
            Change::Peer { address, from, to } => {
                let session = self.peer(address).and_then(|peer| peer.session);
                Event::PeerMovedIsland(PeerMovedIsland {
                    time,
                    address: address.to_string(),
                    session: session.map(|session| session.to_string()),
                    from: from.map(|from| from.to_string()),
                    to: to.map(|to| to.to_string()),
                })
            }
        };
        changes.into_iter().map(event).collect()
    }

    /// Removes the state that was not refreshed in time, and returns the resulting events.
    pub(crate) fn sweep(&mut self, timeouts: Timeouts, now: Instant, unix_ms: u64) -> Vec<Event> {
        let mut events = Vec::new();
        self.wallets.retain(|&address, wallet| {
            let is_kept = now - wallet.last_seen < timeouts.peer;
            if let (false, Some(peer)) = (is_kept, &wallet.peer) {
                events.push(Event::Leave(PeerEvent::new(address, peer, unix_ms)));
            }
            is_kept
        });
        self.peer_count -= events.len();
        if self.islands_updated_at.take_if(|at| now - *at >= timeouts.report).is_some() {
            self.islands.report(&[], self.positions);
            events.extend(self.take_changes(unix_ms));
            self.changes.add();
        }
        if !events.is_empty() {
            self.changes.add();
        }
        self.director_seen_at.take_if(|at| now - *at >= timeouts.report.max(DIRECTOR_TIMEOUT));
        events
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (Address, &Peer)> {
        self.wallets.iter().filter_map(|(&address, wallet)| Some((address, wallet.peer.as_ref()?)))
    }

    /// A copy of all peers, sorted by address.
    pub(crate) fn copy_peers(&self) -> Vec<(Address, Peer)> {
        self.peers().map(|(address, peer)| (address, *peer)).collect()
    }

    pub(crate) fn peer(&self, address: Address) -> Option<&Peer> {
        self.wallets.get(&address)?.peer.as_ref()
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.peer_count
    }

    /// The parcel of each peer.
    pub(crate) fn parcels(&self) -> Vec<Parcel> {
        self.peers().map(|(_, peer)| peer.position.parcel()).collect()
    }

    pub(crate) fn islands(&self) -> impl Iterator<Item = IslandCopy> {
        self.islands.iter().map(|(id, island)| IslandCopy::new(id, island))
    }

    pub(crate) fn island(&self, id: &IslandId) -> Option<IslandCopy> {
        self.islands.get(id).map(|island| IslandCopy::new(id, island))
    }

    /// The time of the last message about islands.
    pub(crate) fn islands_updated_at(&self) -> Option<Instant> {
        self.islands_updated_at
    }

    /// The time of the last message that changed a peer.
    pub(crate) fn peers_updated_at(&self) -> Option<Instant> {
        self.peers_updated_at
    }

    pub(crate) fn has_director(&self) -> bool {
        self.director_seen_at.is_some()
    }
}

#[cfg(test)]
mod tests;
