use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bus::Envelope;
use protocol::{
    Address, Message as _, Position, SessionId, Subject,
    v3::{Heartbeat, IslandData, IslandStatusMessage},
};

/// The last word on each peer and island.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    peers: BTreeMap<Address, Peer>,
    islands: Option<(Vec<IslandData>, Instant)>,
    /// When the director last said that it is there.
    director: Option<Instant>,
    /// When a peer was last heard of.
    heard: Option<Instant>,
}

/// The last word on a peer.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) position: Position,
    /// Milliseconds since the Unix epoch.
    pub(crate) last_ping: u64,
    session: Option<SessionId>,
    heard: Instant,
}

impl Presence {
    /// Takes in a message from the bus; what does not decode changes nothing.
    pub(crate) fn hear(&mut self, envelope: &Envelope, now: Instant, unix_ms: u64) {
        let session = envelope.headers.session;
        match envelope.subject() {
            Some(Subject::PeerHeartbeat(address)) => {
                let Ok(heartbeat) = Heartbeat::decode(&envelope.payload[..]) else { return };
                let Ok(position) = Position::checked(heartbeat.position.as_ref(), f32::MAX) else { return };
                if self.is_current(address, session) {
                    let peer = Peer { position, last_ping: unix_ms, session, heard: now };
                    self.peers.insert(address, peer);
                    self.heard = Some(now);
                }
            }
            Some(Subject::PeerDisconnect(address)) if self.is_current(address, session) => {
                self.peers.remove(&address);
                self.heard = Some(now);
            }
            Some(Subject::PeerConnect(address)) => {
                if let Some(peer) = self.peers.get_mut(&address)
                    && session > peer.session
                {
                    peer.session = session;
                }
            }
            Some(Subject::EngineIslands) => {
                let Ok(report) = IslandStatusMessage::decode(&envelope.payload[..]) else { return };
                self.islands = Some((report.data, now));
            }
            Some(Subject::EngineDiscovery) => self.director = Some(now),
            _ => {}
        }
    }

    /// Whether a message of this session is about what holds now. Without a session, it is.
    fn is_current(&self, address: Address, session: Option<SessionId>) -> bool {
        session.is_none() || self.peers.get(&address).is_none_or(|peer| session >= peer.session)
    }

    /// Lets go of what has not been said again for too long.
    pub(crate) fn sweep(&mut self, peer_timeout: Duration, report_timeout: Duration, now: Instant) {
        self.peers.retain(|_, peer| now - peer.heard < peer_timeout);
        self.islands.take_if(|(_, at)| now - *at >= report_timeout);
        self.director.take_if(|at| now - *at >= report_timeout.max(Duration::from_secs(30)));
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (Address, &Peer)> {
        self.peers.iter().map(|(&address, peer)| (address, peer))
    }

    pub(crate) fn peer(&self, address: Address) -> Option<&Peer> {
        self.peers.get(&address)
    }

    pub(crate) fn islands(&self) -> &[IslandData] {
        self.islands.as_ref().map_or(&[], |(islands, _)| islands)
    }

    /// How old the report of the islands is.
    pub(crate) fn islands_age(&self, now: Instant) -> Option<Duration> {
        self.islands.as_ref().map(|(_, at)| now - *at)
    }

    /// How long ago a peer was last heard of.
    pub(crate) fn peers_age(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|at| now - at)
    }

    pub(crate) fn has_director(&self) -> bool {
        self.director.is_some()
    }
}

#[cfg(test)]
mod tests {
    use bus::{Bus, Headers};

    use super::*;

    const PEER: Address = Address::new([1; 20]);
    const SECOND: Duration = Duration::from_secs(1);

    /// A presence that has heard these messages.
    fn presence(messages: &[(Subject, Option<SessionId>, Vec<u8>)], now: Instant) -> Presence {
        let bus = Bus::in_process();
        let mut subscription = bus.subscribe("test", &[">"], 64);
        let mut presence = Presence::default();
        for (subject, session, payload) in messages {
            bus.publish(subject, Headers { session: *session, ..Headers::default() }, payload.clone());
            presence.hear(&subscription.try_next().unwrap(), now, 1_000);
        }
        presence
    }

    fn heartbeat(x: f32) -> Vec<u8> {
        Heartbeat { position: Some(Position::new(x, 0.0, 0.0).into()), desired_room: None }.encode_to_vec()
    }

    #[test]
    fn the_newest_session_has_the_last_word() {
        let (old, new) = (Some(SessionId::new(1, 0)), Some(SessionId::new(2, 0)));
        let presence = presence(
            &[
                (Subject::PeerHeartbeat(PEER), old, heartbeat(1.0)),
                (Subject::PeerHeartbeat(PEER), new, heartbeat(2.0)),
                (Subject::PeerHeartbeat(PEER), old, heartbeat(3.0)),
                (Subject::PeerDisconnect(PEER), old, Vec::new()),
                (Subject::PeerHeartbeat(PEER), new, b"noise".to_vec()),
                (Subject::PeerHeartbeat(PEER), new, heartbeat(f32::NAN)),
            ],
            Instant::now(),
        );
        assert_eq!(presence.peer(PEER).unwrap().position.x, 2.0);
        let gone = Subject::PeerDisconnect(PEER);
        let heard = self::presence(
            &[(Subject::PeerHeartbeat(PEER), old, heartbeat(1.0)), (gone, None, Vec::new())],
            Instant::now(),
        );
        assert!(heard.peer(PEER).is_none(), "a message without a session counts as current");
    }

    #[test]
    fn what_is_not_said_again_expires() {
        let now = Instant::now();
        let report = IslandStatusMessage { data: vec![IslandData::default()] }.encode_to_vec();
        let mut presence = presence(
            &[
                (Subject::PeerHeartbeat(PEER), None, heartbeat(1.0)),
                (Subject::EngineIslands, None, report),
                (Subject::EngineDiscovery, None, Vec::new()),
            ],
            now,
        );
        presence.sweep(10 * SECOND, 5 * SECOND, now + 4 * SECOND);
        assert_eq!((presence.peers().count(), presence.islands().len()), (1, 1));
        presence.sweep(10 * SECOND, 5 * SECOND, now + 5 * SECOND);
        assert_eq!((presence.peers().count(), presence.islands().len()), (1, 0));
        presence.sweep(10 * SECOND, 5 * SECOND, now + 10 * SECOND);
        assert_eq!((presence.peers().count(), presence.has_director()), (0, true));
        presence.sweep(10 * SECOND, 5 * SECOND, now + 30 * SECOND);
        assert!(!presence.has_director());
    }
}
