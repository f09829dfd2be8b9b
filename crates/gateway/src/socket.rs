//! The archipelago socket: one task a session, from its first frame to its last.

use std::{error::Error as _, time::Duration};

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
use tokio::time::{self, Instant, MissedTickBehavior, timeout, timeout_at};
use tracing::Instrument;

use crate::{
    gateway::Shared,
    handshake::{Applicant, Handshake, Step},
    live::{Live, LiveState},
    sessions::Inbox,
};

/// How long the answer to a client's goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the close frame says. `None`: there is nobody left to tell.
type End = Option<(Close, String)>;

fn end(close: Close) -> End {
    Some((close, close.reason().to_owned()))
}

/// Serves one socket.
pub(crate) async fn serve(shared: &Shared, mut socket: WebSocket, ticket: Ticket) {
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, sign_in(shared, &mut socket)) => {
            signed_in.unwrap_or(Err(end(Close::HandshakeTimeout)))
        }
        () = shared.door.closed() => Err(end(Close::Restarting)),
    };
    match signed_in {
        Ok(applicant) => {
            drop(ticket);
            let ended = welcome(shared, &mut socket, applicant).await;
            farewell(shared, &mut socket, ended).await;
        }
        // Until it has gone it is on its way in.
        Err(ended) => farewell(shared, &mut socket, ended).await,
    }
}

/// Closes the socket, and reads on until the client has closed it too: a close with bytes unread
/// is a reset, and a reset can overtake the close frame. Whoever does not read it is not told.
async fn farewell(shared: &Shared, socket: &mut WebSocket, ended: End) {
    let Some((close, reason)) = ended else { return };
    tracing::debug!(code = close.code(), reason, "closed");
    metrics::counter!("atoll_gateway_closed_total", "code" => close.code().to_string()).increment(1);
    let goodbye = async {
        let frame = CloseFrame { code: close.code(), reason: reason.into() };
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = timeout(shared.settings.write_timeout, goodbye).await;
}

/// Has the client sign a challenge.
async fn sign_in(shared: &Shared, socket: &mut WebSocket) -> Result<Applicant, End> {
    let mut handshake = Handshake::AwaitRequest;
    loop {
        let packet = match next(socket).await? {
            Received::Packet(packet) => packet,
            Received::SignOfLife => continue,
        };
        let (state, step) = handshake.receive(packet).map_err(Some)?;
        handshake = match step {
            Step::Ignore => state,
            Step::Challenge(applicant) => {
                let challenge = shared.verifier.challenge().map_err(|_| end(Close::Restarting))?;
                let connected = shared.sessions.contains(applicant.address);
                let (state, packet) = Handshake::challenge(applicant, challenge, connected);
                send(shared, socket, packet.encode_to_vec().into()).await?;
                state
            }
            Step::Verify { applicant, challenge, auth_chain_json } => {
                let verified = shared.verifier.verify(auth_chain_json, applicant.address, challenge).await;
                return match verified {
                    Ok(()) => Ok(applicant),
                    Err(error) => Err(Some((Close::AuthRefused, error.to_string()))),
                };
            }
        };
    }
}

/// Begins the session, and serves it until it ends.
async fn welcome(shared: &Shared, socket: &mut WebSocket, applicant: Applicant) -> End {
    let address = applicant.address;
    let Ok(random) = admission::random() else { return end(Close::Restarting) };
    let (session, mut inbox) = match shared.sessions.begin(applicant, random) {
        Ok(begun) => begun,
        Err(close) => return end(close),
    };
    let island = tracing::field::Empty;
    let span = tracing::debug_span!("session", peer = %address, session = %session, island);
    let ended = async {
        tracing::debug!("signed in");
        let peer_id = address.to_string();
        let welcome = server_packet::Message::Welcome(WelcomeMessage { peer_id });
        match send(shared, socket, encode(welcome)).await {
            Ok(()) => live(shared, socket, address, session, &mut inbox).await,
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
    inbox: &mut Inbox,
) -> End {
    let settings = &shared.settings;
    let mut state = LiveState::new(Instant::now());
    let mut pace = Pace::new(settings.messages_per_second, u32::MAX, Instant::now());
    let mut pings = time::interval(settings.ping_interval);
    let mut vouches = time::interval(settings.vouch_interval);
    // A process that was stopped for a while does not blame its clients.
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    vouches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    vouches.reset();
    let mut read_from = Instant::now();
    loop {
        let next_step = tokio::select! {
            biased;
            packet = inbox.next() => match packet {
                Ok(packet) => {
                    record_island(&packet);
                    if let Err(ended) = send(shared, socket, packet).await {
                        return ended;
                    }
                    Live::Ignore
                }
                Err(close) => {
                    if close == Close::NewSession {
                        let kicked = server_packet::Message::Kicked(KickedMessage { reason: 0 });
                        if let Err(ended) = send(shared, socket, encode(kicked)).await {
                            return ended;
                        }
                    }
                    Live::End(close)
                }
            },
            received = paced(socket, read_from) => {
                state.heard();
                let now = Instant::now();
                // Every frame counts, so that none of them is a way around the pace.
                read_from = pace.count(0, now).unwrap_or(now);
                match received {
                    Ok(Received::Packet(packet)) => state.receive(packet, settings, now),
                    Ok(Received::SignOfLife) => Live::Ignore,
                    Err(ended) => return ended,
                }
            }
            _ = pings.tick() => state.ping(settings, Instant::now()),
            _ = vouches.tick() => state.vouch(settings, Instant::now()),
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

/// Puts the island that the client is told of into the session's span, if it is logged.
fn record_island(packet: &Bytes) {
    let span = tracing::Span::current();
    if !span.is_disabled()
        && let Ok(ServerPacket { message: Some(server_packet::Message::IslandChanged(change)) }) =
            ServerPacket::decode(&packet[..])
    {
        span.record("island", change.island_id);
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
        Some(Ok(Message::Close(_))) => {
            // The library's answer goes out with the next read, which finds the end.
            let _ = timeout(GOODBYE, socket.recv()).await;
            Err(None)
        }
        None => Err(None),
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
