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

/// What a session is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionMessage {
    /// Where it belongs.
    IslandChanged(IslandChange),
    /// Who joined its island, or left it.
    MemberChanged(Arc<MemberChange>),
}

/// Where a client belongs from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IslandChange {
    pub(crate) island: IslandId,
    /// The node of its room, if the director named it.
    pub(crate) node: Option<NodeName>,
    /// An encoded `IslandChangedMessage`.
    pub(crate) message: Bytes,
}

/// Somebody joined an island, or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberChange {
    /// Whether it joined.
    pub(crate) joined: bool,
    /// The system topic under which clients listen for it.
    pub(crate) topic: SystemTopic,
    /// An encoded `JoinIslandMessage` or `LeftIslandMessage`.
    pub(crate) message: Bytes,
}

/// The receiving end of a session: what to tell, then why it is over.
#[derive(Debug)]
pub(crate) struct SessionReceiver {
    messages: mpsc::Receiver<SessionMessage>,
    close_reason: Arc<OnceLock<Close>>,
    /// Of the session, if its client announced extensions.
    pub(crate) resumption: Option<Resumption>,
}

impl SessionReceiver {
    /// What to tell next, or why the session is over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<SessionMessage, Close> {
        match self.messages.recv().await {
            Some(told) => Ok(told),
            // Who let go of the queue without a word found it full.
            None => Err(self.close_reason.get().copied().unwrap_or(Close::TooSlow)),
        }
    }
}

/// Messages that may wait for one session. At the bound the session ends: what it would miss is
/// where it belongs.
const SESSION_QUEUE_MESSAGES: usize = 256;
/// How many of these are kept for changes of island: who joins and who leaves is dropped and
/// counted before that, as its room tells a client, too.
const RESERVED_FOR_ISLAND_CHANGES: usize = 32;

/// How often the bus is told at most that a session is newer than another that lives elsewhere.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Who is signed in here. For one address there is at most one session, the newest.
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
    /// How many sessions each network has.
    by_network: HashMap<Network, usize>,
    /// Who was told last of which island.
    island_members: HashMap<IslandId, HashSet<Address>>,
    remote: RemoteSessions,
    recently_ended: RecentlyEnded,
    draining: bool,
}

#[derive(Debug)]
struct LocalSession {
    session: SessionId,
    network: Network,
    /// When this is dropped, the session is over.
    queue: mpsc::Sender<SessionMessage>,
    /// The island that it was told of last.
    island: Option<IslandId>,
    close_reason: Arc<OnceLock<Close>>,
    /// What its client can join, as it said.
    transports: Option<Arc<str>>,
    resumption: Option<Resumption>,
    /// When the bus last heard that it began.
    announced_at: Instant,
}

impl SessionRegistry {
    /// No sessions yet.
    pub(crate) fn new(bus: Bus, settings: &Settings) -> Self {
        let Settings {
            max_sessions,
            max_sessions_per_network,
            keep_session,
            report_connected: tell_connected,
            ..
        } = *settings;
        let Settings { idle_timeout, ping_interval, .. } = *settings;
        let state = RegistryState {
            clock: UlidClock::default(),
            local: HashMap::new(),
            by_network: HashMap::new(),
            island_members: HashMap::new(),
            // Whoever never says where it stands is ended with a ping, as here.
            remote: RemoteSessions::new(idle_timeout + ping_interval),
            recently_ended: RecentlyEnded::default(),
            draining: false,
        };
        let (max, max_per_network, keep) = (max_sessions, max_sessions_per_network, keep_session);
        Self {
            bus,
            max,
            max_per_network,
            keep_session: keep,
            report_connected: tell_connected,
            state: Mutex::new(state),
        }
    }

    /// Begins a session of who applied, in place of any older one unless that is to be kept, and
    /// says so on the bus; or says why there is none. The random bytes go into its id, and into its
    /// resumption secret.
    pub(crate) fn begin(
        &self,
        applicant: SignInRequest,
        network: Network,
        random: [[u8; 16]; 2],
    ) -> Result<(SessionId, SessionReceiver), Close> {
        let SignInRequest { address, extensions, .. } = applicant;
        let [random, secret] = random;
        let (queue, told) = mpsc::channel(SESSION_QUEUE_MESSAGES);
        let end = Arc::new(OnceLock::new());
        let now_ms = unix_ms(SystemTime::now());
        let mut state = self.lock();
        if state.draining {
            return Err(Close::Restarting);
        }
        // Whoever takes over its own session needs no other.
        match (state.local.contains_key(&address), self.keep_session) {
            (true, KeepSession::Oldest) => return Err(Close::AlreadySignedIn),
            (false, _) if state.local.len() >= self.max => return Err(Close::Full),
            _ => {}
        }
        let of_network = state.by_network.get(&network).copied().unwrap_or_default();
        let replaces_own = state.local.get(&address).is_some_and(|older| older.network == network);
        if self.max_per_network.is_some_and(|max| of_network >= max) && !replaces_own {
            return Err(Close::Full);
        }
        let session = SessionId::from(state.clock.mint(now_ms, u128::from_le_bytes(random)));
        // Without headers no other gateway would know of the secret, and no director of sessions.
        let resumption = (extensions && self.bus.subject_scheme() == SubjectScheme::CommsV3)
            .then(|| Resumption::new(secret, state.session_resumed_by(&applicant)));
        if let Some(older) = state.remove(address) {
            older.kick();
        }
        let (announced, end_of_it) = (Instant::now(), end.clone());
        let transports = applicant.transports;
        let island = None;
        let live = LocalSession {
            session,
            network,
            queue,
            island,
            close_reason: end_of_it,
            transports,
            resumption,
            announced_at: announced,
        };
        // Within the lock, so that the bus hears of sessions in their order.
        let begun = match self.bus.subject_scheme() {
            SubjectScheme::CommsV3 => Subject::PeerConnect(address),
            // There nobody says so. But that what was before is over, wherever it was: then the first
            // heartbeat is answered.
            SubjectScheme::ArchipelagoWorkers => Subject::PeerDisconnect(address),
        };
        self.bus.publish(&begun, live.headers(), Bytes::new());
        *state.by_network.entry(network).or_default() += 1;
        state.local.insert(address, live);
        Ok((session, SessionReceiver { messages: told, close_reason: end, resumption }))
    }

    /// Ends a session, and says so on the bus unless a newer one took over.
    pub(crate) fn end(&self, address: Address, session: SessionId) {
        let mut state = self.lock();
        if state.local.get(&address).is_some_and(|live| live.session == session) {
            state.end(address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::for_session(session), Bytes::new());
        }
    }

    /// A session of `address` was heard of, perhaps in this island: it began, or is alive. Where it is
    /// on another gateway, an older one here must go; and an older one there, which may not have heard
    /// that the one here began, as the bus was away: then it is said again.
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

    /// A session of `address` ended, here or elsewhere; without one, whichever it was.
    pub(crate) fn observe_end(&self, address: Address, session: Option<SessionId>) {
        let mut state = self.lock();
        let ended = state.remote.end(address, session);
        state.remember_ended(address, ended);
    }

    /// Whether the newest session of a wallet that is known is the one whose secret its client
    /// presents.
    pub(crate) fn can_resume(&self, applicant: &SignInRequest) -> bool {
        self.lock().session_resumed_by(applicant).is_some()
    }

    /// The director says that somebody joined an island, or left it.
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

    /// Hands a change of island to the session of `address`, if it is the one meant.
    pub(crate) fn deliver_island_change(
        &self,
        address: Address,
        session: Option<SessionId>,
        change: IslandChange,
    ) {
        let mut state = self.lock();
        let Some(live) = state.local.get(&address) else { return };
        if session.is_some_and(|session| session != live.session) {
            return;
        }
        let island = change.island.clone();
        if let Err(TrySendError::Full(_)) = live.queue.try_send(SessionMessage::IslandChanged(change)) {
            metrics::counter!("atoll_gateway_slow_sessions_total").increment(1);
            let session = live.session;
            // The end of its queue tells the session why.
            state.end(address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::for_session(session), Bytes::new());
            return;
        }
        state.enter_island(address, island);
    }

    /// Tells the members of an island, all but `peer`, that it joined or left. Members are those who
    /// were told that they are: who comes at the same time learns of all others by that. Who left
    /// without being told of another island hears nothing of this one any more, either.
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
        for live in members.filter_map(|member| state.local.get(member)) {
            let room = live.queue.capacity() > RESERVED_FOR_ISLAND_CHANGES;
            if !room || live.queue.try_send(SessionMessage::MemberChanged(change.clone())).is_err() {
                metrics::counter!("atoll_gateway_member_changes_dropped_total").increment(1);
            }
        }
    }

    /// Whether `address` is signed in, here or elsewhere.
    pub(crate) fn contains(&self, address: Address) -> bool {
        let mut state = self.lock();
        state.local.contains_key(&address) || state.remote.contains(address, Instant::now())
    }

    /// The value of `already_connected` in a challenge for `address`.
    pub(crate) fn already_connected(&self, address: Address) -> bool {
        self.report_connected && self.contains(address)
    }

    /// The wallets that are signed in on all gateways, as far as the bus has reported them.
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

    /// Begins no more sessions, and tells those that live to come back elsewhere.
    ///
    /// The bus hears of no goodbye: they are back in a moment, and nobody else is to notice that they
    /// were away. Who does not come back falls silent.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.island_members.clear();
        state.by_network.clear();
        for live in std::mem::take(&mut state.local).into_values() {
            let _ = live.close_reason.set(Close::Restarting);
        }
    }

    /// Says that a session began, once more, unless that was said just now.
    fn reannounce(&self, address: Address, live: &mut LocalSession) {
        // In the other layout this would end it.
        if self.bus.subject_scheme() == SubjectScheme::CommsV3
            && live.announced_at.elapsed() >= ANNOUNCE_INTERVAL
        {
            live.announced_at = Instant::now();
            self.bus.publish(&Subject::PeerConnect(address), live.headers(), Bytes::new());
        }
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// Takes a session out.
    fn remove(&mut self, address: Address) -> Option<LocalSession> {
        let live = self.local.remove(&address)?;
        if let Some(count) = self.by_network.get_mut(&live.network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&live.network);
            }
        }
        self.remove_member(address, live.island.as_ref());
        Some(live)
    }

    /// Takes a session out that ends, and remembers that it can be resumed.
    fn end(&mut self, address: Address) {
        let ended = self.remove(address).map(|live| live.resumable());
        self.remember_ended(address, ended);
    }

    fn remember_ended(&mut self, address: Address, ended: Option<Resumable>) {
        if let Some(ended) = ended {
            self.recently_ended.add(address, ended, Instant::now());
        }
    }

    /// The session that the client of a new one proves to resume: the newest known session of its
    /// wallet, here or elsewhere, alive or just ended. A secret is used once, as the session that
    /// resumed another is newer, and has a secret of its own.
    fn session_resumed_by(&mut self, applicant: &SignInRequest) -> Option<SessionId> {
        let (address, presented) = (applicant.address, applicant.presented_hash?);
        let known = [
            self.local.get(&address).map(LocalSession::resumable),
            self.remote.resumable(address),
            self.recently_ended.get(address, Instant::now()),
        ];
        let newest = known.into_iter().flatten().max_by_key(|known| known.session)?;
        (newest.hash == Some(presented)).then_some(newest.session)
    }

    /// Notes which island a session was told of.
    fn enter_island(&mut self, address: Address, island: IslandId) {
        let Some(live) = self.local.get_mut(&address) else { return };
        let before = live.island.replace(island.clone());
        if before.as_ref() != Some(&island) {
            self.remove_member(address, before.as_ref());
            self.island_members.entry(island).or_default().insert(address);
        }
    }

    /// Notes that a session, if it is the one meant, is in this island no more.
    fn leave_island(&mut self, address: Address, session: Option<SessionId>, island: &IslandId) {
        let Some(live) = self.local.get_mut(&address) else { return };
        if session.is_none_or(|session| session == live.session) && live.island.as_ref() == Some(island) {
            live.island = None;
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
    /// What the bus is told with the word that it began.
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

    /// Ends it for a newer one, once what waits has been written.
    fn kick(self) {
        metrics::counter!("atoll_gateway_kicks_total").increment(1);
        // It has no other end yet: it was live until now.
        let _ = self.close_reason.set(Close::NewSession);
    }
}

#[cfg(test)]
mod tests {
    use protocol::subject;

    use super::*;
    use crate::settings::tests::settings;

    const PEER: Address = Address::new([1; 20]);

    /// No sessions, and never more than `max`.
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
        Arc::new(MemberChange { joined, topic, message: "who".into() })
    }

    fn island_change(number: u8) -> IslandChange {
        IslandChange { island: island(number), node: None, message: "where".into() }
    }

    fn network() -> Network {
        Network::from_ip(std::net::IpAddr::from([127, 0, 0, 1]), 64)
    }

    fn sign_in_request(address: Address) -> SignInRequest {
        SignInRequest::without_extensions(address)
    }

    /// The subjects that were published, and of which session.
    fn published(subscription: &mut bus::Subscription) -> Vec<(Subject, Option<SessionId>)> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|envelope| (envelope.subject().unwrap(), envelope.headers.session))
            .collect()
    }

    /// What a session finds waiting, and its end.
    async fn drain_messages(inbox: &mut SessionReceiver) -> (Vec<SessionMessage>, Option<Close>) {
        let mut all = Vec::new();
        loop {
            tokio::select! {
                biased;
                next = inbox.next() => match next {
                    Ok(told) => all.push(told),
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
        let (older, mut older_inbox) =
            sessions.begin(sign_in_request(PEER), network(), [[9; 16]; 2]).unwrap();
        let (newer, mut newer_inbox) =
            sessions.begin(sign_in_request(PEER), network(), [[1; 16]; 2]).unwrap();
        assert!(newer > older);
        assert_eq!(drain_messages(&mut older_inbox).await, (vec![], Some(Close::NewSession)));
        sessions.end(PEER, older);
        sessions.deliver_island_change(PEER, Some(older), island_change(1));
        sessions.deliver_island_change(PEER, Some(newer), island_change(2));
        let told = SessionMessage::IslandChanged(island_change(2));
        assert_eq!(drain_messages(&mut newer_inbox).await, (vec![told], None));
        sessions.end(PEER, newer);
        let connect = |session| (Subject::PeerConnect(PEER), Some(session));
        let expected = [connect(older), connect(newer), (Subject::PeerDisconnect(PEER), Some(newer))];
        assert_eq!(published(&mut events), expected);
        assert_eq!(sessions.count(), 0);
    }

    #[tokio::test]
    async fn remote_sign_in_ends_only_an_older_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (session, mut inbox) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        sessions.observe_session(PEER, session, None, None);
        sessions.observe_session(PEER, SessionId::new(1, 1), None, None);
        assert_eq!(sessions.count(), 1);
        let ahead = SessionId::new(1 << 45, 0);
        sessions.observe_session(PEER, ahead, None, None);
        assert_eq!(drain_messages(&mut inbox).await, (vec![], Some(Close::NewSession)));
        assert_eq!((sessions.count(), sessions.contains(PEER)), (0, true), "elsewhere");
        sessions.observe_end(PEER, Some(session));
        assert!(sessions.contains(PEER), "an older one ended");
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
        let (older, mut older_inbox) = there.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let transports = Some("p2p,ws-room".into());
        let applied = SignInRequest { transports: transports.clone(), ..sign_in_request(PEER) };
        let (newer, mut newer_inbox) = here.begin(applied, network(), [[0; 16]; 2]).unwrap();
        assert!(newer > older);
        let begun = events.try_next().unwrap();
        here.observe_session(PEER, older, None, None);
        assert_eq!(published(&mut events), [], "it was said just now");
        here.lock().local.get_mut(&PEER).unwrap().announced_at -= ANNOUNCE_INTERVAL;
        here.observe_session(PEER, newer, None, None);
        assert_eq!(published(&mut events), [], "its own");
        (0..3).for_each(|_| here.observe_session(PEER, older, None, None));
        let again = events.try_next().unwrap();
        assert_eq!((again.subject(), &again.headers), (begun.subject(), &begun.headers));
        assert_eq!(again.headers, Headers { transports, ..Headers::for_session(newer) });
        assert_eq!(published(&mut events), [], "once in a while");
        there.observe_session(PEER, again.headers.session.unwrap(), None, None);
        assert_eq!(drain_messages(&mut older_inbox).await, (vec![], Some(Close::NewSession)));
        assert_eq!(drain_messages(&mut newer_inbox).await, (vec![], None));
    }

    #[tokio::test]
    async fn newest_session_survives_across_gateways() {
        let bus = Bus::in_process();
        let gateways: Vec<_> = (0..3)
            .map(|_| {
                let heard = bus.subscribe("test", &[subject::PEER_CONNECTS], 1_024);
                (new_sessions(bus.clone(), 1_000, KeepSession::Newest), heard)
            })
            .collect();
        let wallets: Vec<Address> = (0..20).map(|number| Address::new([number; 20])).collect();
        // Each hears of the others only now and then.
        let begun: Vec<_> = std::thread::scope(|scope| {
            let race = |(sessions, mut heard): (SessionRegistry, bus::Subscription), seed: u8| {
                let mut inboxes = Vec::new();
                for round in 0..10 {
                    for &wallet in &wallets {
                        inboxes.push((
                            wallet,
                            sessions
                                .begin(sign_in_request(wallet), network(), [[seed ^ round; 16]; 2])
                                .unwrap(),
                        ));
                    }
                    observe_connects(&sessions, &mut heard);
                }
                (sessions, heard, inboxes)
            };
            let threads: Vec<_> = gateways
                .into_iter()
                .zip([7, 3, 5])
                .map(|(own, seed)| scope.spawn(move || race(own, seed)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (mut live, mut newest) = (HashMap::new(), HashMap::new());
        for (sessions, mut heard, inboxes) in begun {
            observe_connects(&sessions, &mut heard);
            for (wallet, (session, mut inbox)) in inboxes {
                newest
                    .entry(wallet)
                    .and_modify(|newest: &mut SessionId| *newest = session.max(*newest))
                    .or_insert(session);
                if crate::session_registry::tests::drain_messages(&mut inbox).await.1.is_none() {
                    assert_eq!(live.insert(wallet, session), None, "one of each");
                }
            }
        }
        assert_eq!(live, newest);
    }

    fn observe_connects(sessions: &SessionRegistry, heard: &mut bus::Subscription) {
        while let Some(envelope) = heard.try_next() {
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
        let (session, mut inbox) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        for _ in 0..=SESSION_QUEUE_MESSAGES {
            sessions.deliver_island_change(PEER, None, island_change(1));
        }
        assert_eq!(sessions.count(), 0);
        assert_eq!(published(&mut events), [(Subject::PeerDisconnect(PEER), Some(session))]);
        let (waiting, end) = drain_messages(&mut inbox).await;
        assert_eq!((waiting.len(), end), (SESSION_QUEUE_MESSAGES, Some(Close::TooSlow)));
        // With a full queue, too, the end says what it is.
        let (_, mut inbox) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        (0..SESSION_QUEUE_MESSAGES)
            .for_each(|_| sessions.deliver_island_change(PEER, None, island_change(1)));
        sessions.drain();
        assert_eq!(drain_messages(&mut inbox).await.1, Some(Close::Restarting));
        assert_eq!(published(&mut events), [], "it is expected back");
        assert_eq!(
            sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap_err(),
            Close::Restarting
        );
    }

    #[test]
    fn session_limit_holds_and_takeover_needs_no_slot() {
        let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Newest);
        let _inbox = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(
            sessions.begin(sign_in_request(Address::new([2; 20])), network(), [[0; 16]; 2]).unwrap_err(),
            Close::Full
        );
        assert!(sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).is_ok());
    }

    #[test]
    fn keep_oldest_rejects_newer_session_while_it_lives() {
        let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Oldest);
        let (oldest, inbox) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(
            sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap_err(),
            Close::AlreadySignedIn
        );
        drop(inbox);
        sessions.end(PEER, oldest);
        assert!(sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).is_ok());
    }

    #[tokio::test]
    async fn members_receive_member_changes_while_in_the_island() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let other = Address::new([2; 20]);
        let (_, mut inbox) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        let (_, mut others) = sessions.begin(sign_in_request(other), network(), [[0; 16]; 2]).unwrap();
        sessions.broadcast_member_change(&island(1), other, None, &member_change(true));
        sessions.deliver_island_change(PEER, None, island_change(1));
        sessions.broadcast_member_change(&island(1), other, None, &member_change(true));
        sessions.deliver_island_change(other, None, island_change(1));
        sessions.deliver_island_change(other, None, island_change(2));
        sessions.broadcast_member_change(&island(1), other, None, &member_change(false));
        let moved = |number| SessionMessage::IslandChanged(island_change(number));
        let members = [true, false].map(|joined| SessionMessage::MemberChanged(member_change(joined)));
        assert_eq!(drain_messages(&mut inbox).await.0, [&[moved(1)][..], &members].concat());
        assert_eq!(drain_messages(&mut others).await.0, [moved(1), moved(2)]);
        // Who is silent for the engine is gone for the others, and they for it.
        sessions.deliver_island_change(other, None, island_change(1));
        sessions.broadcast_member_change(&island(1), PEER, Some(SessionId::new(1, 1)), &member_change(false));
        assert_eq!(sessions.lock().island_members[&island(1)].len(), 2, "an older session is meant");
        sessions.broadcast_member_change(&island(1), PEER, None, &member_change(false));
        assert_eq!(drain_messages(&mut others).await.0.len(), 3);
        sessions.broadcast_member_change(&island(1), other, None, &member_change(false));
        assert_eq!(drain_messages(&mut inbox).await.0, []);
        let mut state = sessions.lock();
        for address in [PEER, other] {
            state.remove(address);
        }
        assert!(state.island_members.is_empty());
    }

    #[tokio::test]
    async fn member_changes_never_end_a_slow_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (_, mut inbox) = sessions.begin(sign_in_request(PEER), network(), [[0; 16]; 2]).unwrap();
        sessions.deliver_island_change(PEER, None, island_change(1));
        for _ in 0..2 * SESSION_QUEUE_MESSAGES {
            sessions.broadcast_member_change(&island(1), Address::new([2; 20]), None, &member_change(true));
        }
        sessions.deliver_island_change(PEER, None, island_change(2));
        let (told, end) = drain_messages(&mut inbox).await;
        assert_eq!((told.len(), end), (SESSION_QUEUE_MESSAGES - RESERVED_FOR_ISLAND_CHANGES + 1, None));
        assert_eq!(told.last(), Some(&SessionMessage::IslandChanged(island_change(2))));
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

    /// A client that announced extensions, and presents this secret.
    fn request_with_secret(secret: Option<[u8; 16]>) -> SignInRequest {
        let presented = secret.map(|secret| identity::ResumeSecret::new(secret).hash());
        SignInRequest { extensions: true, presented_hash: presented, ..sign_in_request(PEER) }
    }

    /// Begins a session with its own secret, and gives which older one it resumes.
    fn begin_with_secret(
        sessions: &SessionRegistry,
        secret: Option<[u8; 16]>,
        own: u8,
    ) -> (SessionId, Option<SessionId>, Headers) {
        let mut connects = sessions.bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
        let begun = sessions.begin(request_with_secret(secret), network(), [[0; 16], [own; 16]]);
        let (session, inbox) = begun.unwrap();
        let headers = connects.try_next().unwrap().headers;
        let resumes = inbox.resumption.unwrap().resumes;
        assert_eq!(headers.resumption().resumes, resumes);
        (session, resumes, headers)
    }

    #[test]
    fn resume_secret_is_valid_once_for_the_newest_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (first, resumed, _) = begin_with_secret(&sessions, None, 1);
        assert_eq!(resumed, None);
        assert_eq!(begin_with_secret(&sessions, Some([9; 16]), 2).1, None, "a wrong secret");
        assert_eq!(begin_with_secret(&sessions, Some([1; 16]), 3).1, None, "of an older session");
        let (third, ..) = begin_with_secret(&sessions, None, 4);
        let (fourth, resumed, _) = begin_with_secret(&sessions, Some([4; 16]), 5);
        assert_eq!(resumed, Some(third));
        assert!(first < third && third < fourth);
        assert_eq!(begin_with_secret(&sessions, Some([4; 16]), 6).1, None, "it was used");
        // A stock client has no secret, and its session ends what could be resumed.
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
        assert_eq!(begin_with_secret(&there, Some([3; 16]), 4).1, Some(third), "while it lives elsewhere");
    }

    #[test]
    fn session_without_extensions_has_no_resumption() {
        let bus = Bus::in_process();
        let mut connects = bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (session, inbox) = sessions.begin(sign_in_request(PEER), network(), [[7; 16]; 2]).unwrap();
        assert_eq!(Resumption::welcome(inbox.resumption), (Vec::new(), false));
        assert_eq!(connects.try_next().unwrap().headers, Headers::for_session(session));
    }
}
