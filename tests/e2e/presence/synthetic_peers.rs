//! Synthetic peers without a gateway: their messages, and the director's report, are published on the
//! bus directly.

use std::time::{Duration, SystemTime};

use bus::{Bus, Credentials, Headers, NatsSettings};
use protocol::{
    Address, Message as _, Position, SessionId, Subject, subject,
    v3::{Heartbeat, IslandData, IslandStatusMessage},
};
use test_support::NatsServer;

/// The number of peers in one island.
const GROUP: usize = 20;
/// The distance between islands, in metres.
const APART_M: usize = 500;

pub(super) struct SyntheticPeers {
    bus: Bus,
    peers: Vec<(Address, SessionId, Position)>,
}

impl SyntheticPeers {
    /// Creates the peers. Nothing is published yet.
    pub(super) async fn new(server: &NatsServer, count: usize) -> Self {
        let settings = NatsSettings {
            servers: vec![server.url()],
            credentials: Credentials::None,
            ca_file: None,
            connect_timeout: Duration::from_secs(20),
            pattern_queue: None,
            lease_replicas: None,
            subject_scheme: subject::SubjectScheme::default(),
        };
        let bus = Bus::nats(settings).await.unwrap();
        let now = protocol::unix_ms(SystemTime::now());
        Self { bus, peers: (0..count).map(|index| peer(index, now)).collect() }
    }

    pub(super) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Publishes a sign-in of each peer.
    pub(super) fn publish_connects(&self) {
        for &(address, session, _) in &self.peers {
            self.bus.publish(&Subject::PeerConnect(address), Headers::for_session(session), Vec::new());
        }
    }

    /// Publishes heartbeats of some peers.
    pub(super) fn publish_heartbeats(&self, some: impl IntoIterator<Item = usize>) {
        for index in some {
            let (address, session, position) = self.peers[index];
            let heartbeat = Heartbeat { position: Some(position.into()), desired_room: None };
            let subject = Subject::PeerHeartbeat(address);
            self.bus.publish(&subject, Headers::for_session(session), heartbeat.encode_to_vec());
        }
    }

    /// Publishes a report of islands, in a realm without a director.
    pub(super) fn publish_report(&self) {
        let island = |(index, peers): (usize, &[(Address, SessionId, Position)])| IslandData {
            id: format!("I{index}"),
            peers: peers.iter().map(|(address, ..)| address.to_string()).collect(),
            max_peers: 100,
            ..IslandData::default()
        };
        let data = self.peers.chunks(GROUP).enumerate().map(island).collect();
        let report = IslandStatusMessage { data }.encode_to_vec();
        self.bus.publish(&Subject::EngineIslands, Headers::default(), report);
    }

    /// Waits until the bus has flushed all messages.
    pub(super) async fn flush(&self) {
        self.bus.flush().await;
    }
}

fn peer(index: usize, now: u64) -> (Address, SessionId, Position) {
    // Addresses without a pattern, like hashes, so that they do not compress better.
    let mut state = index as u64 + 1;
    let bytes = std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let group = index / GROUP;
    let x = 2_000 + group % 40 * APART_M;
    let z = 2_000 + group / 40 * APART_M;
    let position = Position::new(x as f32 + (index % GROUP) as f32 * 1.37, 1.0, z as f32 + 0.73);
    (Address::new(bytes), SessionId::new(now, index as u128), position)
}
