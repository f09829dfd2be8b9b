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
pub(crate) enum Heard {
    /// What the engine takes as it is.
    Input(Input),
    /// A peer is there.
    Heartbeat(Heartbeat),
    /// Whoever leads told a client where it belongs.
    Assigned { peer: Address, session: Option<SessionId>, island: IslandId, room: Room },
    /// Memberships ended, on one node or on all, and so did tokens minted up to a time; or only those
    /// tokens, as a newer session took over.
    Ended {
        island: IslandId,
        node: Option<NodeName>,
        peers: Vec<Address>,
        minted_before: Ulid,
        taken_over: bool,
    },
    /// Somebody wants to know who is there.
    Wanted,
    /// A director leads, and this is the time on its clock, in milliseconds since the Unix epoch.
    Leads { unix_ms: u64 },
}

/// Where the room of an island is, as far as that is said.
#[derive(Debug, PartialEq)]
pub(crate) enum Room {
    /// On this node.
    On(NodeName),
    /// Where this leads: not everybody's bus names nodes.
    At(ConnectionString),
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
    pub(crate) told: Option<atoll_bus::Told>,
    /// What its client can join, as [`joinable`] reads it.
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
    pub(crate) fn begins(&self) -> Input {
        let transports = self.transports.as_deref().and_then(joinable);
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
pub(crate) fn hear(envelope: &Envelope, settings: &Settings) -> Option<Heard> {
    let heard = read(envelope, settings);
    if let Err(reason) = heard {
        metrics::counter!("atoll_director_refused_total", "reason" => reason).increment(1);
    }
    heard.ok().flatten()
}

fn read(envelope: &Envelope, settings: &Settings) -> Result<Option<Heard>, &'static str> {
    let session = envelope.headers.session;
    let heard = match envelope.subject().ok_or("subject")? {
        Subject::PeerConnect(peer) => {
            let transports = envelope.headers.transports.as_deref().and_then(joinable);
            let resumes = envelope.headers.resumption().resumes;
            Heard::Input(Input::Connected { peer, session, transports, resumes })
        }
        Subject::PeerDisconnect(peer) => Heard::Input(Input::Disconnected { peer, session }),
        Subject::PeerHeartbeat(peer) => {
            let GatewayHeartbeat { position, desired_room, told, transports, resumes, .. } =
                decode(envelope)?;
            let resumes = (!resumes.is_empty()).then(|| resumes.parse()).transpose();
            let resumes = resumes.map_err(|_| "resumes")?;
            let position = match position {
                // The client sends no heartbeats, since its cluster alone decides. Rules by area and the
                // members' positions in `island_changed` take the peer to be at the origin.
                None if settings.engine.clustering == Clustering::Given => Position::default(),
                // Gateways check positions too; foreign ones may not.
                position => {
                    Position::checked(position.as_ref(), settings.position_bound_m).map_err(|_| "position")?
                }
            };
            Heard::Heartbeat(Heartbeat { peer, session, position, desired_room, told, transports, resumes })
        }
        Subject::PeerIslandChanged(peer) => {
            let change: atoll_bus::IslandOfChange = decode(envelope)?;
            let island = change.island_id.parse().map_err(|_| "island")?;
            let room = match &envelope.headers.node {
                Some(node) => Room::On(node.clone()),
                None => change.conn_str.parse().map_or(Room::Unknown, Room::At),
            };
            Heard::Assigned { peer, session, island, room }
        }
        Subject::MembershipEnded(island) => {
            let MembershipEnded { peers, minted_before, node, taken_over } = decode(envelope)?;
            let node = (!node.is_empty()).then(|| node.parse()).transpose().map_err(|_| "node")?;
            let minted_before: Ulid = minted_before.parse().map_err(|_| "minted_before")?;
            if is_of_far_future(minted_before.timestamp_ms()) {
                return Err("minted_before");
            }
            let peers = peers.iter().filter_map(|peer| peer.parse().ok()).collect();
            Heard::Ended { island, node, peers, minted_before, taken_over }
        }
        Subject::EngineDiscovery => {
            let ServiceDiscoveryMessage { server_name, status } = decode(envelope)?;
            match status {
                Some(status) if server_name == SERVER_NAME && is_of_far_future(status.current_time) => {
                    return Err("current_time");
                }
                Some(status) if server_name == SERVER_NAME => Heard::Leads { unix_ms: status.current_time },
                // Other services say so too.
                _ => return Ok(None),
            }
        }
        Subject::PeersWanted => Heard::Wanted,
        Subject::PeerClusterChange(peer) => {
            let ClusterChangeMessage { cluster_id, realm } = decode(envelope)?;
            if cluster_id.len() > MAX_CLUSTER_BYTES {
                return Err("cluster");
            }
            Heard::Input(Input::Cluster { peer, session, cluster: ours(&cluster_id, &realm, settings) })
        }
        Subject::TransportAnnounce(node) => {
            Heard::Input(Input::Transport(transport(node, envelope, settings)?))
        }
        _ => return Err("subject"),
    };
    Ok(Some(heard))
}

/// Whether a time is too far ahead of this process's clock: whatever is minted later would have to be
/// later than it.
fn is_of_far_future(time_ms: u64) -> bool {
    is_far_ahead(time_ms, unix_ms(SystemTime::now()))
}

fn decode<M: protocol::Message + Default>(envelope: &Envelope) -> Result<M, &'static str> {
    M::decode(&envelope.payload[..]).map_err(|_| "undecodable")
}

fn transport(node: NodeName, envelope: &Envelope, settings: &Settings) -> Result<Transport, &'static str> {
    let announcement: TransportAnnouncement = decode(envelope)?;
    if announcement.kind != WS_ROOM {
        return Err("transport_kind");
    }
    if settings.transports.iter().any(|configured| configured.node == node) {
        return Err("transport_name");
    }
    // Otherwise no later process could be distinguished from it.
    if is_of_far_future(announcement.started_ms) {
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
fn ours(cluster: &str, realm: &str, settings: &Settings) -> Option<String> {
    let elsewhere = |own: &String| !realm.is_empty() && own != realm;
    let here = !cluster.is_empty() && !settings.realm.as_ref().is_some_and(elsewhere);
    here.then(|| cluster.to_owned())
}

/// What a client can join. Gateways check it too; foreign ones may not.
pub(crate) fn joinable(names: &str) -> Option<Vec<String>> {
    let names = names.split(',');
    names.map(|name| is_protocol_name(name).then(|| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use bus::{Bus, Headers};
    use protocol::{Message as _, subject, v3};

    use super::*;
    use crate::{Configured, Offer, tests::settings};

    /// What is made of one message.
    fn read_one(
        subject: &Subject,
        headers: Headers,
        payload: Vec<u8>,
    ) -> Result<Option<Heard>, &'static str> {
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
        let offer = Offer::P2p(Default::default());
        let mesh = Configured { node, offer, max_island_size: 12, max_users: None, draining: false };
        read(&subscription.try_next().unwrap(), &crate::Settings { transports: vec![mesh], ..settings() })
    }

    fn peer() -> Address {
        Address::new([1; 20])
    }

    #[test]
    fn only_room_nodes_announce_themselves_and_under_names_that_are_free() {
        let announced = |node: &str, kind: &str| {
            let announcement = TransportAnnouncement { kind: kind.to_owned(), ..Default::default() };
            let subject = Subject::TransportAnnounce(node.parse().unwrap());
            read_one(&subject, Headers::default(), announcement.encode_to_vec())
        };
        assert!(matches!(announced("rooms-1", "ws-room"), Ok(Some(Heard::Input(Input::Transport(_))))));
        assert_eq!(announced("mesh", "ws-room"), Err("transport_name"));
        for kind in ["livekit", "p2p", "external", "", "WS-ROOM"] {
            assert_eq!(announced("rooms-1", kind), Err("transport_kind"), "{kind:?}");
        }
    }

    #[test]
    fn a_cluster_of_another_realm_is_none_here() {
        let peer = "0x0000000000000000000000000000000000000001".parse().unwrap();
        let change = |cluster: &str, realm: &str| {
            let change = ClusterChangeMessage { cluster_id: cluster.to_owned(), realm: realm.to_owned() };
            read_one(&Subject::PeerClusterChange(peer), Headers::default(), change.encode_to_vec())
        };
        let cluster = |cluster: Option<&str>| {
            let cluster = cluster.map(str::to_owned);
            Ok(Some(Heard::Input(Input::Cluster { peer, session: None, cluster })))
        };
        // This realm has no name.
        assert_eq!(change("a", ""), cluster(Some("a")));
        assert_eq!(change("a", "lagoon"), cluster(Some("a")));
        assert_eq!(change("", "lagoon"), cluster(None));
        assert_eq!(change(&"a".repeat(257), ""), Err("cluster"));
        let settings = Settings { realm: Some("lagoon".to_owned()), ..settings() };
        assert_eq!(ours("a", "lagoon", &settings), Some("a".to_owned()));
        assert_eq!(ours("a", "", &settings), Some("a".to_owned()));
        assert_eq!(ours("a", "desert", &settings), None);
    }

    #[test]
    fn what_a_client_can_join_comes_with_its_connect_or_with_its_heartbeat() {
        let joinable = |names: Option<&str>| {
            let headers = Headers { transports: names.map(Into::into), ..Headers::default() };
            match read_one(&Subject::PeerConnect(peer()), headers, Vec::new()) {
                Ok(Some(Heard::Input(Input::Connected { transports, .. }))) => transports,
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
        let heard = read_one(&Subject::PeerHeartbeat(peer()), Headers::default(), heartbeat.encode_to_vec());
        let Ok(Some(Heard::Heartbeat(heartbeat))) = heard else { panic!("{heard:?}") };
        let begins = Input::Connected {
            peer: peer(),
            session: None,
            transports: joinable(Some("p2p,ws-room")),
            resumes: None,
        };
        assert_eq!(heartbeat.begins(), begins);
    }

    #[test]
    fn resumed_session_is_read_from_connect_and_heartbeat() {
        let resumes = Some(SessionId::new(1, 2));
        let resumption = Some(Box::new(bus::Resumption { hash: None, resumes }));
        let headers = Headers { resumption, ..Headers::of_session(SessionId::new(3, 4)) };
        let read = |subject: Subject, payload| read_one(&subject, headers.clone(), payload);
        let begins = Input::Connected { peer: peer(), session: headers.session, transports: None, resumes };
        assert_eq!(read(Subject::PeerConnect(peer()), Vec::new()), Ok(Some(Heard::Input(begins.clone()))));
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let named = |resumes: &str| {
            let resumes = resumes.to_owned();
            GatewayHeartbeat { position, resumes, ..GatewayHeartbeat::default() }.encode_to_vec()
        };
        let heard = read(Subject::PeerHeartbeat(peer()), named("00000000010000000000000002"));
        let Ok(Some(Heard::Heartbeat(heartbeat))) = heard else { panic!("{heard:?}") };
        assert_eq!(heartbeat.begins(), begins);
        assert_eq!(read(Subject::PeerHeartbeat(peer()), named("today")), Err("resumes"));
    }

    #[test]
    fn a_heartbeat_of_a_foreign_gateway_says_nothing_of_what_its_client_knows() {
        let position = Some(Position::new(1.0, 2.0, 3.0).into());
        let foreign = v3::Heartbeat { position, desired_room: Some("I1".to_owned()) };
        let heard = read_one(&Subject::PeerHeartbeat(peer()), Headers::default(), foreign.encode_to_vec());
        let Ok(Some(Heard::Heartbeat(heartbeat))) = heard else { panic!("{heard:?}") };
        assert_eq!((&heartbeat.told, &heartbeat.transports), (&None, &None));
        assert_eq!(heartbeat.position, Position::new(1.0, 2.0, 3.0));
        assert_eq!(heartbeat.desired_room.as_deref(), Some("I1"));
    }

    #[test]
    fn what_a_director_tells_is_read() {
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
        let heard = read_one(&Subject::PeerIslandChanged(peer()), headers, change.encode_to_vec());
        let assigned = Heard::Assigned {
            peer: peer(),
            session: None,
            island: island.clone(),
            room: Room::On(node.clone()),
        };
        assert_eq!(heard, Ok(Some(assigned)));
        let nameless =
            read_one(&Subject::PeerIslandChanged(peer()), Headers::default(), change.encode_to_vec());
        let Ok(Some(Heard::Assigned { room: Room::At(room), .. })) = nameless else { panic!("{nameless:?}") };
        assert_eq!(room.to_string(), change.conn_str);
        let minted_before = Ulid::from_parts(5, 7);
        let ended = MembershipEnded {
            peers: vec![peer().to_string(), "nobody".to_owned()],
            minted_before: minted_before.to_string(),
            node: String::new(),
            taken_over: true,
        };
        let subject = Subject::MembershipEnded(island.clone());
        let heard = read_one(&subject, Headers::default(), ended.encode_to_vec());
        assert_eq!(
            heard,
            Ok(Some(Heard::Ended {
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
            read_one(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec())
        };
        assert_eq!(says(SERVER_NAME, 9), Ok(Some(Heard::Leads { unix_ms: 9 })));
        assert_eq!(says("another service", 9), Ok(None));
    }

    #[test]
    fn times_far_ahead_are_refused() {
        let ended = MembershipEnded {
            minted_before: Ulid::from_parts(u64::MAX, 0).to_string(),
            ..MembershipEnded::default()
        };
        let subject = Subject::MembershipEnded("I1".parse().unwrap());
        let heard = read_one(&subject, Headers::default(), ended.encode_to_vec());
        assert_eq!(heard, Err("minted_before"));
        let status = v3::ServiceStatus { current_time: u64::MAX, ..v3::ServiceStatus::default() };
        let discovery = ServiceDiscoveryMessage { server_name: SERVER_NAME.to_owned(), status: Some(status) };
        let heard = read_one(&Subject::EngineDiscovery, Headers::default(), discovery.encode_to_vec());
        assert_eq!(heard, Err("current_time"));
    }
}
