//! The registry of sessions: the local ones with their message queues, and the remote ones of other gateways.
//! It decides which session of an address lives.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use admission::Network;
use bus::{Bus, Headers};
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    Address, Close, IslandId, ResumeHash, SessionId, Subject, UlidClock, subject::SubjectScheme, unix_ms,
};
use tokio::time::{self, Instant};

use crate::{
    metrics,
    session::{
        handshake::SignInRequest,
        local::{LocalSession, LocalSessions, MeshMembership},
        message::{IslandChange, MemberChange, MeshMessage},
        queue::{QueueFull, SessionReceiver, session_queue},
        remote::RemoteSessions,
        resumption::{RecentlyEnded, Resumable, Resumption},
    },
    settings::{KeepSession, Settings},
};

/// Minimum interval between announcements of one session. A session is announced again when the bus reports
/// an older remote session of its address.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a membership check waits for a report of the membership, and how often it looks for one.
const MEMBERSHIP_REPORT_TIMEOUT: Duration = Duration::from_secs(1);
const MEMBERSHIP_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The sessions of this gateway, and the remote sessions that it knows. Each address has at most one local
/// session.
#[derive(Debug)]
pub(crate) struct SessionRegistry {
    bus: Bus,
    max: usize,
    max_per_network: Option<usize>,
    keep_session: KeepSession,
    report_connected: bool,
    state: Mutex<RegistryState>,
}

#[derive(Debug)]
struct RegistryState {
    clock: UlidClock,
    local: LocalSessions,
    remote: RemoteSessions,
    recently_ended: RecentlyEnded,
    draining: bool,
}

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    pub(crate) receiver: SessionReceiver,
    /// Its resumption state, if its client announced extensions.
    pub(crate) resumption: Option<Resumption>,
}

impl SessionRegistry {
    /// An empty registry.
    pub(crate) fn new(bus: Bus, settings: &Settings) -> Self {
        let Settings { max_sessions, max_sessions_per_network, keep_session, report_connected, .. } =
            *settings;
        let Settings { idle_timeout, ping_interval, .. } = *settings;
        let state = RegistryState {
            clock: UlidClock::default(),
            local: LocalSessions::default(),
            // A gateway checks for idle sessions once a ping interval, so a session without a position ends
            // at most one ping interval after the idle timeout.
            remote: RemoteSessions::new(idle_timeout + ping_interval),
            recently_ended: RecentlyEnded::default(),
            draining: false,
        };
        let (max, max_per_network) = (max_sessions, max_sessions_per_network);
        Self { bus, max, max_per_network, keep_session, report_connected, state: Mutex::new(state) }
    }

    /// Begins a session and announces it on the bus. It replaces an older local session of the address,
    /// unless the oldest is to be kept. Returns the close code of a rejection. The random bytes become part
    /// of the session id and the resumption secret.
    pub(crate) fn begin(
        &self,
        request: SignInRequest,
        network: Network,
        random: [[u8; 16]; 2],
    ) -> Result<NewSession, Close> {
        let SignInRequest { address, extensions, .. } = request;
        let [random, secret] = random;
        let (sender, receiver) = session_queue();
        let now_ms = unix_ms(SystemTime::now());
        let mut state = self.state.lock();
        self.check_limits(&state, address, network)?;
        let session = SessionId::from(state.clock.mint(now_ms, u128::from_le_bytes(random)));
        // The other scheme has no headers: other gateways would not learn the hash of the secret, nor would a
        // director learn of sessions.
        let resumption = (extensions && self.bus.subject_scheme() == SubjectScheme::CommsV3)
            .then(|| Resumption::new(secret, state.session_resumed_by(&request)));
        if let Some(older) = state.local.remove(address) {
            older.kick();
        }
        let local = LocalSession {
            session,
            network,
            sender,
            island: None,
            mesh: MeshMembership::No,
            transports: request.transports,
            resumption,
            announced_at: Instant::now(),
        };
        // Published while the lock is held, so that the order of announcements is that of the session ids.
        let begun = match self.bus.subject_scheme() {
            SubjectScheme::CommsV3 => Subject::PeerConnect(address),
            // This scheme has no connect message. The disconnect makes the director forget an older session
            // of the address, so that it responds to the first heartbeat with an assignment.
            SubjectScheme::ArchipelagoWorkers => Subject::PeerDisconnect(address),
        };
        self.bus.publish(&begun, local.headers(), Bytes::new());
        state.local.insert(address, local);
        Ok(NewSession { id: session, receiver, resumption })
    }

    /// Checks that a session of `address` may begin. Returns the close code of a rejection.
    fn check_limits(&self, state: &RegistryState, address: Address, network: Network) -> Result<(), Close> {
        if state.draining {
            return Err(Close::Restarting);
        }
        // A session that replaces one of its own address needs no free slot; for the limit of its client
        // network both must be of that network.
        let older = state.local.get(address);
        match (older, self.keep_session) {
            (Some(_), KeepSession::Oldest) => return Err(Close::AlreadySignedIn),
            (None, _) if state.local.count() >= self.max => return Err(Close::Full),
            _ => {}
        }
        let replaces_own = older.is_some_and(|older| older.network == network);
        if self.max_per_network.is_some_and(|max| state.local.network_count(network) >= max) && !replaces_own
        {
            return Err(Close::Full);
        }
        Ok(())
    }

    /// Ends a session and publishes its end, unless a newer session replaced it.
    pub(crate) fn end(&self, address: Address, session: SessionId) {
        let mut state = self.state.lock();
        if state.local.get(address).is_some_and(|local| local.session == session) {
            self.end_local(&mut state, address, session);
        }
    }

    /// Records that the bus reported a session of `address` as begun or alive, perhaps with its island and
    /// the hash of its resumption secret.
    ///
    /// A newer remote session ends an older local one. If the remote session is the older one, its gateway
    /// may have missed the announcement of the local session while the bus was disconnected: the local
    /// session is announced again.
    pub(crate) fn observe_session(
        &self,
        address: Address,
        session: SessionId,
        island: Option<IslandId>,
        hash: Option<ResumeHash>,
    ) {
        let mut state = self.state.lock();
        state.clock.observe(session);
        match state.local.get_mut(address) {
            Some(own) if own.session >= session => {
                if own.session > session {
                    self.reannounce(address, own);
                }
                state.remote.end(address, Some(session));
            }
            _ => {
                if let Some(older) = state.local.remove(address) {
                    older.kick();
                }
                state.remote.observe(address, session, (island, hash), Instant::now());
            }
        }
    }

    /// Records that the bus reported the end of a session of `address`. Without a session id, it applies to
    /// any.
    pub(crate) fn observe_end(&self, address: Address, session: Option<SessionId>) {
        let mut state = self.state.lock();
        let ended = state.remote.end(address, session);
        state.remember_ended(address, ended);
    }

    /// Whether the client presents the secret of the newest known session of its wallet.
    pub(crate) fn can_resume(&self, request: &SignInRequest) -> bool {
        self.state.lock().session_resumed_by(request).is_some()
    }

    /// Records that the director published that a peer joined or left an island.
    pub(crate) fn observe_member_change(
        &self,
        island: &IslandId,
        peer: Address,
        session: Option<SessionId>,
        joined: bool,
    ) {
        let mut state = self.state.lock();
        match joined {
            true => state.remote.observe_join(peer, island, Instant::now()),
            false => {
                let ended = state.remote.observe_leave(peer, session, island);
                state.remember_ended(peer, ended);
            }
        }
    }

    /// Queues an island change for the local session of `address`, if it is the named session or none is
    /// named. If the queue is full, the session ends.
    pub(crate) fn deliver_island_change(
        &self,
        address: Address,
        session: Option<SessionId>,
        change: IslandChange,
    ) {
        let mut state = self.state.lock();
        let Some(local) = state.local.get(address) else { return };
        if session.is_some_and(|session| session != local.session) {
            return;
        }
        let (session, island, is_mesh) = (local.session, change.island.clone(), change.is_mesh);
        match local.sender.send_island_change(change) {
            Ok(()) => state.local.enter_island(address, island, is_mesh),
            Err(QueueFull) => {
                metrics::slow_sessions().increment(1);
                // Without a close reason the receiver reports `Close::TooSlow`.
                self.end_local(&mut state, address, session);
            }
        }
    }

    /// Queues a member change for all other local members of the island.
    ///
    /// Members are the sessions that were assigned to the island last. A session that joins at the same time
    /// learns of all others from its assignment. A session that leaves without a new assignment is removed,
    /// and receives no further changes of this island.
    pub(crate) fn broadcast_member_change(
        &self,
        island: &IslandId,
        peer: Address,
        session: Option<SessionId>,
        change: &Arc<MemberChange>,
    ) {
        let mut state = self.state.lock();
        if !change.joined {
            state.local.leave_island(peer, session, island);
        }
        for member in state.local.other_members(island, peer) {
            if !member.sender.send_member_change(change) {
                metrics::member_changes_dropped().increment(1);
            }
        }
    }

    /// Queues a message about a mesh for the local session of `address`, if it is the named session or none is named,
    /// and its island is a mesh, or was one a moment ago.
    pub(crate) fn deliver_mesh_message(
        &self,
        address: Address,
        session: Option<SessionId>,
        message: MeshMessage,
    ) {
        let state = self.state.lock();
        let Some(local) = state.local.get(address).filter(|local| local.mesh.has_fallback()) else { return };
        if session.is_none_or(|session| session == local.session) && !local.sender.send_mesh_message(message)
        {
            metrics::mesh_messages_dropped().increment(1);
        }
    }

    /// The mesh membership of a local session in this island, if another peer is a member of the island as well.
    pub(crate) fn shared_mesh(&self, address: Address, other: Address, island: &IslandId) -> MeshMembership {
        let state = self.state.lock();
        let is_shared = address != other && state.is_member(other, island);
        if is_shared { state.local.mesh_membership(address, island) } else { MeshMembership::No }
    }

    /// The mesh membership of a local session in this island.
    pub(crate) fn mesh_membership(&self, address: Address, island: &IslandId) -> MeshMembership {
        self.state.lock().local.mesh_membership(address, island)
    }

    /// Whether `address` is signed in on any gateway.
    pub(crate) fn contains(&self, address: Address) -> bool {
        let mut state = self.state.lock();
        state.local.contains(address) || state.remote.contains(address, Instant::now())
    }

    /// Whether a peer is a member of an island: the last assignment of its session, here or on another gateway,
    /// is to it. The bus may report a remote session later than its client connects, so a negative answer takes
    /// [`MEMBERSHIP_REPORT_TIMEOUT`].
    pub(crate) async fn is_member(&self, address: Address, island: &IslandId) -> bool {
        let member = async {
            while !self.state.lock().is_member(address, island) {
                time::sleep(MEMBERSHIP_POLL_INTERVAL).await;
            }
        };
        time::timeout(MEMBERSHIP_REPORT_TIMEOUT, member).await.is_ok()
    }

    /// The value of `already_connected` in a challenge for `address`.
    pub(crate) fn already_connected(&self, address: Address) -> bool {
        self.report_connected && self.contains(address)
    }

    /// Number of wallets that are signed in on all gateways, as far as the bus has reported them.
    pub(crate) fn users_count(&self) -> usize {
        let mut state = self.state.lock();
        state.local.count() + state.remote.count(Instant::now())
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().local.count()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining
    }

    /// Rejects new sessions, and ends all local ones with [`Close::Restarting`], so that their clients
    /// reconnect to another gateway.
    ///
    /// No disconnect is published: the peers return within moments, and other members are not to notice the
    /// gap. A peer that does not return expires by its missing heartbeats.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        for local in state.local.take_all() {
            local.sender.close(Close::Restarting);
        }
    }

    /// Ends a local session and publishes its end.
    fn end_local(&self, state: &mut RegistryState, address: Address, session: SessionId) {
        let ended = state.local.remove(address).map(|local| local.resumable());
        state.remember_ended(address, ended);
        self.bus.publish(&Subject::PeerDisconnect(address), Headers::for_session(session), Bytes::new());
    }

    /// Announces a session again, at most once in [`ANNOUNCE_INTERVAL`].
    fn reannounce(&self, address: Address, local: &mut LocalSession) {
        // In the other scheme the announcement is a disconnect, which would end the session.
        if self.bus.subject_scheme() == SubjectScheme::CommsV3
            && local.announced_at.elapsed() >= ANNOUNCE_INTERVAL
        {
            local.announced_at = Instant::now();
            self.bus.publish(&Subject::PeerConnect(address), local.headers(), Bytes::new());
        }
    }
}

impl RegistryState {
    /// Whether the last known assignment of a peer is to this island.
    fn is_member(&self, address: Address, island: &IslandId) -> bool {
        match self.local.get(address) {
            Some(local) => local.island.as_ref() == Some(island),
            None => self.remote.is_member(address, island, Instant::now()),
        }
    }

    /// Remembers a session that ended, so that it can be resumed.
    fn remember_ended(&mut self, address: Address, ended: Option<Resumable>) {
        if let Some(ended) = ended {
            self.recently_ended.add(address, ended, Instant::now());
        }
    }

    /// The older session that a sign-in resumes, if its secret proves it: the newest known session of the
    /// wallet, local or remote, alive or recently ended. A secret works once, because the session that
    /// resumes another is newer and has a secret of its own.
    fn session_resumed_by(&mut self, request: &SignInRequest) -> Option<SessionId> {
        let (address, presented) = (request.address, request.presented_hash?);
        let known = [
            self.local.get(address).map(LocalSession::resumable),
            self.remote.resumable(address),
            self.recently_ended.get(address, Instant::now()),
        ];
        let newest = known.into_iter().flatten().max_by_key(|known| known.session)?;
        (newest.hash == Some(presented)).then_some(newest.session)
    }
}

#[cfg(test)]
mod tests;
