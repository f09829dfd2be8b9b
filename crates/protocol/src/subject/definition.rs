//! Every subject: its text, its pattern and its properties. A new subject is defined in this file. If
//! archipelago-workers renames or omits it, `scheme.rs` has to be changed too.

use std::{fmt, str::FromStr};

use crate::{Address, IslandId, NodeName, SceneTopic, SystemTopic, Topic};

/// A subject of the bus. Each variant documents its publisher and its payload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `peer.<id>.connect`, published by gateways: empty.
    PeerConnect(Address),
    /// `peer.<id>.heartbeat`, published by gateways: [`crate::v3::Heartbeat`].
    PeerHeartbeat(Address),
    /// `peer.<id>.disconnect`, published by gateways: empty.
    PeerDisconnect(Address),
    /// `peer.<id>.island_changed`, published by the director: [`crate::v3::IslandChangedMessage`].
    PeerIslandChanged(Address),
    /// `peer.<id>.cluster_change`, published by an external service that groups peers instead of the
    /// director's engine: [`crate::v3::ClusterChangeMessage`].
    PeerClusterChange(Address),
    /// `island.<id>.peer_join`, published by the director: [`crate::v3::JoinIslandMessage`].
    IslandPeerJoin(IslandId),
    /// `island.<id>.peer_left`, published by the director: [`crate::v3::LeftIslandMessage`].
    IslandPeerLeft(IslandId),
    /// `client-proto.peer.<address>.<topic>`, from clients; published by the gateway that authenticated the
    /// address. The payload is the client's bytes.
    PeerTopic(Address, Topic),
    /// `client-proto.<topic>`, published by servers. The payload is the server's bytes.
    SystemTopic(SystemTopic),
    /// `messageBus.scene.<scene>.<topic>`, from clients (published by the gateway that authenticated them)
    /// and from third-party servers. The payload is the publisher's bytes.
    SceneTopic(SceneTopic),
    /// `engine.islands`, published by the director: [`crate::v3::IslandStatusMessage`].
    EngineIslands,
    /// `engine.discovery`, published by services: [`crate::v3::ServiceDiscoveryMessage`].
    EngineDiscovery,
    /// `atoll.transport.<node>.announce`, published by nodes: [`crate::atoll_bus::TransportAnnouncement`].
    TransportAnnounce(NodeName),
    /// `atoll.island.<id>.ended`, published by the director: [`crate::atoll_bus::MembershipEnded`].
    MembershipEnded(IslandId),
    /// `atoll.mesh.<id>.signal`, published by the gateway of another member of the mesh of the peer:
    /// [`crate::mesh::Signal`].
    MeshSignal(Address),
    /// `atoll.mesh.<id>.links`, published by the gateway of the peer: [`crate::mesh::LinkReport`].
    MeshLinks(Address),
    /// `atoll.mesh.<id>.plan`, published by the director: [`crate::mesh::Plan`].
    MeshPlan(Address),
    /// `atoll.mesh.<id>.ice`, published by the director: ICE servers, as the parameter `ice` of a p2p connection
    /// string.
    MeshIceServers(Address),
    /// `atoll.peers.wanted`, published by a component that needs the present peers, such as a new director:
    /// empty. Each gateway answers with a heartbeat of each of its clients, spread over
    /// [`REPUBLISH_SPREAD`](crate::timing::REPUBLISH_SPREAD).
    PeersWanted,
}

/// Matches every `peer.<id>.connect`.
pub const PEER_CONNECTS: &str = "peer.*.connect";
/// Matches every `peer.<id>.heartbeat`.
pub const PEER_HEARTBEATS: &str = "peer.*.heartbeat";
/// Matches every `peer.<id>.disconnect`.
pub const PEER_DISCONNECTS: &str = "peer.*.disconnect";
/// Matches every `peer.<id>.island_changed`.
pub const PEER_ISLAND_CHANGES: &str = "peer.*.island_changed";
/// Matches every `peer.<id>.cluster_change`.
pub const PEER_CLUSTER_CHANGES: &str = "peer.*.cluster_change";
/// Matches every `island.<id>.peer_join`.
pub const ISLAND_PEER_JOINS: &str = "island.*.peer_join";
/// Matches every `island.<id>.peer_left`.
pub const ISLAND_PEER_LEAVES: &str = "island.*.peer_left";
/// Matches every message on a topic, from peers and from servers.
pub const TOPICS: &str = "client-proto.>";
/// Matches every message on a topic of a scene.
pub const SCENE_TOPICS: &str = "messageBus.scene.>";
/// Matches the report of all islands.
pub const ENGINE_ISLANDS: &str = "engine.islands";
/// Matches the announcements of services.
pub const ENGINE_DISCOVERY: &str = "engine.discovery";
/// Matches every `atoll.transport.<node>.announce`.
pub const TRANSPORT_ANNOUNCEMENTS: &str = "atoll.transport.*.announce";
/// Matches every `atoll.island.<id>.ended`.
pub const MEMBERSHIP_ENDS: &str = "atoll.island.*.ended";
/// Matches every `atoll.mesh.<id>.signal`.
pub const MESH_SIGNALS: &str = "atoll.mesh.*.signal";
/// Matches every `atoll.mesh.<id>.links`.
pub const MESH_LINKS: &str = "atoll.mesh.*.links";
/// Matches every `atoll.mesh.<id>.plan`.
pub const MESH_PLANS: &str = "atoll.mesh.*.plan";
/// Matches every `atoll.mesh.<id>.ice`.
pub const MESH_ICE_SERVERS: &str = "atoll.mesh.*.ice";
/// Matches the requests for a heartbeat of every peer.
pub const PEERS_WANTED: &str = "atoll.peers.wanted";

const PEER_TOPIC_PREFIX: &str = "client-proto.peer.";
const SYSTEM_TOPIC_PREFIX: &str = "client-proto.";
const SCENE_TOPIC_PREFIX: &str = "messageBus.scene.";

/// The error of parsing a [`Subject`]: the subject is unknown to this project, or an id in it is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known subject")]
pub struct SubjectError;

/// The properties of the messages on a subject.
struct Properties {
    from_director: bool,
    survives_disconnect: bool,
    archipelago_workers: bool,
}

impl Subject {
    fn properties(&self) -> Properties {
        match self {
            Self::PeerConnect(_) | Self::PeerDisconnect(_) | Self::PeerClusterChange(_) => {
                Properties { from_director: false, survives_disconnect: true, archipelago_workers: true }
            }
            Self::PeerHeartbeat(_) => {
                Properties { from_director: false, survives_disconnect: false, archipelago_workers: true }
            }
            Self::PeerIslandChanged(_) | Self::IslandPeerJoin(_) | Self::IslandPeerLeft(_) => {
                Properties { from_director: true, survives_disconnect: true, archipelago_workers: true }
            }
            Self::EngineIslands | Self::EngineDiscovery => {
                Properties { from_director: true, survives_disconnect: false, archipelago_workers: true }
            }
            Self::MembershipEnded(_) => {
                Properties { from_director: true, survives_disconnect: true, archipelago_workers: false }
            }
            Self::MeshPlan(_) | Self::MeshIceServers(_) => {
                Properties { from_director: true, survives_disconnect: false, archipelago_workers: false }
            }
            Self::PeerTopic(..)
            | Self::SystemTopic(_)
            | Self::SceneTopic(_)
            | Self::TransportAnnounce(_)
            | Self::MeshSignal(_)
            | Self::MeshLinks(_)
            | Self::PeersWanted => {
                Properties { from_director: false, survives_disconnect: false, archipelago_workers: false }
            }
        }
    }

    /// Whether only directors publish on this subject.
    pub fn is_from_director(&self) -> bool {
        self.properties().from_director
    }

    /// Whether a message on this subject is still valid after the bus was disconnected, so that the bus
    /// queues it until then. This holds for events that are published once. Periodic messages (heartbeats,
    /// announcements, reports) are stale by then, and messages on topics are delivered in time or not at all.
    pub fn survives_disconnect(&self) -> bool {
        self.properties().survives_disconnect
    }

    /// Whether the services that are deployed as archipelago-workers define this subject, or one in its place.
    pub(super) fn is_in_archipelago_workers(&self) -> bool {
        self.properties().archipelago_workers
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerConnect(peer) => write!(f, "peer.{peer}.connect"),
            Self::PeerHeartbeat(peer) => write!(f, "peer.{peer}.heartbeat"),
            Self::PeerDisconnect(peer) => write!(f, "peer.{peer}.disconnect"),
            Self::PeerIslandChanged(peer) => write!(f, "peer.{peer}.island_changed"),
            Self::PeerClusterChange(peer) => write!(f, "peer.{peer}.cluster_change"),
            Self::IslandPeerJoin(island) => write!(f, "island.{island}.peer_join"),
            Self::IslandPeerLeft(island) => write!(f, "island.{island}.peer_left"),
            Self::PeerTopic(peer, topic) => write!(f, "{PEER_TOPIC_PREFIX}{peer}.{topic}"),
            Self::SystemTopic(topic) => write!(f, "{SYSTEM_TOPIC_PREFIX}{topic}"),
            Self::SceneTopic(topic) => write!(f, "{topic}"),
            Self::EngineIslands => f.write_str(ENGINE_ISLANDS),
            Self::EngineDiscovery => f.write_str(ENGINE_DISCOVERY),
            Self::TransportAnnounce(node) => write!(f, "atoll.transport.{node}.announce"),
            Self::MembershipEnded(island) => write!(f, "atoll.island.{island}.ended"),
            Self::MeshSignal(peer) => write!(f, "atoll.mesh.{peer}.signal"),
            Self::MeshLinks(peer) => write!(f, "atoll.mesh.{peer}.links"),
            Self::MeshPlan(peer) => write!(f, "atoll.mesh.{peer}.plan"),
            Self::MeshIceServers(peer) => write!(f, "atoll.mesh.{peer}.ice"),
            Self::PeersWanted => f.write_str(PEERS_WANTED),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        fn id<T: FromStr>(text: &str) -> Result<T, SubjectError> {
            text.parse().map_err(|_| SubjectError)
        }
        if let Some(rest) = text.strip_prefix(PEER_TOPIC_PREFIX) {
            let (peer, topic) = rest.split_once('.').ok_or(SubjectError)?;
            return Ok(Self::PeerTopic(id(peer)?, id(topic)?));
        }
        if let Some(topic) = text.strip_prefix(SYSTEM_TOPIC_PREFIX) {
            return id(topic).map(Self::SystemTopic);
        }
        if text.starts_with(SCENE_TOPIC_PREFIX) {
            return id(text).map(Self::SceneTopic);
        }
        let segments: Vec<&str> = text.split('.').collect();
        Ok(match segments[..] {
            ["peer", peer, "connect"] => Self::PeerConnect(id(peer)?),
            ["peer", peer, "heartbeat"] => Self::PeerHeartbeat(id(peer)?),
            ["peer", peer, "disconnect"] => Self::PeerDisconnect(id(peer)?),
            ["peer", peer, "island_changed"] => Self::PeerIslandChanged(id(peer)?),
            ["peer", peer, "cluster_change"] => Self::PeerClusterChange(id(peer)?),
            ["island", island, "peer_join"] => Self::IslandPeerJoin(id(island)?),
            ["island", island, "peer_left"] => Self::IslandPeerLeft(id(island)?),
            ["engine", "islands"] => Self::EngineIslands,
            ["engine", "discovery"] => Self::EngineDiscovery,
            ["atoll", "transport", node, "announce"] => Self::TransportAnnounce(id(node)?),
            ["atoll", "island", island, "ended"] => Self::MembershipEnded(id(island)?),
            ["atoll", "mesh", peer, "signal"] => Self::MeshSignal(id(peer)?),
            ["atoll", "mesh", peer, "links"] => Self::MeshLinks(id(peer)?),
            ["atoll", "mesh", peer, "plan"] => Self::MeshPlan(id(peer)?),
            ["atoll", "mesh", peer, "ice"] => Self::MeshIceServers(id(peer)?),
            ["atoll", "peers", "wanted"] => Self::PeersWanted,
            _ => return Err(SubjectError),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::subject::matches;

    /// A message on each subject with these ids, and the pattern that matches it. `None` if one is malformed.
    pub(in crate::subject) fn examples(
        peer: Address,
        id: &str,
        topic: &str,
    ) -> Option<Vec<(Subject, &'static str)>> {
        let island: IslandId = id.parse().ok()?;
        let scene_topic = format!("messageBus.scene.{id}.{topic}").parse().ok()?;
        Some(vec![
            (Subject::PeerConnect(peer), PEER_CONNECTS),
            (Subject::PeerHeartbeat(peer), PEER_HEARTBEATS),
            (Subject::PeerDisconnect(peer), PEER_DISCONNECTS),
            (Subject::PeerIslandChanged(peer), PEER_ISLAND_CHANGES),
            (Subject::PeerClusterChange(peer), PEER_CLUSTER_CHANGES),
            (Subject::IslandPeerJoin(island.clone()), ISLAND_PEER_JOINS),
            (Subject::IslandPeerLeft(island.clone()), ISLAND_PEER_LEAVES),
            (Subject::PeerTopic(peer, topic.parse().ok()?), TOPICS),
            (Subject::SystemTopic(topic.parse().ok()?), TOPICS),
            (Subject::SceneTopic(scene_topic), SCENE_TOPICS),
            (Subject::EngineIslands, ENGINE_ISLANDS),
            (Subject::EngineDiscovery, ENGINE_DISCOVERY),
            (Subject::TransportAnnounce(id.parse().ok()?), TRANSPORT_ANNOUNCEMENTS),
            (Subject::MembershipEnded(island), MEMBERSHIP_ENDS),
            (Subject::MeshSignal(peer), MESH_SIGNALS),
            (Subject::MeshLinks(peer), MESH_LINKS),
            (Subject::MeshPlan(peer), MESH_PLANS),
            (Subject::MeshIceServers(peer), MESH_ICE_SERVERS),
            (Subject::PeersWanted, PEERS_WANTED),
        ])
    }

    #[test]
    fn subject_text_round_trips_and_matches_one_pattern() {
        let all = examples(Address::new([7; 20]), "I1", "plaza.chat").unwrap();
        for (subject, pattern) in &all {
            let text = subject.to_string();
            assert_eq!(text.parse().as_ref(), Ok(subject));
            for (_, other) in all.iter().filter(|(_, other)| other != pattern) {
                assert!(!matches(other, &text), "{other} takes {text}");
            }
            assert!(matches(pattern, &text), "{pattern} misses {text}");
        }
    }
}
