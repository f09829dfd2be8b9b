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
    subject::Layout, unix_ms,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};

use crate::{
    KeepSession, Settings,
    elsewhere::Elsewhere,
    handshake::Applicant,
    resume::{RecentlyEnded, Resumable, Resumption},
};

/// What a session is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
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
pub(crate) struct Inbox {
    told: mpsc::Receiver<Told>,
    end: Arc<OnceLock<Close>>,
    /// Of the session, if its client announced extensions.
    pub(crate) resumption: Option<Resumption>,
}

impl Inbox {
    /// What to tell next, or why the session is over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Told, Close> {
        match self.told.recv().await {
            Some(told) => Ok(told),
            // Who let go of the queue without a word found it full.
            None => Err(self.end.get().copied().unwrap_or(Close::TooSlow)),
        }
    }
}

/// Messages that may wait for one session. At the bound the session ends: what it would miss is
/// where it belongs.
const SESSION_QUEUE: usize = 256;
/// How many of these are kept for changes of island: who joins and who leaves is dropped and
/// counted before that, as its room tells a client, too.
const KEPT_FOR_CHANGES: usize = 32;

/// How often the bus is told at most that a session is newer than another that lives elsewhere.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Who is signed in here. For one address there is at most one session, the newest.
#[derive(Debug)]
pub(crate) struct Sessions {
    bus: Bus,
    max: usize,
    max_per_network: Option<usize>,
    keep: KeepSession,
    tell_connected: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clock: UlidClock,
    live: HashMap<Address, Live>,
    /// How many sessions each network has.
    by_network: HashMap<Network, usize>,
    /// Who was told last of which island.
    islands: HashMap<IslandId, HashSet<Address>>,
    elsewhere: Elsewhere,
    recently_ended: RecentlyEnded,
    draining: bool,
}

#[derive(Debug)]
struct Live {
    session: SessionId,
    network: Network,
    /// When this is dropped, the session is over.
    queue: mpsc::Sender<Told>,
    /// The island that it was told of last.
    island: Option<IslandId>,
    end: Arc<OnceLock<Close>>,
    /// What its client can join, as it said.
    transports: Option<Arc<str>>,
    resumption: Option<Resumption>,
    /// When the bus last heard that it began.
    announced: Instant,
}

impl Sessions {
    /// No sessions yet.
    pub(crate) fn new(bus: Bus, settings: &Settings) -> Self {
        let Settings { max_sessions, max_sessions_per_network, keep_session, tell_connected, .. } = *settings;
        let Settings { idle_timeout, ping_interval, .. } = *settings;
        let state = State {
            clock: UlidClock::default(),
            live: HashMap::new(),
            by_network: HashMap::new(),
            islands: HashMap::new(),
            // Whoever never says where it stands is ended with a ping, as here.
            elsewhere: Elsewhere::new(idle_timeout + ping_interval),
            recently_ended: RecentlyEnded::default(),
            draining: false,
        };
        let (max, max_per_network, keep) = (max_sessions, max_sessions_per_network, keep_session);
        Self { bus, max, max_per_network, keep, tell_connected, state: Mutex::new(state) }
    }

    /// Begins a session of who applied, in place of any older one unless that is to be kept, and
    /// says so on the bus; or says why there is none. The random bytes go into its id, and into its
    /// resumption secret.
    pub(crate) fn begin(
        &self,
        applicant: Applicant,
        network: Network,
        random: [[u8; 16]; 2],
    ) -> Result<(SessionId, Inbox), Close> {
        let Applicant { address, extensions, .. } = applicant;
        let [random, secret] = random;
        let (queue, told) = mpsc::channel(SESSION_QUEUE);
        let end = Arc::new(OnceLock::new());
        let now_ms = unix_ms(SystemTime::now());
        let mut state = self.lock();
        if state.draining {
            return Err(Close::Restarting);
        }
        // Whoever takes over its own session needs no other.
        match (state.live.contains_key(&address), self.keep) {
            (true, KeepSession::Oldest) => return Err(Close::AlreadySignedIn),
            (false, _) if state.live.len() >= self.max => return Err(Close::Full),
            _ => {}
        }
        let of_network = state.by_network.get(&network).copied().unwrap_or_default();
        let replaces_own = state.live.get(&address).is_some_and(|older| older.network == network);
        if self.max_per_network.is_some_and(|max| of_network >= max) && !replaces_own {
            return Err(Close::Full);
        }
        let session = SessionId::from(state.clock.mint(now_ms, u128::from_le_bytes(random)));
        // Without headers no other gateway would know of the secret, and no director of sessions.
        let resumption = (extensions && self.bus.layout() == Layout::CommsV3)
            .then(|| Resumption::new(secret, state.resumed_by(&applicant)));
        if let Some(older) = state.remove(address) {
            older.kick();
        }
        let (announced, end_of_it) = (Instant::now(), end.clone());
        let transports = applicant.transports;
        let island = None;
        let live =
            Live { session, network, queue, island, end: end_of_it, transports, resumption, announced };
        // Within the lock, so that the bus hears of sessions in their order.
        let begun = match self.bus.layout() {
            Layout::CommsV3 => Subject::PeerConnect(address),
            // There nobody says so. But that what was before is over, wherever it was: then the first
            // heartbeat is answered.
            Layout::ArchipelagoWorkers => Subject::PeerDisconnect(address),
        };
        self.bus.publish(&begun, live.headers(), Bytes::new());
        *state.by_network.entry(network).or_default() += 1;
        state.live.insert(address, live);
        Ok((session, Inbox { told, end, resumption }))
    }

    /// Ends a session, and says so on the bus unless a newer one took over.
    pub(crate) fn end(&self, address: Address, session: SessionId) {
        let mut state = self.lock();
        if state.live.get(&address).is_some_and(|live| live.session == session) {
            state.end(address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::of_session(session), Bytes::new());
        }
    }

    /// A session of `address` was heard of, perhaps in this island: it began, or is alive. Where it is
    /// on another gateway, an older one here must go; and an older one there, which may not have heard
    /// that the one here began, as the bus was away: then it is said again.
    pub(crate) fn heard(
        &self,
        address: Address,
        session: SessionId,
        island: Option<IslandId>,
        hash: Option<ResumeHash>,
    ) {
        let mut state = self.lock();
        state.clock.observe(session);
        match state.live.get_mut(&address) {
            Some(own) if own.session >= session => {
                if own.session > session {
                    self.announce_again(address, own);
                }
                state.elsewhere.ended(address, Some(session));
            }
            own => {
                if own.is_some()
                    && let Some(older) = state.remove(address)
                {
                    older.kick();
                }
                state.elsewhere.heard(address, session, (island, hash), Instant::now());
            }
        }
    }

    /// A session of `address` ended, here or elsewhere; without one, whichever it was.
    pub(crate) fn ended(&self, address: Address, session: Option<SessionId>) {
        let mut state = self.lock();
        let ended = state.elsewhere.ended(address, session);
        state.remember(address, ended);
    }

    /// Whether the newest session of a wallet that is known is the one whose secret its client
    /// presents.
    pub(crate) fn can_resume(&self, applicant: &Applicant) -> bool {
        self.lock().resumed_by(applicant).is_some()
    }

    /// The director says that somebody joined an island, or left it.
    pub(crate) fn moved(&self, island: &IslandId, peer: Address, session: Option<SessionId>, joined: bool) {
        let mut state = self.lock();
        match joined {
            true => state.elsewhere.joined(peer, island, Instant::now()),
            false => {
                let ended = state.elsewhere.left(peer, session, island);
                state.remember(peer, ended);
            }
        }
    }

    /// Hands a change of island to the session of `address`, if it is the one meant.
    pub(crate) fn change_island(&self, address: Address, session: Option<SessionId>, change: IslandChange) {
        let mut state = self.lock();
        let Some(live) = state.live.get(&address) else { return };
        if session.is_some_and(|session| session != live.session) {
            return;
        }
        let island = change.island.clone();
        if let Err(TrySendError::Full(_)) = live.queue.try_send(Told::IslandChanged(change)) {
            metrics::counter!("atoll_gateway_slow_sessions_total").increment(1);
            let session = live.session;
            // The end of its queue tells the session why.
            state.end(address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::of_session(session), Bytes::new());
            return;
        }
        state.settle(address, island);
    }

    /// Tells the members of an island, all but `peer`, that it joined or left. Members are those who
    /// were told that they are: who comes at the same time learns of all others by that. Who left
    /// without being told of another island hears nothing of this one any more, either.
    pub(crate) fn change_member(
        &self,
        island: &IslandId,
        peer: Address,
        session: Option<SessionId>,
        change: &Arc<MemberChange>,
    ) {
        let mut state = self.lock();
        if !change.joined {
            state.unsettle(peer, session, island);
        }
        let members = state.islands.get(island).into_iter().flatten().filter(|&&member| member != peer);
        for live in members.filter_map(|member| state.live.get(member)) {
            let room = live.queue.capacity() > KEPT_FOR_CHANGES;
            if !room || live.queue.try_send(Told::MemberChanged(change.clone())).is_err() {
                metrics::counter!("atoll_gateway_member_changes_dropped_total").increment(1);
            }
        }
    }

    /// Whether `address` is signed in, here or elsewhere.
    pub(crate) fn contains(&self, address: Address) -> bool {
        let mut state = self.lock();
        state.live.contains_key(&address) || state.elsewhere.contains(address, Instant::now())
    }

    /// The value of `already_connected` in a challenge for `address`.
    pub(crate) fn reports_connected(&self, address: Address) -> bool {
        self.tell_connected && self.contains(address)
    }

    /// The wallets that are signed in on all gateways, as far as the bus has reported them.
    pub(crate) fn users_count(&self) -> usize {
        let mut state = self.lock();
        state.live.len() + state.elsewhere.count(Instant::now())
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().live.len()
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
        state.islands.clear();
        state.by_network.clear();
        for live in std::mem::take(&mut state.live).into_values() {
            let _ = live.end.set(Close::Restarting);
        }
    }

    /// Says that a session began, once more, unless that was said just now.
    fn announce_again(&self, address: Address, live: &mut Live) {
        // In the other layout this would end it.
        if self.bus.layout() == Layout::CommsV3 && live.announced.elapsed() >= ANNOUNCE_INTERVAL {
            live.announced = Instant::now();
            self.bus.publish(&Subject::PeerConnect(address), live.headers(), Bytes::new());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a session out.
    fn remove(&mut self, address: Address) -> Option<Live> {
        let live = self.live.remove(&address)?;
        if let Some(count) = self.by_network.get_mut(&live.network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&live.network);
            }
        }
        self.leave(address, live.island.as_ref());
        Some(live)
    }

    /// Takes a session out that ends, and remembers that it can be resumed.
    fn end(&mut self, address: Address) {
        let ended = self.remove(address).map(|live| live.resumable());
        self.remember(address, ended);
    }

    fn remember(&mut self, address: Address, ended: Option<Resumable>) {
        if let Some(ended) = ended {
            self.recently_ended.add(address, ended, Instant::now());
        }
    }

    /// The session that the client of a new one proves to resume: the newest known session of its
    /// wallet, here or elsewhere, alive or just ended. A secret is used once, as the session that
    /// resumed another is newer, and has a secret of its own.
    fn resumed_by(&mut self, applicant: &Applicant) -> Option<SessionId> {
        let (address, presented) = (applicant.address, applicant.presented?);
        let known = [
            self.live.get(&address).map(Live::resumable),
            self.elsewhere.resumable(address),
            self.recently_ended.get(address, Instant::now()),
        ];
        let newest = known.into_iter().flatten().max_by_key(|known| known.session)?;
        (newest.hash == Some(presented)).then_some(newest.session)
    }

    /// Notes which island a session was told of.
    fn settle(&mut self, address: Address, island: IslandId) {
        let Some(live) = self.live.get_mut(&address) else { return };
        let before = live.island.replace(island.clone());
        if before.as_ref() != Some(&island) {
            self.leave(address, before.as_ref());
            self.islands.entry(island).or_default().insert(address);
        }
    }

    /// Notes that a session, if it is the one meant, is in this island no more.
    fn unsettle(&mut self, address: Address, session: Option<SessionId>, island: &IslandId) {
        let Some(live) = self.live.get_mut(&address) else { return };
        if session.is_none_or(|session| session == live.session) && live.island.as_ref() == Some(island) {
            live.island = None;
            self.leave(address, Some(island));
        }
    }

    fn leave(&mut self, address: Address, island: Option<&IslandId>) {
        let Some(island) = island else { return };
        if let Some(members) = self.islands.get_mut(island) {
            members.remove(&address);
            if members.is_empty() {
                self.islands.remove(island);
            }
        }
    }
}

impl Live {
    /// What the bus is told with the word that it began.
    fn headers(&self) -> Headers {
        Headers {
            transports: self.transports.clone(),
            resumption: self.resumption.map(|own| Box::new(own.headers())),
            ..Headers::of_session(self.session)
        }
    }

    fn resumable(&self) -> Resumable {
        Resumable { session: self.session, hash: self.resumption.map(|own| own.hash) }
    }

    /// Ends it for a newer one, once what waits has been written.
    fn kick(self) {
        metrics::counter!("atoll_gateway_kicks_total").increment(1);
        // It has no other end yet: it was live until now.
        let _ = self.end.set(Close::NewSession);
    }
}

#[cfg(test)]
mod tests {
    use protocol::subject;

    use super::*;
    use crate::settings::tests::settings;

    const PEER: Address = Address::new([1; 20]);

    /// No sessions, and never more than `max`.
    fn new_sessions(bus: Bus, max_sessions: usize, keep_session: KeepSession) -> Sessions {
        Sessions::new(bus, &Settings { max_sessions, keep_session, ..settings() })
    }

    fn island(number: u8) -> IslandId {
        format!("I{number}").parse().unwrap()
    }

    fn change(joined: bool) -> Arc<MemberChange> {
        let subject = match joined {
            true => Subject::IslandPeerJoin(island(1)),
            false => Subject::IslandPeerLeft(island(1)),
        };
        let topic = subject.to_string().parse().unwrap();
        Arc::new(MemberChange { joined, topic, message: "who".into() })
    }

    fn moves(number: u8) -> IslandChange {
        IslandChange { island: island(number), node: None, message: "where".into() }
    }

    fn network() -> Network {
        Network::of(std::net::IpAddr::from([127, 0, 0, 1]), 64)
    }

    fn applicant(address: Address) -> Applicant {
        Applicant::stock(address)
    }

    /// The subjects that were published, and of which session.
    fn published(subscription: &mut bus::Subscription) -> Vec<(Subject, Option<SessionId>)> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|envelope| (envelope.subject().unwrap(), envelope.headers.session))
            .collect()
    }

    /// What a session finds waiting, and its end.
    async fn heard(inbox: &mut Inbox) -> (Vec<Told>, Option<Close>) {
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
    async fn the_newest_session_wins_and_a_late_goodbye_of_the_older_changes_nothing() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (older, mut older_inbox) = sessions.begin(applicant(PEER), network(), [[9; 16]; 2]).unwrap();
        let (newer, mut newer_inbox) = sessions.begin(applicant(PEER), network(), [[1; 16]; 2]).unwrap();
        assert!(newer > older);
        assert_eq!(heard(&mut older_inbox).await, (vec![], Some(Close::NewSession)));
        sessions.end(PEER, older);
        sessions.change_island(PEER, Some(older), moves(1));
        sessions.change_island(PEER, Some(newer), moves(2));
        let told = Told::IslandChanged(moves(2));
        assert_eq!(heard(&mut newer_inbox).await, (vec![told], None));
        sessions.end(PEER, newer);
        let connect = |session| (Subject::PeerConnect(PEER), Some(session));
        let expected = [connect(older), connect(newer), (Subject::PeerDisconnect(PEER), Some(newer))];
        assert_eq!(published(&mut events), expected);
        assert_eq!(sessions.count(), 0);
    }

    #[tokio::test]
    async fn a_sign_in_elsewhere_ends_only_an_older_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (session, mut inbox) = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        sessions.heard(PEER, session, None, None);
        sessions.heard(PEER, SessionId::new(1, 1), None, None);
        assert_eq!(sessions.count(), 1);
        let ahead = SessionId::new(1 << 45, 0);
        sessions.heard(PEER, ahead, None, None);
        assert_eq!(heard(&mut inbox).await, (vec![], Some(Close::NewSession)));
        assert_eq!((sessions.count(), sessions.contains(PEER)), (0, true), "elsewhere");
        sessions.ended(PEER, Some(session));
        assert!(sessions.contains(PEER), "an older one ended");
        sessions.ended(PEER, Some(ahead));
        assert!(!sessions.contains(PEER));
        assert!(
            sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap().0 > ahead,
            "minted above any that was seen"
        );
    }

    #[tokio::test]
    async fn a_session_that_another_gateway_missed_is_said_again_when_an_older_one_is_heard_of_there() {
        // Each bus is one side of an outage.
        let [there, here] = [(); 2].map(|()| Bus::in_process());
        let mut events = here.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let [there, here] = [there, here].map(|bus| new_sessions(bus, 9, KeepSession::Newest));
        let (older, mut older_inbox) = there.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let transports = Some("p2p,ws-room".into());
        let applied = Applicant { transports: transports.clone(), ..applicant(PEER) };
        let (newer, mut newer_inbox) = here.begin(applied, network(), [[0; 16]; 2]).unwrap();
        assert!(newer > older);
        let begun = events.try_next().unwrap();
        here.heard(PEER, older, None, None);
        assert_eq!(published(&mut events), [], "it was said just now");
        here.lock().live.get_mut(&PEER).unwrap().announced -= ANNOUNCE_INTERVAL;
        here.heard(PEER, newer, None, None);
        assert_eq!(published(&mut events), [], "its own");
        (0..3).for_each(|_| here.heard(PEER, older, None, None));
        let again = events.try_next().unwrap();
        assert_eq!((again.subject(), &again.headers), (begun.subject(), &begun.headers));
        assert_eq!(again.headers, Headers { transports, ..Headers::of_session(newer) });
        assert_eq!(published(&mut events), [], "once in a while");
        there.heard(PEER, again.headers.session.unwrap(), None, None);
        assert_eq!(heard(&mut older_inbox).await, (vec![], Some(Close::NewSession)));
        assert_eq!(heard(&mut newer_inbox).await, (vec![], None));
    }

    #[tokio::test]
    async fn of_a_wallets_sessions_on_many_gateways_the_newest_lives() {
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
            let race = |(sessions, mut heard): (Sessions, bus::Subscription), seed: u8| {
                let mut inboxes = Vec::new();
                for round in 0..10 {
                    for &wallet in &wallets {
                        inboxes.push((
                            wallet,
                            sessions.begin(applicant(wallet), network(), [[seed ^ round; 16]; 2]).unwrap(),
                        ));
                    }
                    hear_connects(&sessions, &mut heard);
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
            hear_connects(&sessions, &mut heard);
            for (wallet, (session, mut inbox)) in inboxes {
                newest
                    .entry(wallet)
                    .and_modify(|newest: &mut SessionId| *newest = session.max(*newest))
                    .or_insert(session);
                if super::tests::heard(&mut inbox).await.1.is_none() {
                    assert_eq!(live.insert(wallet, session), None, "one of each");
                }
            }
        }
        assert_eq!(live, newest);
    }

    fn hear_connects(sessions: &Sessions, heard: &mut bus::Subscription) {
        while let Some(envelope) = heard.try_next() {
            if let (Some(Subject::PeerConnect(peer)), Some(session)) =
                (envelope.subject(), envelope.headers.session)
            {
                sessions.heard(peer, session, None, None);
            }
        }
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_ends_and_one_that_is_kicked_then_hears_why() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_DISCONNECTS], 16);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (session, mut inbox) = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        for _ in 0..=SESSION_QUEUE {
            sessions.change_island(PEER, None, moves(1));
        }
        assert_eq!(sessions.count(), 0);
        assert_eq!(published(&mut events), [(Subject::PeerDisconnect(PEER), Some(session))]);
        let (waiting, end) = heard(&mut inbox).await;
        assert_eq!((waiting.len(), end), (SESSION_QUEUE, Some(Close::TooSlow)));
        // With a full queue, too, the end says what it is.
        let (_, mut inbox) = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        (0..SESSION_QUEUE).for_each(|_| sessions.change_island(PEER, None, moves(1)));
        sessions.drain();
        assert_eq!(heard(&mut inbox).await.1, Some(Close::Restarting));
        assert_eq!(published(&mut events), [], "it is expected back");
        assert_eq!(sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap_err(), Close::Restarting);
    }

    #[test]
    fn there_are_never_more_sessions_than_the_limit_and_taking_over_needs_none() {
        let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Newest);
        let _inbox = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(
            sessions.begin(applicant(Address::new([2; 20])), network(), [[0; 16]; 2]).unwrap_err(),
            Close::Full
        );
        assert!(sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).is_ok());
    }

    #[test]
    fn where_the_oldest_is_kept_a_newer_one_is_turned_away_while_it_lives() {
        let sessions = new_sessions(Bus::in_process(), 1, KeepSession::Oldest);
        let (oldest, inbox) = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(
            sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap_err(),
            Close::AlreadySignedIn
        );
        drop(inbox);
        sessions.end(PEER, oldest);
        assert!(sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).is_ok());
    }

    #[tokio::test]
    async fn members_hear_who_joins_and_leaves_while_they_are_members() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let other = Address::new([2; 20]);
        let (_, mut inbox) = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        let (_, mut others) = sessions.begin(applicant(other), network(), [[0; 16]; 2]).unwrap();
        sessions.change_member(&island(1), other, None, &change(true));
        sessions.change_island(PEER, None, moves(1));
        sessions.change_member(&island(1), other, None, &change(true));
        sessions.change_island(other, None, moves(1));
        sessions.change_island(other, None, moves(2));
        sessions.change_member(&island(1), other, None, &change(false));
        let moved = |number| Told::IslandChanged(moves(number));
        let members = [true, false].map(|joined| Told::MemberChanged(change(joined)));
        assert_eq!(heard(&mut inbox).await.0, [&[moved(1)][..], &members].concat());
        assert_eq!(heard(&mut others).await.0, [moved(1), moved(2)]);
        // Who is silent for the engine is gone for the others, and they for it.
        sessions.change_island(other, None, moves(1));
        sessions.change_member(&island(1), PEER, Some(SessionId::new(1, 1)), &change(false));
        assert_eq!(sessions.lock().islands[&island(1)].len(), 2, "an older session is meant");
        sessions.change_member(&island(1), PEER, None, &change(false));
        assert_eq!(heard(&mut others).await.0.len(), 3);
        sessions.change_member(&island(1), other, None, &change(false));
        assert_eq!(heard(&mut inbox).await.0, []);
        let mut state = sessions.lock();
        for address in [PEER, other] {
            state.remove(address);
        }
        assert!(state.islands.is_empty());
    }

    #[tokio::test]
    async fn who_joins_and_leaves_never_ends_a_session_that_reads_slowly() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (_, mut inbox) = sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        sessions.change_island(PEER, None, moves(1));
        for _ in 0..2 * SESSION_QUEUE {
            sessions.change_member(&island(1), Address::new([2; 20]), None, &change(true));
        }
        sessions.change_island(PEER, None, moves(2));
        let (told, end) = heard(&mut inbox).await;
        assert_eq!((told.len(), end), (SESSION_QUEUE - KEPT_FOR_CHANGES + 1, None));
        assert_eq!(told.last(), Some(&Told::IslandChanged(moves(2))));
    }

    #[test]
    fn what_a_client_can_join_goes_with_its_connect_and_nothing_else() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let transports = Some("p2p,ws-room".into());
        let begun = sessions.begin(
            Applicant { transports: transports.clone(), ..applicant(PEER) },
            network(),
            [[0; 16]; 2],
        );
        let (session, _) = begun.unwrap();
        sessions.end(PEER, session);
        let headers: Vec<Headers> =
            std::iter::from_fn(|| events.try_next()).map(|envelope| envelope.headers).collect();
        let connect = Headers { transports, ..Headers::of_session(session) };
        assert_eq!(headers, [connect, Headers::of_session(session)]);
    }

    /// A client that announced extensions, and presents this secret.
    fn resuming(secret: Option<[u8; 16]>) -> Applicant {
        let presented = secret.map(|secret| identity::ResumeSecret::new(secret).hash());
        Applicant { extensions: true, presented, ..applicant(PEER) }
    }

    /// Begins a session with its own secret, and gives which older one it resumes.
    fn resumes(
        sessions: &Sessions,
        secret: Option<[u8; 16]>,
        own: u8,
    ) -> (SessionId, Option<SessionId>, Headers) {
        let mut connects = sessions.bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
        let begun = sessions.begin(resuming(secret), network(), [[0; 16], [own; 16]]);
        let (session, inbox) = begun.unwrap();
        let headers = connects.try_next().unwrap().headers;
        let resumes = inbox.resumption.unwrap().resumes;
        assert_eq!(headers.resumption().resumes, resumes);
        (session, resumes, headers)
    }

    #[test]
    fn resume_secret_is_valid_once_for_the_newest_session() {
        let sessions = new_sessions(Bus::in_process(), 9, KeepSession::Newest);
        let (first, resumed, _) = resumes(&sessions, None, 1);
        assert_eq!(resumed, None);
        assert_eq!(resumes(&sessions, Some([9; 16]), 2).1, None, "a wrong secret");
        assert_eq!(resumes(&sessions, Some([1; 16]), 3).1, None, "of an older session");
        let (third, ..) = resumes(&sessions, None, 4);
        let (fourth, resumed, _) = resumes(&sessions, Some([4; 16]), 5);
        assert_eq!(resumed, Some(third));
        assert!(first < third && third < fourth);
        assert_eq!(resumes(&sessions, Some([4; 16]), 6).1, None, "it was used");
        // A stock client has no secret, and its session ends what could be resumed.
        sessions.begin(applicant(PEER), network(), [[0; 16]; 2]).unwrap();
        assert_eq!(resumes(&sessions, Some([6; 16]), 7).1, None);
    }

    #[test]
    fn ended_session_is_resumed_here_and_elsewhere() {
        let [there, here] = [(); 2].map(|()| new_sessions(Bus::in_process(), 9, KeepSession::Newest));
        let (first, _, headers) = resumes(&there, None, 1);
        here.heard(PEER, first, None, headers.resumption().hash);
        here.ended(PEER, Some(first));
        let (second, resumed, _) = resumes(&here, Some([1; 16]), 2);
        assert_eq!(resumed, Some(first));
        here.end(PEER, second);
        let (third, resumed, headers) = resumes(&here, Some([2; 16]), 3);
        assert_eq!(resumed, Some(second));
        there.heard(PEER, third, None, headers.resumption().hash);
        assert_eq!(resumes(&there, Some([3; 16]), 4).1, Some(third), "while it lives elsewhere");
    }

    #[test]
    fn stock_session_has_no_resumption() {
        let bus = Bus::in_process();
        let mut connects = bus.subscribe("test", &[subject::PEER_CONNECTS], 4);
        let sessions = new_sessions(bus, 9, KeepSession::Newest);
        let (session, inbox) = sessions.begin(applicant(PEER), network(), [[7; 16]; 2]).unwrap();
        assert_eq!(Resumption::welcome(inbox.resumption), (Vec::new(), false));
        assert_eq!(connects.try_next().unwrap().headers, Headers::of_session(session));
    }
}
