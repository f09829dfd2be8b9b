//! The handshake of a room socket: authentication by access token, or by a signed challenge in an open room.

use std::time::SystemTime;

use admission::Permit;
use bytes::BytesMut;
use protocol::{
    Address, Close, Message as _, RoomName,
    rfc5::{WsChallenge, WsPacket, ws_packet::Message},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use transports::ws_room::{Admission, TokenRefusal};
use ws::{FrameError, OpCode, ReadError, Received, close_answer, put_frame};

use crate::{
    batch::{packet, packet_frame},
    node::Node,
    room::JoinRequest,
    throttled_reader::ThrottledReader,
};

/// How the server ends a connection: close code and reason. `None` if the client cannot be informed, or has
/// closed the connection itself.
pub(crate) type Disconnect = Option<(Close, String)>;

fn disconnect(close: Close) -> Disconnect {
    Some((close, close.reason().to_owned()))
}

/// Authenticates the client by its access token, or by its wallet's signature if the room is open.
///
/// Until this is done, any packet but the expected one ends the connection.
pub(crate) async fn authenticate<R, W>(
    node: &Node,
    room: &RoomName,
    token: Option<&str>,
    permit: &Permit,
    reader: &mut ThrottledReader<R>,
    writer: &mut W,
) -> Result<JoinRequest, Disconnect>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
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
    let Message::PeerIdentification(identification) = next_packet(reader, writer).await? else {
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
            verify_challenge(node, room, address, permit, reader, writer).await?;
            Ok(JoinRequest { address, minted: None, expired: false })
        }
    }
}

/// Sends a challenge and verifies that the wallet signed it.
async fn verify_challenge<R, W>(
    node: &Node,
    room: &RoomName,
    address: Address,
    permit: &Permit,
    reader: &mut ThrottledReader<R>,
    writer: &mut W,
) -> Result<(), Disconnect>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let challenge = node.verifier.challenge().map_err(|_| disconnect(Close::Restarting))?;
    let request = WsChallenge {
        challenge_to_sign: challenge.as_str().to_owned(),
        already_connected: node.settings.tell_connected
            && node.registry.room(room).is_some_and(|room| room.contains(address)),
    };
    write_frame(writer, &packet_frame(&packet(Message::ChallengeMessage(request)))).await?;
    let Message::SignedChallengeForServer(signed) = next_packet(reader, writer).await? else {
        return Err(disconnect(Close::OutOfOrder));
    };
    permit.set_waiting(false);
    let verified = node.verifier.verify(signed.auth_chain_json, address, challenge, permit.network()).await;
    verified.map_err(|refusal| Some((refusal.close(), refusal.to_string())))
}

/// Receives the next packet, and answers pings meanwhile.
async fn next_packet<R, W>(reader: &mut ThrottledReader<R>, writer: &mut W) -> Result<Message, Disconnect>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        match reader.next_throttled().await.map_err(|error| disconnect_for(&error))? {
            Received::Binary(bytes) => {
                let packet = WsPacket::decode(bytes).map_err(|_| disconnect(Close::Undecodable))?;
                return packet.message.ok_or_else(|| disconnect(Close::OutOfOrder));
            }
            Received::Ping(payload) => {
                let mut pong = BytesMut::new();
                put_frame(&mut pong, OpCode::Pong, &payload);
                write_frame(writer, &pong).await?;
            }
            Received::Pong | Received::Fragment => {}
            Received::Text => return Err(disconnect(Close::TextFrame)),
            Received::Close(code) => {
                write_frame(writer, &close_answer(code)).await?;
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

async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, frame: &[u8]) -> Result<(), Disconnect> {
    writer.write_all(frame).await.map_err(|_| None)
}
