//! From the bus to what it says.

use std::time::SystemTime;

use archipelago::{Clustering, Input, Transport, TransportKind};
use bus::Envelope;
use protocol::{
    Address, ConnectionString, IslandId, NodeName, Position, SessionId, Subject, Ulid,
    atoll_bus::{self, GatewayHeartbeat, MembershipEnded, TransportAnnouncement},
    is_far_ahead, is_protocol_name, unix_ms,
    v3::{ClusterChangeMessage, ServiceDiscoveryMessage},
};

use crate::Settings;

/// What a message says.
#[derive(Debug, PartialEq)]
pub(crate) enum BusEvent {
    /// What the engine takes as it is.
    Input(Input),
    /// A peer is there.
    Heartbeat(Heartbeat),
    /// Whoever leads told a client where it belongs.
    Assigned { peer: Address, session: Option<SessionId>, island: IslandId, room: RoomLocation },
    /// Memberships ended, on one node or on all, and so did tokens minted up to a time; or only those
    /// tokens, as a newer session took over.
    MembershipsEnded {
        island: IslandId,
        node: Option<NodeName>,
        peers: Vec<Address>,
        minted_before: Ulid,
        taken_over: bool,
    },
    /// Somebody wants to know who is there.
    PeersWanted,
    /// A director leads, and this is the time on its clock, in milliseconds since the Unix epoch.
    LeaderDiscovery { unix_ms: u64 },
}

/// Where the room of an island is, as far as that is said.
#[derive(Debug, PartialEq)]
pub(crate) enum RoomLocation {
    /// On this node.
    Node(NodeName),
    /// Where this leads: not everybody's bus names nodes.
    Connection(ConnectionString),
    /// Somewhere.
    Unknown,
}

/// A peer is there, and what its gateway says of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Heartbeat {
    pub(crate) peer: Address,
    pub(crate) session: Option<SessionId>,
    pub(crate) position: Position,
    pub(crate) desired_room: Option<String>,
    /// What its client was last told; `None` from a gateway that does not say.
    pub(crate) assignment: Option<atoll_bus::Told>,
    /// What its client can join, as [`parse_transports`] reads it.
    pub(crate) transports: Option<String>,
    /// The older session that its session resumes.
    pub(crate) resumes: Option<SessionId>,
}

impl Heartbeat {
    /// Its part for the engine.
    pub(crate) fn into_input(self) -> Input {
        let Self { peer, session, position, desired_room, .. } = self;
        Input::Heartbeat { peer, session, position, desired_room }
    }

    /// The session that it is of, as if it began now.
    pub(crate) fn to_connect_input(&self) -> Input {
        let transports = self.transports.as_deref().and_then(parse_transports);
        let Self { peer, session, resumes, .. } = *self;
        Input::Connected { peer, session, transports, resumes }
    }
}

/// The one kind of node that announces itself: for the others nobody could mint.
const WS_ROOM: &str = "ws-room";
/// The longest name of a cluster that is taken.
const MAX_CLUSTER_BYTES: usize = 256;
/// As directors call themselves.
pub(crate) const SERVER_NAME: &str = "archipelago";

/// What a message says; `None`, counted, if it means nothing.
pub(crate) fn decode(envelope: &Envelope, settings: &Settings) -> Option<BusEvent> {
    let heard = decode_event(envelope, settings);
    if let Err(reason) = heard {
        metrics::counter!("atoll_director_refused_total", "reason" => reason).increment(1);
    }
    heard.ok().flatten()
}

fn decode_event(envelope: &Envelope, settings: &Settings) -> Result<Option<BusEvent>, &'static str> {
    let session = envelope.headers.session;
    let heard = match envelope.subject().ok_or("subject")? {
        Subject::PeerConnect(peer) => {
            let transports = envelope.headers.transports.as_deref().and_then(parse_transports);
            let resumes = envelope.headers.resumption().resumes;
            BusEvent::Input(Input::Connected { peer, session, transports, resumes })
        }
        Subject::PeerDisconnect(peer) => BusEvent::Input(Input::Disconnected { peer, session }),
        Subject::PeerHeartbeat(peer) => {
            let GatewayHeartbeat { position, desired_room, told, transports, resumes, .. } =
                decode_payload(envelope)?;
            let resumes = (!resumes.is_empty()).then(|| resumes.parse()).transpose();
            let resumes = resumes.map_err(|_| "resumes")?;
            let position = match position {
                // The client sends no heartbeats, since its cluster alone decides. Rules by area and the
                // members' positions in `island_changed` take the peer to be at the origin.
                None if settings.engine.clustering == Clustering::External => Position::default(),
                // Gateways check positions too; foreign ones may not.
                position => {
                    Position::checked(position.as_ref(), settings.position_bound_m).map_err(|_| "position")?
                }
            };
            BusEvent::Heartbeat(Heartbeat {
                peer,
                session,
                position,
                desired_room,
                assignment: told,
                transports,
                resumes,
            })
        }
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
                // Other services say so too.
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
    Ok(Some(heard))
}

/// Whether a time is too far ahead of this process's clock: whatever is minted later would have to be
/// later than it.
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
    // Otherwise no later process could be distinguished from it.
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
    })
}

/// The cluster that somebody is in here; none if it is of another realm.
fn local_cluster(cluster: &str, realm: &str, settings: &Settings) -> Option<String> {
    let elsewhere = |own: &String| !realm.is_empty() && own != realm;
    let here = !cluster.is_empty() && !settings.realm.as_ref().is_some_and(elsewhere);
    here.then(|| cluster.to_owned())
}

/// What a client can join. Gateways check it too; foreign ones may not.
pub(crate) fn parse_transports(names: &str) -> Option<Vec<String>> {
    let names = names.split(',');
    names.map(|name| is_protocol_name(name).then(|| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use bus::{Bus, Headers};
    use protocol::{Message as _, subject, v3};

    use super::*;
    use crate::{ConfiguredNode, TransportOffer, tests::settings};

    /// What is made of one message.
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
        let joinable = |names: Option<&str>| {
            let headers = Headers { transports: names.map(Into::into), ..Headers::default() };
            match decode_one(&Subject::PeerConnect(peer()), headers, Vec::new()) {
                Ok(Some(BusEvent::Input(Input::Connected { transports, .. }))) => transports,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(joinable(None), None);
        assert_eq!(joinable(Some("p2p,ws-room")), Some(vec!["p2p".to_owned(), "ws-room".to_owned()]));
        for unread in ["", "p2p,", "p2p, ws-room"] {
            assert_eq!(joinable(Some(unread)), None, "{unread:?}");
        }
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let transports = Some("p2p,ws-room".to_owned());
        let heartbeat = GatewayHeartbeat { position, transports, ..GatewayHeartbeat::default() };
        let heard =
            decode_one(&Subject::PeerHeartbeat(peer()), Headers::default(), heartbeat.encode_to_vec());
        let Ok(Some(BusEvent::Heartbeat(heartbeat))) = heard else { panic!("{heard:?}") };
        let begins = Input::Connected {
            peer: peer(),
            session: None,
            transports: joinable(Some("p2p,ws-room")),
            resumes: None,
        };
        assert_eq!(heartbeat.to_connect_input(), begins);
    }

    #[test]
    fn resumed_session_is_read_from_connect_and_heartbeat() {
        let resumes = Some(SessionId::new(1, 2));
        let resumption = Some(Box::new(bus::Resumption { hash: None, resumes }));
        let headers = Headers { resumption, ..Headers::for_session(SessionId::new(3, 4)) };
        let read = |subject: Subject, payload| decode_one(&subject, headers.clone(), payload);
        let begins = Input::Connected { peer: peer(), session: headers.session, transports: None, resumes };
        assert_eq!(read(Subject::PeerConnect(peer()), Vec::new()), Ok(Some(BusEvent::Input(begins.clone()))));
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let named = |resumes: &str| {
            let resumes = resumes.to_owned();
            GatewayHeartbeat { position, resumes, ..GatewayHeartbeat::default() }.encode_to_vec()
        };
        let heard = read(Subject::PeerHeartbeat(peer()), named("00000000010000000000000002"));
        let Ok(Some(BusEvent::Heartbeat(heartbeat))) = heard else { panic!("{heard:?}") };
        assert_eq!(heartbeat.to_connect_input(), begins);
        assert_eq!(read(Subject::PeerHeartbeat(peer()), named("today")), Err("resumes"));
    }

    #[test]
    fn foreign_heartbeat_carries_no_assignment() {
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let foreign = v3::Heartbeat { position, desired_room: Some("I1".to_owned()) };
        let heard = decode_one(&Subject::PeerHeartbeat(peer()), Headers::default(), foreign.encode_to_vec());
        let Ok(Some(BusEvent::Heartbeat(heartbeat))) = heard else { panic!("{heard:?}") };
        assert_eq!((&heartbeat.assignment, &heartbeat.transports), (&None, &None));
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
        let heard = decode_one(&Subject::PeerIslandChanged(peer()), headers, change.encode_to_vec());
        let assigned = BusEvent::Assigned {
            peer: peer(),
            session: None,
            island: island.clone(),
            room: RoomLocation::Node(node.clone()),
        };
        assert_eq!(heard, Ok(Some(assigned)));
        let nameless =
            decode_one(&Subject::PeerIslandChanged(peer()), Headers::default(), change.encode_to_vec());
        let Ok(Some(BusEvent::Assigned { room: RoomLocation::Connection(room), .. })) = nameless else {
            panic!("{nameless:?}")
        };
        assert_eq!(room.to_string(), change.conn_str);
        let minted_before = Ulid::from_parts(5, 7);
        let ended = MembershipEnded {
            peers: vec![peer().to_string(), "nobody".to_owned()],
            minted_before: minted_before.to_string(),
            node: String::new(),
            taken_over: true,
        };
        let subject = Subject::MembershipEnded(island.clone());
        let heard = decode_one(&subject, Headers::default(), ended.encode_to_vec());
        assert_eq!(
            heard,
            Ok(Some(BusEvent::MembershipsEnded {
                island,
                node: None,
                peers: vec![peer()],
                minted_before,
                taken_over: true
            }))
        );
        let says = |server_name: &str, current_time| {
            let status = v3::ServiceStatus { current_time, ..v3::ServiceStatus::default() };
            let discovery =
                ServiceDiscoveryMessage { server_name: server_name.to_owned(), status: Some(status) };
            decode_one(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec())
        };
        assert_eq!(says(SERVER_NAME, 9), Ok(Some(BusEvent::LeaderDiscovery { unix_ms: 9 })));
        assert_eq!(says("another service", 9), Ok(None));
    }

    #[test]
    fn times_far_in_the_future_are_refused() {
        let ended = MembershipEnded {
            minted_before: Ulid::from_parts(u64::MAX, 0).to_string(),
            ..MembershipEnded::default()
        };
        let subject = Subject::MembershipEnded("I1".parse().unwrap());
        let heard = decode_one(&subject, Headers::default(), ended.encode_to_vec());
        assert_eq!(heard, Err("minted_before"));
        let status = v3::ServiceStatus { current_time: u64::MAX, ..v3::ServiceStatus::default() };
        let discovery = ServiceDiscoveryMessage { server_name: SERVER_NAME.to_owned(), status: Some(status) };
        let heard = decode_one(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec());
        assert_eq!(heard, Err("current_time"));
    }
}
