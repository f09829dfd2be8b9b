//! The handshake of a room socket: authentication by access token, or by a signed challenge in an open room.

use std::time::SystemTime;

use admission::Permit;
use bytes::BytesMut;
use protocol::{
    Address, Close, Message as _, RoomName,
    rfc5::{WsChallenge, WsPacket, ws_packet::Message},
};
use transports::ws_room::{Admission, TokenRefusal};
use ws::{FrameError, OpCode, ReadError, Received, close_answer, put_frame};

use crate::{
    batch::{packet, packet_frame},
    handshake_socket::HandshakeSocket,
    node::Node,
    room::JoinRequest,
};

/// How the server ends a connection: close code and reason. `None` if the client cannot be informed, or has
/// closed the connection itself.
pub(crate) type Disconnect = Option<(Close, String)>;

/// The end of a connection with the usual reason of its close code.
pub(crate) fn disconnect(close: Close) -> Disconnect {
    Some((close, close.reason().to_owned()))
}

/// Authenticates the client by its access token, or by its wallet's signature if the room is open.
///
/// Until this is done, any packet but the expected one ends the connection.
pub(crate) async fn authenticate(
    node: &Node,
    room: &RoomName,
    token: Option<&str>,
    permit: &Permit,
    socket: &mut HandshakeSocket,
) -> Result<JoinRequest, Disconnect> {
    let by_token = match token {
        Some(token) => {
            let verified = node.tokens.verify_signature(token, room.as_str(), SystemTime::now());
            let is_accepted = |(admission, expired): &(Admission, bool)| {
                !expired || node.registry.is_last_token(room, admission.address, admission.minted)
            };
            let verified = verified
                .and_then(|token| if is_accepted(&token) { Ok(token) } else { Err(TokenRefusal::Expired) });
            Some(verified.map_err(|refusal| Some((Close::TokenRefused, refusal.to_string())))?)
        }
        None if node.settings.is_open(room) => None,
        None => return Err(disconnect(Close::UnknownRoom)),
    };
    let Message::PeerIdentification(identification) = next_packet(socket).await? else {
        return Err(disconnect(Close::OutOfOrder));
    };
    let address: Address = identification
        .address
        .parse()
        .map_err(|_| Some((Close::AuthRefused, "not an address".to_owned())))?;
    match by_token {
        Some((admission, expired)) if admission.address == address => {
            Ok(JoinRequest { address, minted: Some(admission.minted), expired })
        }
        Some(_) => Err(Some((Close::TokenRefused, "the access token is for another address".to_owned()))),
        None => {
            verify_challenge(node, room, address, permit, socket).await?;
            Ok(JoinRequest { address, minted: None, expired: false })
        }
    }
}

/// Sends a challenge and verifies that the wallet signed it.
async fn verify_challenge(
    node: &Node,
    room: &RoomName,
    address: Address,
    permit: &Permit,
    socket: &mut HandshakeSocket,
) -> Result<(), Disconnect> {
    let challenge = node.verifier.challenge().map_err(|_| disconnect(Close::Restarting))?;
    let request = WsChallenge {
        challenge_to_sign: challenge.as_str().to_owned(),
        already_connected: node.settings.tell_connected
            && node.registry.room(room).is_some_and(|room| room.contains(address)),
    };
    write_frame(socket, &packet_frame(&packet(Message::ChallengeMessage(request)))).await?;
    let Message::SignedChallengeForServer(signed) = next_packet(socket).await? else {
        return Err(disconnect(Close::OutOfOrder));
    };
    permit.set_waiting(false);
    let verified = node.verifier.verify(signed.auth_chain_json, address, challenge, permit.network()).await;
    verified.map_err(|refusal| Some((refusal.close(), refusal.to_string())))
}

/// Receives the next packet, and answers pings meanwhile.
async fn next_packet(socket: &mut HandshakeSocket) -> Result<Message, Disconnect> {
    loop {
        match socket.next().await.map_err(|error| disconnect_for(&error))? {
            Received::Binary(bytes) => {
                let packet = WsPacket::decode(bytes).map_err(|_| disconnect(Close::Undecodable))?;
                return packet.message.ok_or_else(|| disconnect(Close::OutOfOrder));
            }
            Received::Ping(payload) => {
                let mut pong = BytesMut::new();
                put_frame(&mut pong, OpCode::Pong, &payload);
                write_frame(socket, &pong).await?;
            }
            Received::Pong | Received::Fragment => {}
            Received::Text => return Err(disconnect(Close::TextFrame)),
            Received::Close(code) => {
                write_frame(socket, &close_answer(code)).await?;
                return Err(None);
            }
        }
    }
}

/// The close code and reason after a failed read.
pub(crate) fn disconnect_for(error: &ReadError) -> Disconnect {
    match error {
        ReadError::Frame(FrameError::Protocol) => disconnect(Close::ProtocolError),
        ReadError::Frame(error @ FrameError::InvalidUtf8) => Some((Close::Undecodable, error.to_string())),
        ReadError::Frame(FrameError::TooBig) => disconnect(Close::TooBig),
        ReadError::Disconnected => None,
    }
}

async fn write_frame(socket: &mut HandshakeSocket, frame: &[u8]) -> Result<(), Disconnect> {
    socket.write(frame).await.map_err(|_| None)
}
