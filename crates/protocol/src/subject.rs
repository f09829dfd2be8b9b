//! The subjects of the bus, and the patterns with which services subscribe to them. No other crate spells a
//! subject.

mod scheme;

use std::{fmt, str::FromStr};

pub use scheme::{SubjectScheme, SubjectSchemeError};

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
    /// `atoll.peers.wanted`, published by a component that needs the present peers, such as a new director:
    /// empty. Each gateway answers with a heartbeat of each of its clients, within a second.
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
/// Matches the requests for a heartbeat of every peer.
pub const PEERS_WANTED: &str = "atoll.peers.wanted";

const PEER_TOPIC_PREFIX: &str = "client-proto.peer.";
const SYSTEM_TOPIC_PREFIX: &str = "client-proto.";
const SCENE_TOPIC_PREFIX: &str = "messageBus.scene.";

/// The error of parsing a [`Subject`]: the subject is unknown to this project, or an id in it is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known subject")]
pub struct SubjectError;

impl Subject {
    /// Whether a message on this subject is still valid after the bus was disconnected, so that the bus
    /// queues it until then. This holds for events that are published once. Periodic messages (heartbeats,
    /// announcements, reports) are stale by then, and messages on topics are delivered in time or not at all.
    pub fn survives_disconnect(&self) -> bool {
        match self {
            Self::PeerConnect(_)
            | Self::PeerDisconnect(_)
            | Self::PeerIslandChanged(_)
            | Self::PeerClusterChange(_)
            | Self::IslandPeerJoin(_)
            | Self::IslandPeerLeft(_)
            | Self::MembershipEnded(_) => true,
            Self::PeerHeartbeat(_)
            | Self::PeerTopic(..)
            | Self::SystemTopic(_)
            | Self::SceneTopic(_)
            | Self::EngineIslands
            | Self::EngineDiscovery
            | Self::TransportAnnounce(_)
            | Self::PeersWanted => false,
        }
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
            ["atoll", "peers", "wanted"] => Self::PeersWanted,
            _ => return Err(SubjectError),
        })
    }
}

/// Whether a pattern matches a subject. In a pattern, a segment `*` matches any one segment, and a final `>`
/// matches one or more (the wildcard rules of NATS).
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for expected in pattern.split('.') {
        match (expected, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (expected, Some(segment)) if expected == segment => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_text_round_trips_and_matches_one_pattern() {
        let peer = Address::new([7; 20]);
        let island: IslandId = "I1".parse().unwrap();
        let all = [
            (Subject::PeerConnect(peer), PEER_CONNECTS),
            (Subject::PeerHeartbeat(peer), PEER_HEARTBEATS),
            (Subject::PeerDisconnect(peer), PEER_DISCONNECTS),
            (Subject::PeerIslandChanged(peer), PEER_ISLAND_CHANGES),
            (Subject::PeerClusterChange(peer), PEER_CLUSTER_CHANGES),
            (Subject::IslandPeerJoin(island.clone()), ISLAND_PEER_JOINS),
            (Subject::IslandPeerLeft(island.clone()), ISLAND_PEER_LEAVES),
            (Subject::PeerTopic(peer, "plaza.chat".parse().unwrap()), "client-proto.peer.>"),
            (Subject::SystemTopic("news.today".parse().unwrap()), "client-proto.news.>"),
            (Subject::SceneTopic("messageBus.scene.bafy-1.door.open".parse().unwrap()), SCENE_TOPICS),
            (Subject::EngineIslands, ENGINE_ISLANDS),
            (Subject::EngineDiscovery, ENGINE_DISCOVERY),
            (Subject::TransportAnnounce("node-1".parse().unwrap()), TRANSPORT_ANNOUNCEMENTS),
            (Subject::MembershipEnded(island), MEMBERSHIP_ENDS),
            (Subject::PeersWanted, PEERS_WANTED),
        ];
        for (subject, pattern) in &all {
            let text = subject.to_string();
            assert_eq!(text.parse().as_ref(), Ok(subject));
            for (other, _) in all.iter().filter(|(other, _)| other != subject) {
                assert!(!matches(pattern, &other.to_string()), "{pattern} takes {other}");
            }
            assert!(matches(pattern, &text), "{pattern} misses {text}");
        }
    }

    #[test]
    fn patterns_follow_the_nats_rules() {
        assert!(matches("a.>", "a.b.c"));
        assert!(!matches("a.>", "a"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(!matches("a.*.c", "a.b"));
    }
}
