use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bus::{Bus, Headers};
use bytes::Bytes;
use protocol::{Address, SessionId, Subject, UlidClock};
use tokio::sync::mpsc::{self, error::TrySendError};

/// What the rest of the process says to a session.
#[derive(Debug, Clone)]
pub(crate) enum ToSession {
    /// Write this encoded packet.
    Packet(Bytes),
    /// A newer session took over.
    Kicked,
    /// The server is about to stop.
    Restarting,
}

/// Messages that may wait for one session. At the bound the session ends: what it would miss is
/// where it belongs.
const SESSION_QUEUE: usize = 32;

/// Who is signed in here. For one address there is at most one session, the newest.
#[derive(Debug)]
pub(crate) struct Sessions {
    bus: Bus,
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
    queue: mpsc::Sender<ToSession>,
}

impl Sessions {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus, state: Mutex::default() }
    }

    /// Begins a session of `address`, in place of any older one, and says so on the bus. `None`
    /// when the process is about to stop.
    pub(crate) fn begin(
        &self,
        address: Address,
        random: [u8; 16],
    ) -> Option<(SessionId, mpsc::Receiver<ToSession>)> {
        let (queue, receiver) = mpsc::channel(SESSION_QUEUE);
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut state = self.lock();
        if state.draining {
            return None;
        }
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let session = SessionId::from(state.clock.mint(unix_ms, u128::from_le_bytes(random)));
        if let Some(older) = state.live.insert(address, Live { session, queue }) {
            older.kick();
        }
        // Within the lock, so that the bus hears of sessions in their order.
        self.bus.publish(&Subject::PeerConnect(address), Headers::of_session(session), Bytes::new());
        Some((session, receiver))
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

    /// Hands an encoded packet to the session of `address`, if it is the one meant.
    pub(crate) fn send(&self, address: Address, session: Option<SessionId>, packet: Bytes) {
        let mut state = self.lock();
        let Some(live) = state.live.get(&address) else { return };
        if session.is_some_and(|session| session != live.session) {
            return;
        }
        if let Err(TrySendError::Full(_)) = live.queue.try_send(ToSession::Packet(packet)) {
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
        for live in state.live.values() {
            // A session whose queue is full is about to end anyway.
            let _ = live.queue.try_send(ToSession::Restarting);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn kick(&self) {
        metrics::counter!("atoll_gateway_kicks_total").increment(1);
        // With the queue full it hears of its end from the queue.
        let _ = self.queue.try_send(ToSession::Kicked);
    }
}

#[cfg(test)]
mod tests {
    use protocol::subject;

    use super::*;

    const PEER: Address = Address::new([1; 20]);

    /// The subjects that were published, and of which session.
    fn published(subscription: &mut bus::Subscription) -> Vec<(Subject, Option<SessionId>)> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|envelope| (envelope.subject().unwrap(), envelope.headers.session))
            .collect()
    }

    #[test]
    fn the_newest_session_wins_and_a_late_goodbye_of_the_older_changes_nothing() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_CONNECTS, subject::PEER_DISCONNECTS], 16);
        let sessions = Sessions::new(bus);
        let (older, mut older_queue) = sessions.begin(PEER, [9; 16]).unwrap();
        let (newer, mut newer_queue) = sessions.begin(PEER, [1; 16]).unwrap();
        assert!(newer > older);
        assert!(matches!(older_queue.try_recv(), Ok(ToSession::Kicked)));
        sessions.end(PEER, older);
        sessions.send(PEER, Some(older), "for the older".into());
        sessions.send(PEER, Some(newer), "for the newer".into());
        assert!(matches!(newer_queue.try_recv(), Ok(ToSession::Packet(packet)) if packet == "for the newer"));
        assert!(newer_queue.try_recv().is_err());
        sessions.end(PEER, newer);
        let connect = |session| (Subject::PeerConnect(PEER), Some(session));
        let expected = [connect(older), connect(newer), (Subject::PeerDisconnect(PEER), Some(newer))];
        assert_eq!(published(&mut events), expected);
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn a_sign_in_elsewhere_ends_only_an_older_session() {
        let sessions = Sessions::new(Bus::in_process());
        let (session, mut queue) = sessions.begin(PEER, [0; 16]).unwrap();
        sessions.superseded(PEER, session);
        sessions.superseded(PEER, SessionId::new(1, 1));
        assert!(sessions.contains(PEER));
        let ahead = SessionId::new(1 << 45, 0);
        sessions.superseded(PEER, ahead);
        assert!(matches!(queue.try_recv(), Ok(ToSession::Kicked)));
        assert!(!sessions.contains(PEER));
        assert!(sessions.begin(PEER, [0; 16]).unwrap().0 > ahead, "minted above any that was seen");
    }

    #[test]
    fn a_session_that_does_not_read_ends() {
        let bus = Bus::in_process();
        let mut events = bus.subscribe("test", &[subject::PEER_DISCONNECTS], 16);
        let sessions = Sessions::new(bus);
        let (session, mut queue) = sessions.begin(PEER, [0; 16]).unwrap();
        for _ in 0..=SESSION_QUEUE {
            sessions.send(PEER, None, Bytes::new());
        }
        assert_eq!(sessions.count(), 0);
        assert_eq!(published(&mut events), [(Subject::PeerDisconnect(PEER), Some(session))]);
        let waiting = std::iter::from_fn(|| queue.try_recv().ok()).count();
        assert_eq!(waiting, SESSION_QUEUE);
        assert!(queue.is_closed());
    }
}
