//! The archipelago socket: one task serves a session from its first frame to its last.

use std::sync::Arc;

use admission::{Network, Permit};
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use protocol::{
    Address, Close, Message as _, SessionId,
    v3::{ClientPacket, KickedMessage, ServerPacket, WelcomeMessage, server_packet},
};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use ws::Received;

use crate::{
    client_socket::{ClientSocket, SocketEnd, server_close},
    session::{
        handshake::{Handshake, SignInRequest, Step},
        message::{SessionMessage, SessionReceiver},
        registry::NewSession,
        resumption::Resumption,
        state::{SessionAction, SessionState},
        timers::SessionTimers,
    },
    shared::Shared,
};

/// Serves one socket: handshake, session, close.
pub(crate) async fn serve(shared: Arc<Shared>, mut socket: ClientSocket, permit: Permit) {
    let network = permit.network();
    let shared = &*shared;
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, sign_in(shared, &permit, &mut socket)) => {
            signed_in.unwrap_or(Err(server_close(Close::HandshakeTimeout)))
        }
        () = shared.handshakes.closed() => Err(server_close(Close::Restarting)),
        () = permit.evicted() => Err(server_close(Close::Full)),
    };
    match signed_in {
        Ok(request) => {
            drop(permit);
            let ended = serve_session(shared, &mut socket, request, network).await;
            socket.close(ended).await;
        }
        Err(ended) => {
            // Dropped before the close, so that another handshake does not wait until this client has read
            // it.
            drop(permit);
            socket.close_rejected(ended).await;
        }
    }
}

/// Runs the handshake: sends a challenge and verifies its signature.
async fn sign_in(
    shared: &Shared,
    permit: &Permit,
    socket: &mut ClientSocket,
) -> Result<SignInRequest, SocketEnd> {
    let mut handshake = Handshake::AwaitRequest;
    loop {
        let received = socket.next().await;
        let Some(packet) = receive_packet(socket, received).await? else { continue };
        let (state, step) = handshake.receive(packet)?;
        handshake = match step {
            Step::Ignore => state,
            Step::Challenge(request) => {
                let challenge = shared.verifier.challenge().map_err(|_| server_close(Close::Restarting))?;
                let connected = shared.sessions.already_connected(request.address);
                let (state, packet) = Handshake::challenge(request, challenge, connected);
                socket.send(&packet.encode_to_vec()).await?;
                state
            }
            Step::Verify { request, challenge, auth_chain_json } => {
                permit.set_waiting(false);
                let verified = shared
                    .verifier
                    .verify(auth_chain_json, request.address, challenge, permit.network())
                    .await;
                return match verified {
                    Ok(()) => Ok(request),
                    Err(refusal) => Err(SocketEnd::ByServer(refusal.close(), refusal.to_string())),
                };
            }
        };
    }
}

/// Begins the session, sends the welcome, and serves the session until it ends.
async fn serve_session(
    shared: &Shared,
    socket: &mut ClientSocket,
    request: SignInRequest,
    network: Network,
) -> SocketEnd {
    let (address, transports) = (request.address, request.transports.clone());
    let NewSession { id: session, mut receiver, resumption } =
        match shared.begin_session(request, network).await {
            Ok(begun) => begun,
            Err(close) => return server_close(close),
        };
    let island = tracing::field::Empty;
    let span = tracing::debug_span!("session", peer = %address, session = %session, island);
    let ended = async {
        tracing::debug!("signed in");
        let peer_id = address.to_string();
        let (resume_secret, resumed) = Resumption::welcome(resumption);
        let welcome = WelcomeMessage { peer_id, resume_secret, resumed };
        let welcome = server_packet::Message::Welcome(welcome);
        match socket.send(&encode(welcome)).await {
            Ok(()) => {
                let state = SessionState::new(transports.as_deref(), &shared.settings, Instant::now())
                    .with_resumption(resumption);
                run_session(shared, socket, address, session, state, &mut receiver).await
            }
            Err(ended) => ended,
        }
    }
    .instrument(span)
    .await;
    shared.sessions.end(address, session);
    ended
}

/// Serves a session after its welcome. The order of the `select!` branches is their priority: messages to the
/// client, then frames from it, then timers.
async fn run_session(
    shared: &Shared,
    socket: &mut ClientSocket,
    address: Address,
    session: SessionId,
    mut state: SessionState,
    receiver: &mut SessionReceiver,
) -> SocketEnd {
    let settings = &shared.settings;
    let mut timers = SessionTimers::new(shared);
    loop {
        let next_step = tokio::select! {
            biased;
            message = receiver.next() => match message {
                Ok(message) => {
                    if let Err(ended) = socket.send(&encode_session_message(&message)).await {
                        return ended;
                    }
                    if let SessionMessage::IslandChanged(change) = &message {
                        state.record_island(change);
                    }
                    SessionAction::Ignore
                }
                Err(close) => {
                    if close == Close::NewSession {
                        let kicked = server_packet::Message::Kicked(KickedMessage { reason: 0 });
                        if let Err(ended) = socket.send(&encode(kicked)).await {
                            return ended;
                        }
                    }
                    SessionAction::End(close)
                }
            },
            received = socket.next() => {
                timers.record_arrival();
                match receive_packet(socket, received).await {
                    Ok(Some(packet)) => state.receive(packet, settings, Instant::now()),
                    Ok(None) => SessionAction::Ignore,
                    Err(ended) => return ended,
                }
            }
            next_step = timers.next(&mut state) => next_step,
        };
        match timers.resolve_check(next_step, socket.active_until()) {
            SessionAction::Ignore | SessionAction::CheckLiveness => {}
            SessionAction::Publish(position) => {
                shared.publish_heartbeat(address, session, &mut state, position)
            }
            SessionAction::Ping => {
                if let Err(ended) = socket.ping().await {
                    return ended;
                }
            }
            SessionAction::End(close) => return server_close(close),
        }
    }
}

fn decode(bytes: Bytes) -> Result<ClientPacket, SocketEnd> {
    ClientPacket::decode(bytes).map_err(|_| server_close(Close::Undecodable))
}

/// The packet that a frame completes, if any.
async fn receive_packet(
    socket: &mut ClientSocket,
    received: Result<Received, SocketEnd>,
) -> Result<Option<ClientPacket>, SocketEnd> {
    socket.handle_frame(received?).await?.map(decode).transpose()
}

fn encode(message: server_packet::Message) -> Bytes {
    ServerPacket { message: Some(message) }.encode_to_vec().into()
}

/// Encodes a session message as a `ServerPacket` around the encoded bytes that it carries, without decoding
/// them.
fn encode_session_message(message: &SessionMessage) -> Bytes {
    const ISLAND_CHANGED_FIELD: u32 = 3;
    const LEFT_ISLAND_FIELD: u32 = 4;
    const JOIN_ISLAND_FIELD: u32 = 5;
    let (field, message) = match message {
        SessionMessage::IslandChanged(change) => (ISLAND_CHANGED_FIELD, &change.message),
        SessionMessage::MemberChanged(change) if change.joined => (JOIN_ISLAND_FIELD, &change.message),
        SessionMessage::MemberChanged(change) => (LEFT_ISLAND_FIELD, &change.message),
    };
    let mut packet = BytesMut::with_capacity(message.len() + 6);
    encode_key(field, WireType::LengthDelimited, &mut packet);
    encode_varint(message.len() as u64, &mut packet);
    packet.put_slice(message);
    packet.freeze()
}

#[cfg(test)]
mod tests {
    use protocol::v3::{IslandChangedMessage, JoinIslandMessage, LeftIslandMessage};
    use server_packet::Message::{IslandChanged, JoinIsland, LeftIsland};

    use super::*;
    use crate::session::message::{IslandChange, MemberChange};

    #[test]
    fn wrapped_session_message_equals_its_encoding() {
        let change = IslandChangedMessage {
            island_id: "I1".to_owned(),
            conn_str: "x".repeat(300),
            from_island_id: Some("I0".to_owned()),
            peers: Default::default(),
        };
        let (island, message) = ("I1".parse().unwrap(), change.encode_to_vec().into());
        let message = SessionMessage::IslandChanged(IslandChange { island, node: None, message });
        assert_eq!(encode_session_message(&message), encode(IslandChanged(change)));
        let member = |joined, message: Vec<u8>| {
            let topic = "island.I1.peer_join".parse().unwrap();
            SessionMessage::MemberChanged(Arc::new(MemberChange { joined, topic, message: message.into() }))
        };
        let join = JoinIslandMessage { island_id: "I1".to_owned(), peer_id: "0x1".to_owned() };
        assert_eq!(encode_session_message(&member(true, join.encode_to_vec())), encode(JoinIsland(join)));
        let left = LeftIslandMessage { island_id: "I1".to_owned(), peer_id: "0x1".to_owned() };
        assert_eq!(encode_session_message(&member(false, left.encode_to_vec())), encode(LeftIsland(left)));
    }
}
