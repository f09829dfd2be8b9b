//! Gateways that exist only on the bus, and the room node that the director assigns to their peers.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use bus::{Bus, Credentials, Headers, NatsSettings};
use parking_lot::Mutex;
use protocol::{
    Message as _, NodeName, Subject, atoll_bus::TransportAnnouncement, subject, v3::IslandChangedMessage,
};
use tokio::{task::JoinSet, time};

use super::peers::{SimulatedPeers, parse_address};

/// The capacity of the queue of assignments, in messages.
const ASSIGNMENT_QUEUE: usize = 1 << 20;
const NODE: &str = "heartbeats-rooms";

/// A gateway without client sockets: it only publishes on the bus.
pub(super) struct SimulatedGateway {
    pub(super) bus: Bus,
    pub(super) peers: Mutex<SimulatedPeers>,
}

impl SimulatedGateway {
    /// Connects a gateway of these peers to the NATS server at this URL.
    pub(super) async fn connect(url: &str, peers: SimulatedPeers) -> Result<Self> {
        Ok(Self { bus: Bus::nats(nats_settings(url)).await?, peers: Mutex::new(peers) })
    }
}

fn nats_settings(url: &str) -> NatsSettings {
    NatsSettings {
        servers: vec![url.to_owned()],
        credentials: Credentials::None,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        pattern_queue: Some(ASSIGNMENT_QUEUE),
        lease_replicas: None,
        subject_scheme: subject::SubjectScheme::default(),
    }
}

/// Spawns the tasks that announce the node and receive assignments.
pub(super) async fn spawn_bus_tasks(gateways: &[Arc<SimulatedGateway>]) -> Result<JoinSet<()>> {
    let node: NodeName = NODE.parse()?;
    let mut tasks = JoinSet::new();
    let announcer = gateways[0].clone();
    tasks.spawn(async move {
        let announcement = TransportAnnouncement {
            node: node.to_string(),
            kind: "ws-room".to_owned(),
            public_url: "ws://127.0.0.1:9".to_owned(),
            max_island_size: 100,
            available_seats: -1,
            ..Default::default()
        };
        let mut ticks = time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let subject = Subject::TransportAnnounce(node.clone());
            announcer.bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
        }
    });
    // One task receives the assignments of all gateways, on a connection with no other subscription.
    let mut assignments =
        gateways[0].bus.subscribe("heartbeats", &[subject::PEER_ISLAND_CHANGES], ASSIGNMENT_QUEUE);
    gateways[0].bus.flush().await;
    let gateways = gateways.to_vec();
    tasks.spawn(async move {
        while let Some(envelope) = assignments.next().await {
            let Some(Subject::PeerIslandChanged(peer)) = envelope.subject() else { continue };
            let Ok(change) = IslandChangedMessage::decode(&envelope.payload[..]) else { continue };
            let Some((gateway, index)) = parse_address(peer) else { continue };
            if let Some(gateway) = gateways.get(gateway) {
                gateway.peers.lock().record_assignment(index, peer, &change, envelope.headers.node.as_ref());
            }
        }
    });
    Ok(tasks)
}
