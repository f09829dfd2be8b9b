//! The registry of sessions: the local ones with their message queues, and the remote ones of other gateways.
//! It decides which session of an address lives.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use admission::Network;
use bus::{Bus, Headers};
use bytes::Bytes;
use protocol::{
    Address, Close, IslandId, NodeName, ResumeHash, SessionId, Subject, SystemTopic, UlidClock,
    subject::SubjectScheme, unix_ms,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};

use crate::{
    KeepSession, Settings,
    handshake::SignInRequest,
    remote_sessions::RemoteSessions,
    resumption::{RecentlyEnded, Resumable, Resumption},
};

/// A message to a session, to be sent to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionMessage {
    /// The session has a new assignment.
    IslandChanged(IslandChange),
    /// Another peer joined or left the island of the session.
    MemberChanged(Arc<MemberChange>),
}

/// A new assignment of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IslandChange {
    pub(crate) island: IslandId,
    /// The node of the room, if the director named it.
    pub(crate) node: Option<NodeName>,
    /// An encoded `IslandChangedMessage`.
    pub(crate) message: Bytes,
}

/// A peer joined or left an island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberChange {
    /// Whether the peer joined; otherwise it left.
    pub(crate) joined: bool,
    /// The system topic under which clients subscribe to the change.
    pub(crate) topic: SystemTopic,
    /// An encoded `JoinIslandMessage` or `LeftIslandMessage`.
    pub(crate) message: Bytes,
}

/// The receiving end of a session: its queued messages, then the close code that ends it.
#[derive(Debug)]
pub(crate) struct SessionReceiver {
    messages: mpsc::Receiver<SessionMessage>,
    close_reason: Arc<OnceLock<Close>>,
    /// The resumption state of the session, if its client announced extensions.
    pub(crate) resumption: Option<Resumption>,
}

impl SessionReceiver {
    /// The next message, or the close code once the registry has ended the session and the queue is empty.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<SessionMessage, Close> {
        match self.messages.recv().await {
            Some(message) => Ok(message),
            // The sender was dropped without a close reason: the queue overflowed.
            None => Err(self.close_reason.get().copied().unwrap_or(Close::TooSlow)),
        }
    }
}

/// Bound of the message queue of one session. If an island change finds the queue full, the session ends,
/// because it must not miss its assignment.
const SESSION_QUEUE_MESSAGES: usize = 256;
/// Part of the queue that is reserved for island changes. A member change that would use it is dropped and
/// counted; the client learns of members from its room, too.
const RESERVED_FOR_ISLAND_CHANGES: usize = 32;

/// Minimum interval between announcements of one session. A session is announced again when the bus reports
/// an older remote session of its address.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

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
    local: HashMap<Address, LocalSession>,
    /// Number of local sessions of each client network.
    by_network: HashMap<Network, usize>,
    /// The members of each island: the addresses that were assigned to it last.
    island_members: HashMap<IslandId, HashSet<Address>>,
    remote: RemoteSessions,
    recently_ended: RecentlyEnded,
    draining: bool,
}

#[derive(Debug)]
struct LocalSession {
    session: SessionId,
    network: Network,
    /// Dropping it ends the session.
    queue: mpsc::Sender<SessionMessage>,
    /// The island of its last assignment.
    island: Option<IslandId>,
    close_reason: Arc<OnceLock<Close>>,
    /// The transports that its client listed, separated by commas.
    transports: Option<Arc<str>>,
    resumption: Option<Resumption>,
    /// Time of the last announcement of the session on the bus.
    announced_at: Instant,
}

impl SessionRegistry {
    /// An empty registry.
    pub(crate) fn new(bus: Bus, settings: &Settings) -> Self {
        let Settings { max_sessions, max_sessions_per_network, keep_session, report_connected, .. } =
            *settings;
        let Settings { idle_timeout, ping_interval, .. } = *settings;
        let state = RegistryState {
            clock: UlidClock::default(),
            local: HashMap::new(),
            by_network: HashMap::new(),
            island_members: HashMap::new(),
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
    ) -> Result<(SessionId, SessionReceiver), Close> {
        let SignInRequest { address, extensions, .. } = request;
        let [random, secret] = random;
        let (queue, messages) = mpsc::channel(SESSION_QUEUE_MESSAGES);
        let close_reason = Arc::new(OnceLock::new());
        let now_ms = unix_ms(SystemTime::now());
        let mut state = self.lock();
        if state.draining {
            return Err(Close::Restarting);
        }
        // A session that replaces one of its own address needs no free slot; for the limit of its client
        // network both must be of that network.
        match (state.local.contains_key(&address), self.keep_session) {
            (true, KeepSession::Oldest) => return Err(Close::AlreadySignedIn),
            (false, _) if state.local.len() >= self.max => return Err(Close::Full),
            _ => {}
        }
        let network_sessions = state.by_network.get(&network).copied().unwrap_or_default();
        let replaces_own = state.local.get(&address).is_some_and(|older| older.network == network);
        if self.max_per_network.is_some_and(|max| network_sessions >= max) && !replaces_own {
            return Err(Close::Full);
        }
        let session = SessionId::from(state.clock.mint(now_ms, u128::from_le_bytes(random)));
        // The other scheme has no headers: other gateways would not learn the hash of the secret, nor would a
        // director learn of sessions.
        let resumption = (extensions && self.bus.subject_scheme() == SubjectScheme::CommsV3)
            .then(|| Resumption::new(secret, state.session_resumed_by(&request)));
        if let Some(older) = state.remove(address) {
            older.kick();
        }
        let local = LocalSession {
            session,
            network,
            queue,
            island: None,
            close_reason: close_reason.clone(),
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
        *state.by_network.entry(network).or_default() += 1;
        state.local.insert(address, local);
        Ok((session, SessionReceiver { messages, close_reason, resumption }))
    }

    /// Ends a session and publishes its end, unless a newer session replaced it.
    pub(crate) fn end(&self, address: Address, session: SessionId) {
        let mut state = self.lock();
        if state.local.get(&address).is_some_and(|local| local.session == session) {
            state.end(address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::for_session(session), Bytes::new());
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
        let mut state = self.lock();
        state.clock.observe(session);
        match state.local.get_mut(&address) {
            Some(own) if own.session >= session => {
                if own.session > session {
                    self.reannounce(address, own);
                }
                state.remote.end(address, Some(session));
            }
            own => {
                if own.is_some()
                    && let Some(older) = state.remove(address)
                {
                    older.kick();
                }
                state.remote.observe(address, session, (island, hash), Instant::now());
            }
        }
    }

    /// Records that the bus reported the end of a session of `address`. Without a session id, it applies to
    /// any.
    pub(crate) fn observe_end(&self, address: Address, session: Option<SessionId>) {
        let mut state = self.lock();
        let ended = state.remote.end(address, session);
        state.remember_ended(address, ended);
    }

    /// Whether the client presents the secret of the newest known session of its wallet.
    pub(crate) fn can_resume(&self, request: &SignInRequest) -> bool {
        self.lock().session_resumed_by(request).is_some()
    }

    /// Records that the director published that a peer joined or left an island.
    pub(crate) fn observe_member_change(
        &self,
        island: &IslandId,
        peer: Address,
        session: Option<SessionId>,
        joined: bool,
    ) {
        let mut state = self.lock();
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
        let mut state = self.lock();
        let Some(local) = state.local.get(&address) else { return };
        if session.is_some_and(|session| session != local.session) {
            return;
        }
        let island = change.island.clone();
        if let Err(TrySendError::Full(_)) = local.queue.try_send(SessionMessage::IslandChanged(change)) {
            metrics::counter!("atoll_gateway_slow_sessions_total").increment(1);
            let session = local.session;
            // Without a close reason the receiver reports `Close::TooSlow`.
            state.end(address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::for_session(session), Bytes::new());
            return;
        }
        state.enter_island(address, island);
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
        let mut state = self.lock();
        if !change.joined {
            state.leave_island(peer, session, island);
        }
        let members =
            state.island_members.get(island).into_iter().flatten().filter(|&&member| member != peer);
        for local in members.filter_map(|member| state.local.get(member)) {
            let has_room = local.queue.capacity() > RESERVED_FOR_ISLAND_CHANGES;
            if !has_room || local.queue.try_send(SessionMessage::MemberChanged(change.clone())).is_err() {
                metrics::counter!("atoll_gateway_member_changes_dropped_total").increment(1);
            }
        }
    }

    /// Whether `address` is signed in on any gateway.
    pub(crate) fn contains(&self, address: Address) -> bool {
        let mut state = self.lock();
        state.local.contains_key(&address) || state.remote.contains(address, Instant::now())
    }

    /// The value of `already_connected` in a challenge for `address`.
    pub(crate) fn already_connected(&self, address: Address) -> bool {
        self.report_connected && self.contains(address)
    }

    /// Number of wallets that are signed in on all gateways, as far as the bus has reported them.
    pub(crate) fn users_count(&self) -> usize {
        let mut state = self.lock();
        state.local.len() + state.remote.count(Instant::now())
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().local.len()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Rejects new sessions, and ends all local ones with [`Close::Restarting`], so that their clients
    /// reconnect to another gateway.
    ///
    /// No disconnect is published: the peers return within moments, and other members are not to notice the
    /// gap. A peer that does not return expires by its missing heartbeats.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.island_members.clear();
        state.by_network.clear();
        for local in std::mem::take(&mut state.local).into_values() {
            let _ = local.close_reason.set(Close::Restarting);
        }
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

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// Removes a local session.
    fn remove(&mut self, address: Address) -> Option<LocalSession> {
        let local = self.local.remove(&address)?;
        if let Some(count) = self.by_network.get_mut(&local.network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&local.network);
            }
        }
        self.remove_member(address, local.island.as_ref());
        Some(local)
    }

    /// Removes a local session that ends, and remembers it so that it can be resumed.
    fn end(&mut self, address: Address) {
        let ended = self.remove(address).map(|local| local.resumable());
        self.remember_ended(address, ended);
    }

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
            self.local.get(&address).map(LocalSession::resumable),
            self.remote.resumable(address),
            self.recently_ended.get(address, Instant::now()),
        ];
        let newest = known.into_iter().flatten().max_by_key(|known| known.session)?;
        (newest.hash == Some(presented)).then_some(newest.session)
    }

    /// Records the island of the assignment that was queued for a session.
    fn enter_island(&mut self, address: Address, island: IslandId) {
        let Some(local) = self.local.get_mut(&address) else { return };
        let before = local.island.replace(island.clone());
        if before.as_ref() != Some(&island) {
            self.remove_member(address, before.as_ref());
            self.island_members.entry(island).or_default().insert(address);
        }
    }

    /// Records that a session left this island, if it is the named session or none is named.
    fn leave_island(&mut self, address: Address, session: Option<SessionId>, island: &IslandId) {
        let Some(local) = self.local.get_mut(&address) else { return };
        if session.is_none_or(|session| session == local.session) && local.island.as_ref() == Some(island) {
            local.island = None;
            self.remove_member(address, Some(island));
        }
    }

    fn remove_member(&mut self, address: Address, island: Option<&IslandId>) {
        let Some(island) = island else { return };
        if let Some(members) = self.island_members.get_mut(island) {
            members.remove(&address);
            if members.is_empty() {
                self.island_members.remove(island);
            }
        }
    }
}

impl LocalSession {
    /// The headers of the announcement.
    fn headers(&self) -> Headers {
        Headers {
            transports: self.transports.clone(),
            resumption: self.resumption.map(|own| Box::new(own.headers())),
            ..Headers::for_session(self.session)
        }
    }

    fn resumable(&self) -> Resumable {
        Resumable { session: self.session, hash: self.resumption.map(|own| own.hash) }
    }

    /// Ends the session in favour of a newer one. Its queued messages are still sent before the close.
    fn kick(self) {
        metrics::counter!("atoll_gateway_kicks_total").increment(1);
        // The reason cannot be set already: only removed sessions have one.
        let _ = self.close_reason.set(Close::NewSession);
    }
}

#[cfg(test)]
mod tests {
    use protocol::subject;

    use super::*;
    use crate::settings::tests::settings;

    const PEER: Address = Address::new([1; 20]);

    /// An empty registry for at most `max_sessions` sessions.
    fn new_sessions(bus: Bus, max_sessions: usize, keep_session: KeepSession) -> SessionRegistry {
        SessionRegistry::new(bus, &Settings { max_sessions, keep_session, ..settings() })
    }

    fn island(number: u8) -> IslandId {
        format!("I{number}").parse().unwrap()
    }

    fn member_change(joined: bool) -> Arc<MemberChange> {
        let subject = match joined {
            true => Subject::IslandPeerJoin(island(1)),
            false => Subject::IslandPeerLeft(island(1)),
        };
        let topic = subject.to_string().parse().unwrap();
        Arc::new(MemberChange { joined, topic, message: "member".into() })
    }

    fn island_change(number: u8) -> IslandChange {
        IslandChange { island: island(number), node: None, message: "assignment".into() }
    }

    fn network() -> Network {
        Network::from_ip(std::net::IpAddr::from([127, 0, 0, 1]), 64)
    }

    fn sign_in_request(address: Address) -> SignInRequest {
        SignInRequest::without_extensions(address)
    }

    /// The published subjects, each with the session in its headers.
    fn published(subscription: &mut bus::Subscription) -> Vec<(Subject, Option<SessionId>)> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|envelope| (envelope.subject().unwrap(), envelope.headers.session))
            .collect()
    }

    /// The queued messages of a session, and its close code if it has ended.
    async fn drain_messages(receiver: &mut SessionReceiver) -> (Vec<SessionMessage>, Option<Close>) {
        let mut all = Vec::new();
        loop {
            tokio::select! {
                biased;
                next = receiver.next() => match next {
                    Ok(message) => all.push(message),
                    Err(close) => return (all, Some(close)),
                },
                () = tokio::task::yield_now() => return (all, None),
            }
        }
    }

    #[tokio::test]
    async fn newest_session_wins_and_late_end_of_older_is_ignored() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (older, mut older_receiver) =
            sessions.begin(sign_in_request(PEER), network(), [[9; 16]; 2]).unwrap();
        let (newer, mut newer_receiver) =
            sessions.begin(sign_in_request(PEER), network(), [[1; 16]; 2]).unwrap();
        assert!(newer > older);
        assert_eq!(drain_messages(&mut older_receiver).await, (vec![], Some(Close::NewSession)));
        sessions.end(PEER, older);
        sessions.deliver_island_change(PEER, Some(older), island_change(1));
        sessions.deliver_island_change(PEER, Some(newer), island_change(2));
        let message = SessionMessage::IslandChanged(island_change(2));
        assert_eq!(drain_messages(&mut newer_receiver).await, (vec![message], None));
        sessions.end(PEER, newer);
        let connect = |session| (Subject::PeerConnect(PEER), Some(session));
        let expected = [connect(older), connect(newer), (Subject::PeerDisconnect(PEER), Some(newer))];
        assert_eq!(published(&mut events), expected);
        assert_eq!(sessions.count(), 0);
    }

    #[tokio::test]
    async fn remote_sign_in_ends_only_an_older_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (session, mut receiver) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        sessions.observe_session(PEER, session, None, None);
        sessions.observe_session(PEER, SessionId::new(1, 1), None, None);
        assert_eq!(sessions.count(), 1);
        let ahead = SessionId::new(1 << 45, 0);
        sessions.observe_session(PEER, ahead, None, None);
        assert_eq!(drain_messages(&mut receiver).await, (vec![], Some(Close::NewSession)));
        assert_eq!((sessions.count(), sessions.contains(PEER)), (0, true), "it is remote");
        sessions.observe_end(PEER, Some(session));
        assert!(sessions.contains(PEER), "an older session ended");
        sessions.observe_end(PEER, Some(ahead));
        assert!(!sessions.contains(PEER));
        assert!(
            sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap().0 > ahead,
            "minted above any that was seen"
        );
    }

    #[tokio::test]
    async fn older_remote_session_triggers_reannouncement() {
        // Each bus is one side of an outage.
        let [there, here] = [(); 2].map(|()| Bus::in_process());
        let mut events = here.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let [there, here] = [there, here].map(|bus| new_sessions(bus, 9, KeepSession::Newest));
        let (older, mut older_receiver) =
            there.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let transports = Some("p2p,ws-room".into());
        let request = SignInRequest { transports: transports.clone(), ..sign_in_request(PEER) };
        let (newer, mut newer_receiver) = here.begin(request, network(), [[0; 16]; 2]).unwrap();
        assert!(newer > older);
        let begun = events.try_next().unwrap();
        here.observe_session(PEER, older, None, None);
        assert_eq!(published(&mut events), [], "it was announced just now");
        here.lock().local.get_mut(&PEER).unwrap().announced_at -= ANNOUNCE_INTERVAL;
        here.observe_session(PEER, newer, None, None);
        assert_eq!(published(&mut events), [], "its own heartbeat");
        (0..3).for_each(|_| here.observe_session(PEER, older, None, None));
        let again = events.try_next().unwrap();
        assert_eq!((again.subject(), &again.headers), (begun.subject(), &begun.headers));
        assert_eq!(again.headers, Headers { transports, ..Headers::for_session(newer) });
        assert_eq!(published(&mut events), [], "once in an interval");
        there.observe_session(PEER, again.headers.session.unwrap(), None, None);
        assert_eq!(drain_messages(&mut older_receiver).await, (vec![], Some(Close::NewSession)));
        assert_eq!(drain_messages(&mut newer_receiver).await, (vec![], None));
    }

    #[tokio::test]
    async fn newest_session_survives_across_gateways() {
        let bus = Bus::in_process();
        let gateways: Vec<_> = (0..3)
            .map(|_| {
                let connects = bus.subscribe("test", &[subject::PEER_CONNECTS], 1_024);
                (new_sessions(bus.clone(), 1_000, KeepSession::Newest), connects)
            })
            .collect();
        let wallets: Vec<Address> = (0..20).map(|number| Address::new([number; 20])).collect();
        // Each gateway receives the announcements of the others only after each round.
        let begun: Vec<_> = std::thread::scope(|scope| {
            let race = |(sessions, mut connects): (SessionRegistry, bus::Subscription), seed: u8| {
                let mut receivers = Vec::new();
                for round in 0..10 {
                    for &wallet in &wallets {
                        receivers.push((
                            wallet,
                            sessions
                                .begin(sign_in_request(wallet), network(), [[seed ^ round; 16]; 2])
                                .unwrap(),
                        ));
                    }
                    observe_connects(&sessions, &mut connects);
                }
                (sessions, connects, receivers)
            };
            let threads: Vec<_> = gateways
                .into_iter()
                .zip([7, 3, 5])
                .map(|(own, seed)| scope.spawn(move || race(own, seed)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (mut local, mut newest) = (HashMap::new(), HashMap::new());
        for (sessions, mut connects, receivers) in begun {
            observe_connects(&sessions, &mut connects);
            for (wallet, (session, mut receiver)) in receivers {
                newest
                    .entry(wallet)
                    .and_modify(|newest: &mut SessionId| *newest = session.max(*newest))
                    .or_insert(session);
                if drain_messages(&mut receiver).await.1.is_none() {
                    assert_eq!(local.insert(wallet, session), None, "one live session of each wallet");
                }
            }
        }
        assert_eq!(local, newest);
    }

    fn observe_connects(sessions: &SessionRegistry, connects: &mut bus::Subscription) {
        while let Some(envelope) = connects.try_next() {
            if let (Some(Subject::PeerConnect(peer)), Some(session)) =
                (envelope.subject(), envelope.headers.session)
            {
                sessions.observe_session(peer, session, None, None);
            }
        }
    }

    #[tokio::test]
    async fn full_queue_ends_session_and_drain_reports_restarting() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_DISCONNECTS], 16);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (session, mut receiver) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        for _ in 0..=SESSION_QUEUE_MESSAGES {
            sessions.deliver_island_change(PEER, None, island_change(1));
        }
        assert_eq!(sessions.count(), 0);
        assert_eq!(published(&mut events), [(Subject::PeerDisconnect(PEER), Some(session))]);
        let (waiting, close) = drain_messages(&mut receiver).await;
        assert_eq!((waiting.len(), close), (SESSION_QUEUE_MESSAGES, Some(Close::TooSlow)));
        // With a full queue too, the receiver reports the reason of the drain.
        let (_, mut receiver) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        (0..SESSION_QUEUE_MESSAGES)
            .for_each(|_| sessions.deliver_island_change(PEER, None, island_change(1)));
        sessions.drain();
        assert_eq!(drain_messages(&mut receiver).await.1, Some(Close::Restarting));
        assert_eq!(published(&mut events), [], "the client is expected to reconnect");
        assert_eq!(
            sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap_err(),
            Close::Restarting
        );
    }

    #[test]
    fn session_limit_holds_and_takeover_needs_no_slot() {
        let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Newest);
        let _receiver = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(
            sessions.begin(sign_in_request(Address::new([2; 20])), network(), [[0; 16]; 2]).unwrap_err(),
            Close::Full
        );
        assert!(sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).is_ok());
    }

    #[test]
    fn keep_oldest_rejects_newer_session_while_it_lives() {
        let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Oldest);
        let (oldest, receiver) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(
            sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap_err(),
            Close::AlreadySignedIn
        );
        drop(receiver);
        sessions.end(PEER, oldest);
        assert!(sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).is_ok());
    }

    #[tokio::test]
    async fn members_receive_member_changes_while_in_the_island() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let other = Address::new([2; 20]);
        let (_, mut receiver) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        let (_, mut others) = sessions.begin(sign_in_request(other), network(), [[0; 16]; 2]).unwrap();
        sessions.broadcast_member_change(&island(1), other, None, &member_change(true));
        sessions.deliver_island_change(PEER, None, island_change(1));
        sessions.broadcast_member_change(&island(1), other, None, &member_change(true));
        sessions.deliver_island_change(other, None, island_change(1));
        sessions.deliver_island_change(other, None, island_change(2));
        sessions.broadcast_member_change(&island(1), other, None, &member_change(false));
        let moved = |number| SessionMessage::IslandChanged(island_change(number));
        let members = [true, false].map(|joined| SessionMessage::MemberChanged(member_change(joined)));
        assert_eq!(drain_messages(&mut receiver).await.0, [&[moved(1)][..], &members].concat());
        assert_eq!(drain_messages(&mut others).await.0, [moved(1), moved(2)]);
        // A peer that the engine dropped for silence leaves the island: neither it nor the others receive
        // changes.
        sessions.deliver_island_change(other, None, island_change(1));
        sessions.broadcast_member_change(&island(1), PEER, Some(SessionId::new(1, 1)), &member_change(false));
        assert_eq!(sessions.lock().island_members[&island(1)].len(), 2, "an older session is named");
        sessions.broadcast_member_change(&island(1), PEER, None, &member_change(false));
        assert_eq!(drain_messages(&mut others).await.0.len(), 3);
        sessions.broadcast_member_change(&island(1), other, None, &member_change(false));
        assert_eq!(drain_messages(&mut receiver).await.0, []);
        let mut state = sessions.lock();
        for address in [PEER, other] {
            state.remove(address);
        }
        assert!(state.island_members.is_empty());
    }

    #[tokio::test]
    async fn member_changes_never_end_a_slow_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (_, mut receiver) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        sessions.deliver_island_change(PEER, None, island_change(1));
        for _ in 0..2 * SESSION_QUEUE_MESSAGES {
            sessions.broadcast_member_change(&island(1), Address::new([2; 20]), None, &member_change(true));
        }
        sessions.deliver_island_change(PEER, None, island_change(2));
        let (messages, close) = drain_messages(&mut receiver).await;
        assert_eq!((messages.len(), close), (SESSION_QUEUE_MESSAGES - RESERVED_FOR_ISLAND_CHANGES + 1, None));
        assert_eq!(messages.last(), Some(&SessionMessage::IslandChanged(island_change(2))));
    }

    #[test]
    fn transports_are_published_with_connect_only() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let transports = Some("p2p,ws-room".into());
        let begun = sessions.begin(
            SignInRequest { transports: transports.clone(), ..sign_in_request(PEER) },
            network(),
            [[0; 16]; 2],
        );
        let (session, _) = begun.unwrap();
        sessions.end(PEER, session);
        let headers: Vec<Headers> =
            std::iter::from_fn(|| events.try_next()).map(|envelope| envelope.headers).collect();
        let connect = Headers { transports, ..Headers::for_session(session) };
        assert_eq!(headers, [connect, Headers::for_session(session)]);
    }

    /// The request of a client that announced extensions and presents this secret.
    fn request_with_secret(secret: Option<[u8; 16]>) -> SignInRequest {
        let presented_hash = secret.map(|secret| identity::ResumeSecret::new(secret).hash());
        SignInRequest { extensions: true, presented_hash, ..sign_in_request(PEER) }
    }

    /// Begins a session that presents `secret`; `own` makes its own secret. Returns the session, the older
    /// session that it resumes, and the headers of its announcement.
    fn begin_with_secret(
        sessions: &SessionRegistry,
        secret: Option<[u8; 16]>,
        own: u8,
    ) -> (SessionId, Option<SessionId>, Headers) {
        let mut connects = sessions.bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
        let begun = sessions.begin(request_with_secret(secret), network(), [[0; 16], [own; 16]]);
        let (session, receiver) = begun.unwrap();
        let headers = connects.try_next().unwrap().headers;
        let resumes = receiver.resumption.unwrap().resumes;
        assert_eq!(headers.resumption().resumes, resumes);
        (session, resumes, headers)
    }

    #[test]
    fn resume_secret_is_valid_once_for_the_newest_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (first, resumed, _) = begin_with_secret(&sessions, None, 1);
        assert_eq!(resumed, None);
        assert_eq!(begin_with_secret(&sessions, Some([9; 16]), 2).1, None, "a wrong secret");
        assert_eq!(begin_with_secret(&sessions, Some([1; 16]), 3).1, None, "the secret of an older session");
        let (third, ..) = begin_with_secret(&sessions, None, 4);
        let (fourth, resumed, _) = begin_with_secret(&sessions, Some([4; 16]), 5);
        assert_eq!(resumed, Some(third));
        assert!(first < third && third < fourth);
        assert_eq!(begin_with_secret(&sessions, Some([4; 16]), 6).1, None, "the secret was used");
        // The session of a client without extensions has no secret, so no later session can resume an earlier
        // one.
        sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(begin_with_secret(&sessions, Some([6; 16]), 7).1, None);
    }

    #[test]
    fn ended_session_is_resumed_on_any_gateway() {
        let [there, here] = [(); 2].map(|()| new_sessions(Bus::in_process(), 9, KeepSession::Newest));
        let (first, _, headers) = begin_with_secret(&there, None, 1);
        here.observe_session(PEER, first, None, headers.resumption().hash);
        here.observe_end(PEER, Some(first));
        let (second, resumed, _) = begin_with_secret(&here, Some([1; 16]), 2);
        assert_eq!(resumed, Some(first));
        here.end(PEER, second);
        let (third, resumed, headers) = begin_with_secret(&here, Some([2; 16]), 3);
        assert_eq!(resumed, Some(second));
        there.observe_session(PEER, third, None, headers.resumption().hash);
        assert_eq!(
            begin_with_secret(&there, Some([3; 16]), 4).1,
            Some(third),
            "while it lives on another gateway"
        );
    }

    #[test]
    fn session_without_extensions_has_no_resumption() {
        let bus = Bus::in_process();
        let mut connects = bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (session, receiver) = sessions.begin(sign_in_request(PEER), network(), [[7; 16]; 2]).unwrap();
        assert_eq!(Resumption::welcome(receiver.resumption), (Vec::new(), false));
        assert_eq!(connects.try_next().unwrap().headers, Headers::for_session(session));
    }
}
