//! Decodes bus messages into events for the director.

use std::time::SystemTime;

use archipelago::{ClientReport, Clustering, Heartbeat, Input, ReportedAssignment, Transport, TransportKind};
use bus::Envelope;
use protocol::{
    Address, ConnectionString, IslandId, NodeName, Position, SessionId, Subject, Ulid,
    atoll_bus::{self, GatewayHeartbeat, MembershipEnded, Told, TransportAnnouncement},
    is_far_ahead, is_protocol_name, unix_ms,
    v3::{ClusterChangeMessage, ServiceDiscoveryMessage},
};

use crate::{metrics, settings::Settings};

/// The content of a message.
#[derive(Debug, PartialEq)]
pub(crate) enum BusEvent {
    /// An input of the engine, except a heartbeat.
    Input(Input),
    /// A peer's heartbeat. `epoch`: of the assignment that it reports; 0: none.
    Heartbeat { heartbeat: Heartbeat, epoch: u64 },
    /// The leader assigned a client to an island.
    Assigned { peer: Address, session: Option<SessionId>, island: IslandId, room: RoomLocation },
    /// Memberships ended, on one node or on all (`None`), and tokens minted before a time are void. After a
    /// session takeover only the tokens are void.
    MembershipsEnded {
        island: IslandId,
        node: Option<NodeName>,
        peers: Vec<Address>,
        minted_before: Ulid,
        taken_over: bool,
    },
    /// A participant asks for the heartbeats of all peers.
    PeersWanted,
    /// A director leads, with the time on its clock, in milliseconds since the Unix epoch.
    LeaderDiscovery { unix_ms: u64 },
}

/// The place of an island's room, as far as the message has it.
#[derive(Debug, PartialEq)]
pub(crate) enum RoomLocation {
    /// On this node.
    Node(NodeName),
    /// At this address: not every subject scheme has headers that name nodes.
    Connection(ConnectionString),
    /// The message has neither.
    Unknown,
}

/// The only kind of node that announces itself: there is no minter for others.
const WS_ROOM: &str = "ws-room";
/// The longest accepted name of a cluster.
const MAX_CLUSTER_BYTES: usize = 256;
/// The server name in the `engine.discovery` of directors.
pub(crate) const SERVER_NAME: &str = "archipelago";

/// Decodes a message. A message that cannot be decoded is counted, and `None` is returned.
pub(crate) fn decode(envelope: &Envelope, settings: &Settings) -> Option<BusEvent> {
    let event = decode_event(envelope, settings);
    if let Err(reason) = event {
        metrics::refused(reason).increment(1);
    }
    event.ok().flatten()
}

fn decode_event(envelope: &Envelope, settings: &Settings) -> Result<Option<BusEvent>, &'static str> {
    let session = envelope.headers.session;
    let event = match envelope.subject().ok_or("subject")? {
        Subject::PeerConnect(peer) => {
            let transports = envelope.headers.transports.as_deref().and_then(parse_transports);
            let resumes = envelope.headers.resumption().resumes;
            BusEvent::Input(Input::Connected { peer, session, transports, resumes })
        }
        Subject::PeerDisconnect(peer) => BusEvent::Input(Input::Disconnected { peer, session }),
        Subject::PeerHeartbeat(peer) => decode_heartbeat(peer, envelope, settings)?,
        Subject::PeerIslandChanged(peer) => {
            let change: atoll_bus::IslandOfChange = decode_payload(envelope)?;
            let island = change.island_id.parse().map_err(|_| "island")?;
            let room = match &envelope.headers.node {
                Some(node) => RoomLocation::Node(node.clone()),
                None => change.conn_str.parse().map_or(RoomLocation::Unknown, RoomLocation::Connection),
            };
            BusEvent::Assigned { peer, session, island, room }
        }
        Subject::MembershipEnded(island) => {
            let MembershipEnded { peers, minted_before, node, taken_over } = decode_payload(envelope)?;
            let node = (!node.is_empty()).then(|| node.parse()).transpose().map_err(|_| "node")?;
            let minted_before: Ulid = minted_before.parse().map_err(|_| "minted_before")?;
            if is_far_in_the_future(minted_before.timestamp_ms()) {
                return Err("minted_before");
            }
            let peers = peers.iter().filter_map(|peer| peer.parse().ok()).collect();
            BusEvent::MembershipsEnded { island, node, peers, minted_before, taken_over }
        }
        Subject::EngineDiscovery => {
            let ServiceDiscoveryMessage { server_name, status } = decode_payload(envelope)?;
            match status {
                Some(status) if server_name == SERVER_NAME && is_far_in_the_future(status.current_time) => {
                    return Err("current_time");
                }
                Some(status) if server_name == SERVER_NAME => {
                    BusEvent::LeaderDiscovery { unix_ms: status.current_time }
                }
                // Other services publish on this subject too.
                _ => return Ok(None),
            }
        }
        Subject::PeersWanted => BusEvent::PeersWanted,
        Subject::PeerClusterChange(peer) => {
            let ClusterChangeMessage { cluster_id, realm } = decode_payload(envelope)?;
            if cluster_id.len() > MAX_CLUSTER_BYTES {
                return Err("cluster");
            }
            BusEvent::Input(Input::Cluster {
                peer,
                session,
                cluster: local_cluster(&cluster_id, &realm, settings),
            })
        }
        Subject::TransportAnnounce(node) => {
            BusEvent::Input(Input::Transport(decode_announcement(node, envelope, settings)?))
        }
        _ => return Err("subject"),
    };
    Ok(Some(event))
}

fn decode_heartbeat(
    peer: Address,
    envelope: &Envelope,
    settings: &Settings,
) -> Result<BusEvent, &'static str> {
    let GatewayHeartbeat { position, desired_room, told, transports, resumes, .. } =
        decode_payload(envelope)?;
    let resumes = (!resumes.is_empty()).then(|| resumes.parse()).transpose();
    let resumes = resumes.map_err(|_| "resumes")?;
    let position = match position {
        // The client sends no heartbeats, because its cluster alone decides. For rules by area and for
        // the members' positions in `island_changed` the peer is at the origin.
        None if settings.engine.clustering == Clustering::External => Position::default(),
        // Gateways check positions too; foreign ones may not.
        position => {
            Position::checked(position.as_ref(), settings.position_bound_m).map_err(|_| "position")?
        }
    };
    let epoch = told.as_ref().map_or(0, |told| told.epoch);
    // A foreign gateway does not report assignments, and the rest neither.
    let client = told.map(|Told { island, node, .. }| {
        let last_assigned = Some(ReportedAssignment { island, node });
        let transports = transports.filter(|names| are_transports(names));
        Box::new(ClientReport { transports, resumes, last_assigned })
    });
    let session = envelope.headers.session;
    let heartbeat = Heartbeat { peer, session, position, desired_room, client };
    Ok(BusEvent::Heartbeat { heartbeat, epoch })
}

/// Whether a time is too far ahead of this process's clock: every token minted later would have to be later
/// than it.
fn is_far_in_the_future(time_ms: u64) -> bool {
    is_far_ahead(time_ms, unix_ms(SystemTime::now()))
}

fn decode_payload<M: protocol::Message + Default>(envelope: &Envelope) -> Result<M, &'static str> {
    M::decode(&envelope.payload[..]).map_err(|_| "undecodable")
}

fn decode_announcement(
    node: NodeName,
    envelope: &Envelope,
    settings: &Settings,
) -> Result<Transport, &'static str> {
    let announcement: TransportAnnouncement = decode_payload(envelope)?;
    if announcement.kind != WS_ROOM {
        return Err("transport_kind");
    }
    if settings.transports.iter().any(|configured| configured.node == node) {
        return Err("transport_name");
    }
    // Otherwise no later process of this node could be distinguished from it.
    if is_far_in_the_future(announcement.started_ms) {
        return Err("transport_started");
    }
    Ok(Transport {
        node,
        kind: TransportKind::WsRoom,
        capability: WS_ROOM.into(),
        public_url: announcement.public_url.into(),
        max_island_size: announcement.max_island_size,
        seats: u32::try_from(announcement.available_seats).ok(),
        users: announcement.users,
        draining: announcement.draining,
        started_ms: announcement.started_ms,
        note: None,
    })
}

/// The peer's cluster; `None` if it is of another realm.
fn local_cluster(cluster: &str, realm: &str, settings: &Settings) -> Option<String> {
    let is_other_realm = |own: &String| !realm.is_empty() && own != realm;
    let is_local = !cluster.is_empty() && !settings.realm.as_ref().is_some_and(is_other_realm);
    is_local.then(|| cluster.to_owned())
}

/// The transports that a client can join. Gateways check them too; foreign ones may not.
pub(crate) fn parse_transports(names: &str) -> Option<Vec<String>> {
    are_transports(names).then(|| names.split(',').map(str::to_owned).collect())
}

/// Whether these are names of transports, separated by commas.
fn are_transports(names: &str) -> bool {
    names.split(',').all(is_protocol_name)
}

#[cfg(test)]
mod tests {
    use bus::{Bus, Headers};
    use protocol::{Message as _, subject, v3};

    use super::*;
    use crate::{ConfiguredNode, TransportOffer, tests::settings};

    /// Decodes one message.
    fn decode_one(
        subject: &Subject,
        headers: Headers,
        payload: Vec<u8>,
    ) -> Result<Option<BusEvent>, &'static str> {
        let bus = Bus::in_process();
        let patterns = [
            subject::PEER_CONNECTS,
            subject::PEER_HEARTBEATS,
            subject::PEER_ISLAND_CHANGES,
            subject::MEMBERSHIP_ENDS,
            subject::ENGINE_DISCOVERY,
            subject::PEER_CLUSTER_CHANGES,
            subject::TRANSPORT_ANNOUNCEMENTS,
        ];
        let mut subscription = bus.subscribe("test", &patterns, 1);
        bus.publish(subject, headers, payload);
        let node = "mesh".parse().unwrap();
        let offer = TransportOffer::P2p(Default::default());
        let mesh = ConfiguredNode { node, offer, max_island_size: 12, max_users: None, draining: false };
        decode_event(
            &subscription.try_next().unwrap(),
            &crate::Settings { transports: vec![mesh], ..settings() },
        )
    }

    fn peer() -> Address {
        Address::new([1; 20])
    }

    #[test]
    fn only_ws_room_nodes_with_free_names_are_accepted() {
        let announced = |node: &str, kind: &str| {
            let announcement = TransportAnnouncement { kind: kind.to_owned(), ..Default::default() };
            let subject = Subject::TransportAnnounce(node.parse().unwrap());
            decode_one(&subject, Headers::default(), announcement.encode_to_vec())
        };
        assert!(matches!(announced("rooms-1", "ws-room"), Ok(Some(BusEvent::Input(Input::Transport(_))))));
        assert_eq!(announced("mesh", "ws-room"), Err("transport_name"));
        for kind in ["livekit", "p2p", "external", "", "WS-ROOM"] {
            assert_eq!(announced("rooms-1", kind), Err("transport_kind"), "{kind:?}");
        }
    }

    #[test]
    fn cluster_of_another_realm_is_ignored() {
        let peer = "0x0000000000000000000000000000000000000001".parse().unwrap();
        let change = |cluster: &str, realm: &str| {
            let change = ClusterChangeMessage { cluster_id: cluster.to_owned(), realm: realm.to_owned() };
            decode_one(&Subject::PeerClusterChange(peer), Headers::default(), change.encode_to_vec())
        };
        let cluster = |cluster: Option<&str>| {
            let cluster = cluster.map(str::to_owned);
            Ok(Some(BusEvent::Input(Input::Cluster { peer, session: None, cluster })))
        };
        // This realm has no name.
        assert_eq!(change("a", ""), cluster(Some("a")));
        assert_eq!(change("a", "lagoon"), cluster(Some("a")));
        assert_eq!(change("", "lagoon"), cluster(None));
        assert_eq!(change(&"a".repeat(257), ""), Err("cluster"));
        let settings = Settings { realm: Some("lagoon".to_owned()), ..settings() };
        assert_eq!(local_cluster("a", "lagoon", &settings), Some("a".to_owned()));
        assert_eq!(local_cluster("a", "", &settings), Some("a".to_owned()));
        assert_eq!(local_cluster("a", "desert", &settings), None);
    }

    #[test]
    fn transports_come_with_connect_or_heartbeat() {
        let transports_of = |names: Option<&str>| {
            let headers = Headers { transports: names.map(Into::into), ..Headers::default() };
            match decode_one(&Subject::PeerConnect(peer()), headers, Vec::new()) {
                Ok(Some(BusEvent::Input(Input::Connected { transports, .. }))) => transports,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(transports_of(None), None);
        assert_eq!(transports_of(Some("p2p,ws-room")), Some(vec!["p2p".to_owned(), "ws-room".to_owned()]));
        for unread in ["", "p2p,", "p2p, ws-room"] {
            assert_eq!(transports_of(Some(unread)), None, "{unread:?}");
        }
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        for (names, kept) in [("p2p,ws-room", true), ("p2p,", false)] {
            let (told, transports) = (Some(Told::default()), Some(names.to_owned()));
            let heartbeat = GatewayHeartbeat { position, told, transports, ..GatewayHeartbeat::default() };
            let subject = Subject::PeerHeartbeat(peer());
            let event = decode_one(&subject, Headers::default(), heartbeat.encode_to_vec());
            let Ok(Some(BusEvent::Heartbeat { heartbeat, .. })) = event else { panic!("{event:?}") };
            assert_eq!(heartbeat.client.unwrap().transports.as_deref(), kept.then_some(names));
        }
    }

    #[test]
    fn resumed_session_is_read_from_connect_and_heartbeat() {
        let resumes = Some(SessionId::new(1, 2));
        let resumption = Some(Box::new(bus::Resumption { hash: None, resumes }));
        let headers = Headers { resumption, ..Headers::for_session(SessionId::new(3, 4)) };
        let read = |subject: Subject, payload| decode_one(&subject, headers.clone(), payload);
        let begins = Input::Connected { peer: peer(), session: headers.session, transports: None, resumes };
        assert_eq!(read(Subject::PeerConnect(peer()), Vec::new()), Ok(Some(BusEvent::Input(begins))));
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let heartbeat_naming = |resumes: &str| {
            let resumes = resumes.to_owned();
            let told = Some(Told { island: "I1".to_owned(), node: "n".to_owned(), epoch: 7 });
            GatewayHeartbeat { position, told, resumes, ..GatewayHeartbeat::default() }.encode_to_vec()
        };
        let event = read(Subject::PeerHeartbeat(peer()), heartbeat_naming("00000000010000000000000002"));
        let Ok(Some(BusEvent::Heartbeat { heartbeat, epoch: 7 })) = event else { panic!("{event:?}") };
        let last_assigned = Some(ReportedAssignment { island: "I1".to_owned(), node: "n".to_owned() });
        let report = ClientReport { transports: None, resumes, last_assigned };
        assert_eq!((heartbeat.session, heartbeat.client), (headers.session, Some(Box::new(report))));
        assert_eq!(read(Subject::PeerHeartbeat(peer()), heartbeat_naming("today")), Err("resumes"));
    }

    #[test]
    fn foreign_heartbeat_carries_no_assignment() {
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let foreign = v3::Heartbeat { position, desired_room: Some("I1".to_owned()) };
        let event = decode_one(&Subject::PeerHeartbeat(peer()), Headers::default(), foreign.encode_to_vec());
        let Ok(Some(BusEvent::Heartbeat { heartbeat, epoch: 0 })) = event else { panic!("{event:?}") };
        assert_eq!(heartbeat.client, None);
        assert_eq!(heartbeat.position, Position::new(1.0, 2.0, 3.0));
        assert_eq!(heartbeat.desired_room.as_deref(), Some("I1"));
    }

    #[test]
    fn leader_messages_are_decoded() {
        let island: IslandId = "I00000001a".parse().unwrap();
        let node: NodeName = "rooms-1".parse().unwrap();
        let members = [(peer().to_string(), Position::new(1.0, 0.0, 1.0).into())];
        let change = v3::IslandChangedMessage {
            island_id: island.to_string(),
            conn_str: "ws-room:ws://there/rooms/I1?access_token=t".to_owned(),
            from_island_id: None,
            peers: members.into(),
        };
        let headers = Headers { node: Some(node.clone()), ..Headers::default() };
        let event = decode_one(&Subject::PeerIslandChanged(peer()), headers, change.encode_to_vec());
        let assigned = BusEvent::Assigned {
            peer: peer(),
            session: None,
            island: island.clone(),
            room: RoomLocation::Node(node.clone()),
        };
        assert_eq!(event, Ok(Some(assigned)));
        let without_node =
            decode_one(&Subject::PeerIslandChanged(peer()), Headers::default(), change.encode_to_vec());
        let Ok(Some(BusEvent::Assigned { room: RoomLocation::Connection(room), .. })) = without_node else {
            panic!("{without_node:?}")
        };
        assert_eq!(room.to_string(), change.conn_str);
        let minted_before = Ulid::from_parts(5, 7);
        let ended = MembershipEnded {
            peers: vec![peer().to_string(), "not-an-address".to_owned()],
            minted_before: minted_before.to_string(),
            node: String::new(),
            taken_over: true,
        };
        let subject = Subject::MembershipEnded(island.clone());
        let event = decode_one(&subject, Headers::default(), ended.encode_to_vec());
        assert_eq!(
            event,
            Ok(Some(BusEvent::MembershipsEnded {
                island,
                node: None,
                peers: vec![peer()],
                minted_before,
                taken_over: true
            }))
        );
        let decode_discovery = |server_name: &str, current_time| {
            let status = v3::ServiceStatus { current_time, ..v3::ServiceStatus::default() };
            let discovery =
                ServiceDiscoveryMessage { server_name: server_name.to_owned(), status: Some(status) };
            decode_one(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec())
        };
        assert_eq!(decode_discovery(SERVER_NAME, 9), Ok(Some(BusEvent::LeaderDiscovery { unix_ms: 9 })));
        assert_eq!(decode_discovery("another service", 9), Ok(None));
    }

    #[test]
    fn times_far_in_the_future_are_refused() {
        let ended = MembershipEnded {
            minted_before: Ulid::from_parts(u64::MAX, 0).to_string(),
            ..MembershipEnded::default()
        };
        let subject = Subject::MembershipEnded("I1".parse().unwrap());
        let event = decode_one(&subject, Headers::default(), ended.encode_to_vec());
        assert_eq!(event, Err("minted_before"));
        let status = v3::ServiceStatus { current_time: u64::MAX, ..v3::ServiceStatus::default() };
        let discovery = ServiceDiscoveryMessage { server_name: SERVER_NAME.to_owned(), status: Some(status) };
        let event = decode_one(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec());
        assert_eq!(event, Err("current_time"));
    }
}
