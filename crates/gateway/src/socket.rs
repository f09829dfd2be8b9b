//! The archipelago socket: one task a session, from its first frame to its last.

use std::error::Error as _;

use admission::{Pace, Ticket};
use axum::{
    Error,
    extract::ws::{CloseFrame, Message, WebSocket},
};
use bus::Headers;
use bytes::Bytes;
use protocol::{
    Address, Close, Message as _, SessionId, Subject,
    v3::{ClientPacket, Heartbeat, KickedMessage, ServerPacket, WelcomeMessage, server_packet},
};
use tokio::{
    sync::mpsc,
    time::{self, Instant, timeout, timeout_at},
};
use tracing::Instrument;

use crate::{
    gateway::Shared,
    handshake::{Handshake, Step},
    live::{Live, LiveState},
    sessions::ToSession,
};

/// What the close frame says. `None`: there is nobody left to tell.
type End = Option<(Close, String)>;

fn end(close: Close) -> End {
    Some((close, close.reason().to_owned()))
}

/// Serves one socket.
pub(crate) async fn serve(shared: &Shared, mut socket: WebSocket, ticket: Ticket) {
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in =
        timeout_at(deadline, sign_in(shared, &mut socket)).await.unwrap_or(Err(end(Close::HandshakeTimeout)));
    drop(ticket);
    let ended = match signed_in {
        Ok(address) => welcome(shared, &mut socket, address).await,
        Err(ended) => ended,
    };
    if let Some((close, reason)) = ended {
        tracing::debug!(code = close.code(), reason, "closed");
        metrics::counter!("atoll_gateway_closed_total", "code" => close.code().to_string()).increment(1);
        // Whoever does not read it is not told.
        let _ = timeout(shared.settings.write_timeout, farewell(&mut socket, close, reason)).await;
    }
}

/// Closes the socket, and reads on until the client has closed it too: a close with bytes unread
/// is a reset, and a reset can overtake the close frame.
async fn farewell(socket: &mut WebSocket, close: Close, reason: String) {
    let frame = CloseFrame { code: close.code(), reason: reason.into() };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

/// Has the client sign a challenge.
async fn sign_in(shared: &Shared, socket: &mut WebSocket) -> Result<Address, End> {
    let mut handshake = Handshake::AwaitRequest;
    loop {
        let packet = match next(socket).await? {
            Received::Packet(packet) => packet,
            Received::SignOfLife => continue,
        };
        let (state, step) = handshake.receive(packet).map_err(Some)?;
        handshake = match step {
            Step::Ignore => state,
            Step::Challenge(address) => {
                let challenge = shared.verifier.challenge().map_err(|_| end(Close::Restarting))?;
                let connected = shared.sessions.contains(address);
                let (state, packet) = Handshake::challenge(address, challenge, connected);
                send(shared, socket, packet.encode_to_vec().into()).await?;
                state
            }
            Step::Verify { address, challenge, auth_chain_json } => {
                let verified = shared.verifier.verify(auth_chain_json, address, challenge).await;
                return match verified {
                    Ok(()) => Ok(address),
                    Err(error) => Err(Some((Close::AuthRefused, error.to_string()))),
                };
            }
        };
    }
}

/// Begins the session, and serves it until it ends.
async fn welcome(shared: &Shared, socket: &mut WebSocket, address: Address) -> End {
    let Ok(random) = admission::random() else { return end(Close::Restarting) };
    let Some((session, mut queue)) = shared.sessions.begin(address, random) else {
        return end(Close::Restarting);
    };
    let span = tracing::debug_span!("session", peer = %address, session = %session);
    let ended = async {
        tracing::debug!("signed in");
        let peer_id = address.to_string();
        let welcome = server_packet::Message::Welcome(WelcomeMessage { peer_id });
        match send(shared, socket, encode(welcome)).await {
            Ok(()) => live(shared, socket, address, session, &mut queue).await,
            Err(ended) => ended,
        }
    }
    .instrument(span)
    .await;
    shared.sessions.end(address, session);
    ended
}

async fn live(
    shared: &Shared,
    socket: &mut WebSocket,
    address: Address,
    session: SessionId,
    queue: &mut mpsc::Receiver<ToSession>,
) -> End {
    let settings = &shared.settings;
    let mut state = LiveState::new(Instant::now());
    let mut pace = Pace::new(settings.messages_per_second, u32::MAX, Instant::now());
    let mut pings = time::interval(settings.ping_interval);
    let mut vouches = time::interval(settings.vouch_interval);
    pings.reset();
    vouches.reset();
    let mut read_from = Instant::now();
    loop {
        let next_step = tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(ToSession::Packet(packet)) => {
                    if let Err(ended) = send(shared, socket, packet).await {
                        return ended;
                    }
                    Live::Ignore
                }
                Some(ToSession::Kicked) => {
                    let kicked = server_packet::Message::Kicked(KickedMessage { reason: 0 });
                    if let Err(ended) = send(shared, socket, encode(kicked)).await {
                        return ended;
                    }
                    Live::End(Close::NewSession)
                }
                Some(ToSession::Restarting) => Live::End(Close::Restarting),
                None => Live::End(Close::TooSlow),
            },
            _ = pings.tick() => state.ping(settings, Instant::now()),
            _ = vouches.tick() => state.vouch(settings, Instant::now()),
            received = paced(socket, read_from) => {
                state.heard();
                match received {
                    Ok(Received::Packet(packet)) => {
                        let now = Instant::now();
                        read_from = pace.count(0, now).unwrap_or(now);
                        state.receive(packet, settings, now)
                    }
                    Ok(Received::SignOfLife) => Live::Ignore,
                    Err(ended) => return ended,
                }
            }
        };
        match next_step {
            Live::Ignore => {}
            Live::Publish(heartbeat) => publish(shared, address, session, &heartbeat),
            Live::Ping => {
                if let Err(ended) = write(shared, socket, Message::Ping(Bytes::new())).await {
                    return ended;
                }
            }
            Live::End(close) => return end(close),
        }
    }
}

fn publish(shared: &Shared, address: Address, session: SessionId, heartbeat: &Heartbeat) {
    let headers = Headers::of_session(session);
    shared.bus.publish(&Subject::PeerHeartbeat(address), headers, heartbeat.encode_to_vec());
    shared.heartbeats.increment(1);
}

/// What came from a client.
enum Received {
    Packet(ClientPacket),
    /// A pong, a ping (answered by the library): it lives.
    SignOfLife,
}

/// The next packet, not before `from`.
async fn paced(socket: &mut WebSocket, from: Instant) -> Result<Received, End> {
    if from > Instant::now() {
        time::sleep_until(from).await;
    }
    next(socket).await
}

/// The next packet. Cancel-safe.
async fn next(socket: &mut WebSocket) -> Result<Received, End> {
    match socket.recv().await {
        Some(Ok(Message::Binary(bytes))) => {
            ClientPacket::decode(bytes).map(Received::Packet).map_err(|_| end(Close::Undecodable))
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Received::SignOfLife),
        Some(Ok(Message::Text(_))) => Err(end(Close::TextFrame)),
        Some(Ok(Message::Close(_))) | None => Err(None),
        Some(Err(error)) => Err(read_end(&error)),
    }
}

/// What the close frame says after a failed read.
fn read_end(error: &Error) -> End {
    use tungstenite::Error::{Capacity, Protocol, Utf8};
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(Capacity(_)) => end(Close::TooBig),
        Some(Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => None,
        Some(Protocol(_) | Utf8(_)) => end(Close::ProtocolError),
        _ => None,
    }
}

async fn send(shared: &Shared, socket: &mut WebSocket, packet: Bytes) -> Result<(), End> {
    write(shared, socket, Message::Binary(packet)).await
}

/// Writes a message, unless the client does not read for too long.
async fn write(shared: &Shared, socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(shared.settings.write_timeout, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(end(Close::TooSlow)),
    }
}

fn encode(message: server_packet::Message) -> Bytes {
    ServerPacket { message: Some(message) }.encode_to_vec().into()
}
