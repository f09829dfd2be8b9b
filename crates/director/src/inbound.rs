//! From the bus to the engine's inputs.

use archipelago::{Input, Transport, TransportKind};
use bus::Envelope;
use protocol::{
    Message as _, Position, Subject, atoll_bus::TransportAnnouncement, is_protocol_name, v3::Heartbeat,
};

/// What a message means to the engine; `None`, counted, if it means nothing.
pub(crate) fn input(envelope: &Envelope, position_bound_m: f32) -> Option<Input> {
    let input = read(envelope, position_bound_m);
    if let Err(reason) = input {
        metrics::counter!("atoll_director_refused_total", "reason" => reason).increment(1);
    }
    input.ok()
}

fn read(envelope: &Envelope, position_bound_m: f32) -> Result<Input, &'static str> {
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
            let position =
                Position::checked(heartbeat.position.as_ref(), position_bound_m).map_err(|_| "position")?;
            Ok(Input::Heartbeat { peer, session, position, desired_room: heartbeat.desired_room })
        }
        Subject::TransportAnnounce(node) => {
            let announcement =
                TransportAnnouncement::decode(&envelope.payload[..]).map_err(|_| "undecodable")?;
            Ok(Input::Transport(Transport {
                node,
                kind: kind(&announcement.kind).ok_or("transport_kind")?,
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

/// The kinds, as nodes spell them.
fn kind(text: &str) -> Option<TransportKind> {
    Some(match text {
        "ws-room" => TransportKind::WsRoom,
        "livekit" => TransportKind::LiveKit,
        "p2p" => TransportKind::P2p,
        "external" => TransportKind::External,
        _ => return None,
    })
}
