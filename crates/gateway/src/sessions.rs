use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bus::{Bus, Headers};
use bytes::Bytes;
use protocol::{Address, Close, SessionId, Subject, UlidClock};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::handshake::Applicant;

/// The receiving end of a session: changes of island to tell, then why it is over.
#[derive(Debug)]
pub(crate) struct Inbox {
    changes: mpsc::Receiver<Bytes>,
    end: Arc<OnceLock<Close>>,
}

impl Inbox {
    /// The next `IslandChangedMessage`, encoded, or why the session is over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Close> {
        match self.changes.recv().await {
            Some(change) => Ok(change),
            // Who let go of the queue without a word found it full.
            None => Err(self.end.get().copied().unwrap_or(Close::TooSlow)),
        }
    }
}

/// Messages that may wait for one session. At the bound the session ends: what it would miss is
/// where it belongs.
const SESSION_QUEUE: usize = 32;

/// Who is signed in here. For one address there is at most one session, the newest.
#[derive(Debug)]
pub(crate) struct Sessions {
    bus: Bus,
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clock: UlidClock,
    live: HashMap<Address, Live>,
    draining: bool,
}

#[derive(Debug)]
struct Live {
    session: SessionId,
    /// When this is dropped, the session is over.
    queue: mpsc::Sender<Bytes>,
    end: Arc<OnceLock<Close>>,
}

impl Sessions {
    /// No sessions yet, and never more than `max`.
    pub(crate) fn new(bus: Bus, max: usize) -> Self {
        Self { bus, max, state: Mutex::default() }
    }

    /// Begins a session of who applied, in place of any older one, and says so on the bus; or says
    /// why there is none.
    pub(crate) fn begin(&self, applicant: Applicant, random: [u8; 16]) -> Result<(SessionId, Inbox), Close> {
        let Applicant { address, transports } = applicant;
        let (queue, changes) = mpsc::channel(SESSION_QUEUE);
        let end = Arc::new(OnceLock::new());
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut state = self.lock();
        if state.draining {
            return Err(Close::Restarting);
        }
        // Whoever takes over its own session needs no other.
        if state.live.len() >= self.max && !state.live.contains_key(&address) {
            return Err(Close::Full);
        }
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let session = SessionId::from(state.clock.mint(unix_ms, u128::from_le_bytes(random)));
        let live = Live { session, queue, end: end.clone() };
        if let Some(older) = state.live.insert(address, live) {
            older.kick();
        }
        // Within the lock, so that the bus hears of sessions in their order.
        let headers = Headers { session: Some(session), transports };
        self.bus.publish(&Subject::PeerConnect(address), headers, Bytes::new());
        Ok((session, Inbox { changes, end }))
    }

    /// Ends a session, and says so on the bus unless a newer one took over.
    pub(crate) fn end(&self, address: Address, session: SessionId) {
        let mut state = self.lock();
        if state.live.get(&address).is_some_and(|live| live.session == session) {
            state.live.remove(&address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::of_session(session), Bytes::new());
        }
    }

    /// Another gateway signed `address` in: an older session here must go.
    pub(crate) fn superseded(&self, address: Address, session: SessionId) {
        let mut state = self.lock();
        state.clock.observe(session);
        if state.live.get(&address).is_some_and(|live| live.session < session)
            && let Some(older) = state.live.remove(&address)
        {
            older.kick();
        }
    }

    /// Hands an encoded `IslandChangedMessage` to the session of `address`, if it is the one meant.
    pub(crate) fn send(&self, address: Address, session: Option<SessionId>, change: Bytes) {
        let mut state = self.lock();
        let Some(live) = state.live.get(&address) else { return };
        if session.is_some_and(|session| session != live.session) {
            return;
        }
        if let Err(TrySendError::Full(_)) = live.queue.try_send(change) {
            metrics::counter!("atoll_gateway_slow_sessions_total").increment(1);
            let session = live.session;
            // The end of its queue tells the session why.
            state.live.remove(&address);
            self.bus.publish(&Subject::PeerDisconnect(address), Headers::of_session(session), Bytes::new());
        }
    }

    /// Whether `address` is signed in.
    pub(crate) fn contains(&self, address: Address) -> bool {
        self.lock().live.contains_key(&address)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().live.len()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Begins no more sessions, and tells those that live to come back elsewhere.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        for (address, live) in std::mem::take(&mut state.live) {
            let _ = live.end.set(Close::Restarting);
            let headers = Headers::of_session(live.session);
            self.bus.publish(&Subject::PeerDisconnect(address), headers, Bytes::new());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
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

    const PEER: Address = Address::new([1; 20]);

    fn applicant(address: Address) -> Applicant {
        Applicant { address, transports: None }
    }

    /// The subjects that were published, and of which session.
    fn published(subscription: &mut bus::Subscription) -> Vec<(Subject, Option<SessionId>)> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|envelope| (envelope.subject().unwrap(), envelope.headers.session))
            .collect()
    }

    /// What a session finds waiting, and its end.
    async fn heard(inbox: &mut Inbox) -> (Vec<Bytes>, Option<Close>) {
        let mut packets = Vec::new();
        loop {
            tokio::select! {
                biased;
                next = inbox.next() => match next {
                    Ok(packet) => packets.push(packet),
                    Err(close) => return (packets, Some(close)),
                },
                () = tokio::task::yield_now() => return (packets, None),
            }
        }
    }

    #[tokio::test]
    async fn the_newest_session_wins_and_a_late_goodbye_of_the_older_changes_nothing() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = Sessions::new(bus, 9);
        let (older, mut older_inbox) = sessions.begin(applicant(PEER), [9; 16]).unwrap();
        let (newer, mut newer_inbox) = sessions.begin(applicant(PEER), [1; 16]).unwrap();
        assert!(newer > older);
        assert_eq!(heard(&mut older_inbox).await, (vec![], Some(Close::NewSession)));
        sessions.end(PEER, older);
        sessions.send(PEER, Some(older), "for the older".into());
        sessions.send(PEER, Some(newer), "for the newer".into());
        assert_eq!(heard(&mut newer_inbox).await, (vec!["for the newer".into()], None));
        sessions.end(PEER, newer);
        let connect = |session| (Subject::PeerConnect(PEER), Some(session));
        let expected = [connect(older), connect(newer), (Subject::PeerDisconnect(PEER), Some(newer))];
        assert_eq!(published(&mut events), expected);
        assert_eq!(sessions.count(), 0);
    }

    #[tokio::test]
    async fn a_sign_in_elsewhere_ends_only_an_older_session() {
        let sessions = Sessions::new(Bus::in_process(), 9);
        let (session, mut inbox) = sessions.begin(applicant(PEER), [0; 16]).unwrap();
        sessions.superseded(PEER, session);
        sessions.superseded(PEER, SessionId::new(1, 1));
        assert!(sessions.contains(PEER));
        let ahead = SessionId::new(1 << 45, 0);
        sessions.superseded(PEER, ahead);
        assert_eq!(heard(&mut inbox).await, (vec![], Some(Close::NewSession)));
        assert!(!sessions.contains(PEER));
        assert!(
            sessions.begin(applicant(PEER), [0; 16]).unwrap().0 > ahead,
            "minted above any that was seen"
        );
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_ends_and_one_that_is_kicked_then_hears_why() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_DISCONNECTS], 16);
        let sessions = Sessions::new(bus, 9);
        let (session, mut inbox) = sessions.begin(applicant(PEER), [0; 16]).unwrap();
        for _ in 0..=SESSION_QUEUE {
            sessions.send(PEER, None, Bytes::new());
        }
        assert_eq!(sessions.count(), 0);
        assert_eq!(published(&mut events), [(Subject::PeerDisconnect(PEER), Some(session))]);
        let (waiting, end) = heard(&mut inbox).await;
        assert_eq!((waiting.len(), end), (SESSION_QUEUE, Some(Close::TooSlow)));
        // With a full queue, too, the end says what it is.
        let (_, mut inbox) = sessions.begin(applicant(PEER), [0; 16]).unwrap();
        (0..SESSION_QUEUE).for_each(|_| sessions.send(PEER, None, Bytes::new()));
        sessions.drain();
        assert_eq!(heard(&mut inbox).await.1, Some(Close::Restarting));
        assert_eq!(sessions.begin(applicant(PEER), [0; 16]).unwrap_err(), Close::Restarting);
    }

    #[test]
    fn there_are_never_more_sessions_than_the_limit_and_taking_over_needs_none() {
        let sessions = Sessions::new(Bus::in_process(), 1);
        let _inbox = sessions.begin(applicant(PEER), [0; 16]).unwrap();
        assert_eq!(sessions.begin(applicant(Address::new([2; 20])), [0; 16]).unwrap_err(), Close::Full);
        assert!(sessions.begin(applicant(PEER), [0; 16]).is_ok());
    }
    #[test]
    fn what_a_client_can_join_goes_with_its_connect_and_nothing_else() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = Sessions::new(bus, 9);
        let transports = Some("p2p,ws-room".into());
        let begun = sessions.begin(Applicant { address: PEER, transports: transports.clone() }, [0; 16]);
        let (session, _) = begun.unwrap();
        sessions.end(PEER, session);
        let headers: Vec<Headers> =
            std::iter::from_fn(|| events.try_next()).map(|envelope| envelope.headers).collect();
        let connect = Headers { session: Some(session), transports };
        assert_eq!(headers, [connect, Headers::of_session(session)]);
    }
}
