//! From the bus to the engine's inputs.

use archipelago::{Input, Transport, TransportKind};
use bus::Envelope;
use protocol::{
    Message as _, Position, Subject, atoll_bus::TransportAnnouncement, is_protocol_name, v3::Heartbeat,
};

use crate::Settings;

/// The one kind of node that announces itself: for the others nobody could mint.
const WS_ROOM: &str = "ws-room";

/// What a message means to the engine; `None`, counted, if it means nothing.
pub(crate) fn input(envelope: &Envelope, settings: &Settings) -> Option<Input> {
    let input = read(envelope, settings);
    if let Err(reason) = input {
        metrics::counter!("atoll_director_refused_total", "reason" => reason).increment(1);
    }
    input.ok()
}

fn read(envelope: &Envelope, settings: &Settings) -> Result<Input, &'static str> {
    let session = envelope.headers.session;
    match envelope.subject().ok_or("subject")? {
        Subject::PeerConnect(peer) => {
            let transports = envelope.headers.transports.as_deref().and_then(joinable);
            Ok(Input::Connected { peer, session, transports })
        }
        Subject::PeerDisconnect(peer) => Ok(Input::Disconnected { peer, session }),
        Subject::PeerHeartbeat(peer) => {
            let heartbeat = Heartbeat::decode(&envelope.payload[..]).map_err(|_| "undecodable")?;
            // Gateways check positions too; foreign ones may not.
            let position = Position::checked(heartbeat.position.as_ref(), settings.position_bound_m)
                .map_err(|_| "position")?;
            Ok(Input::Heartbeat { peer, session, position, desired_room: heartbeat.desired_room })
        }
        Subject::TransportAnnounce(node) => {
            let announcement =
                TransportAnnouncement::decode(&envelope.payload[..]).map_err(|_| "undecodable")?;
            if announcement.kind != WS_ROOM {
                return Err("transport_kind");
            }
            if settings.transports.iter().any(|configured| configured.node == node) {
                return Err("transport_name");
            }
            Ok(Input::Transport(Transport {
                node,
                kind: TransportKind::WsRoom,
                capability: WS_ROOM.into(),
                public_url: announcement.public_url.into(),
                max_island_size: announcement.max_island_size,
                seats: u32::try_from(announcement.available_seats).ok(),
                users: announcement.users,
                draining: announcement.draining,
            }))
        }
        _ => Err("subject"),
    }
}

/// What a client can join. Gateways check it too; foreign ones may not.
fn joinable(names: &str) -> Option<Vec<String>> {
    let names = names.split(',');
    names.map(|name| is_protocol_name(name).then(|| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use bus::{Bus, Headers};
    use protocol::{Address, subject};

    use super::*;
    use crate::{Configured, Offer, tests::settings};

    /// What is made of one message.
    fn read_one(subject: &Subject, headers: Headers, payload: Vec<u8>) -> Result<Input, &'static str> {
        let bus = Bus::in_process();
        let mut subscription =
            bus.subscribe("test", &[subject::PEER_CONNECTS, subject::TRANSPORT_ANNOUNCEMENTS], 1);
        bus.publish(subject, headers, payload);
        let node = "mesh".parse().unwrap();
        let offer = Offer::P2p(Default::default());
        let mesh = Configured { node, offer, max_island_size: 12, max_users: None, draining: false };
        read(&subscription.try_next().unwrap(), &crate::Settings { transports: vec![mesh], ..settings() })
    }

    #[test]
    fn only_room_nodes_announce_themselves_and_under_names_that_are_free() {
        let announced = |node: &str, kind: &str| {
            let announcement = TransportAnnouncement { kind: kind.to_owned(), ..Default::default() };
            let subject = Subject::TransportAnnounce(node.parse().unwrap());
            read_one(&subject, Headers::default(), announcement.encode_to_vec())
        };
        assert!(matches!(announced("rooms-1", "ws-room"), Ok(Input::Transport(_))));
        assert_eq!(announced("mesh", "ws-room"), Err("transport_name"));
        for kind in ["livekit", "p2p", "external", "", "WS-ROOM"] {
            assert_eq!(announced("rooms-1", kind), Err("transport_kind"), "{kind:?}");
        }
    }

    #[test]
    fn what_a_client_can_join_comes_with_its_connect() {
        let peer = Address::new([1; 20]);
        let joinable = |names: Option<&str>| {
            let headers = Headers { transports: names.map(Into::into), ..Headers::default() };
            match read_one(&Subject::PeerConnect(peer), headers, Vec::new()) {
                Ok(Input::Connected { transports, .. }) => transports,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(joinable(None), None);
        assert_eq!(joinable(Some("p2p,ws-room")), Some(vec!["p2p".to_owned(), "ws-room".to_owned()]));
        for unread in ["", "p2p,", "p2p, ws-room"] {
            assert_eq!(joinable(Some(unread)), None, "{unread:?}");
        }
    }
}
