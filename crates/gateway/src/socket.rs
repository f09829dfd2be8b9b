//! The archipelago socket: one task a session, from its first frame to its last.

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
    frames::{End, Socket, end},
    gateway::Shared,
    handshake::{Applicant, Handshake, Step},
    live::{Live, LiveState},
    resume::Resumption,
    sessions::{Inbox, Told},
    timers::Timers,
};

/// Serves one socket.
pub(crate) async fn serve(shared: Arc<Shared>, mut socket: Socket, permit: Permit) {
    let network = permit.network();
    let shared = &*shared;
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, sign_in(shared, &permit, &mut socket)) => {
            signed_in.unwrap_or(Err(end(Close::HandshakeTimeout)))
        }
        () = shared.handshakes.closed() => Err(end(Close::Restarting)),
        () = permit.evicted() => Err(end(Close::Full)),
    };
    match signed_in {
        Ok(applicant) => {
            drop(permit);
            let ended = welcome(shared, &mut socket, applicant, network).await;
            socket.close(ended).await;
        }
        Err(ended) => {
            // Another handshake need not wait until this client has read why it was refused.
            drop(permit);
            socket.refuse(ended).await;
        }
    }
}

/// Has the client sign a challenge.
async fn sign_in(shared: &Shared, permit: &Permit, socket: &mut Socket) -> Result<Applicant, End> {
    let mut handshake = Handshake::AwaitRequest;
    loop {
        let received = socket.next().await;
        let Some(packet) = take(socket, received).await? else { continue };
        let (state, step) = handshake.receive(packet)?;
        handshake = match step {
            Step::Ignore => state,
            Step::Challenge(applicant) => {
                let challenge = shared.verifier.challenge().map_err(|_| end(Close::Restarting))?;
                let connected = shared.sessions.reports_connected(applicant.address);
                let (state, packet) = Handshake::challenge(applicant, challenge, connected);
                socket.send(&packet.encode_to_vec()).await?;
                state
            }
            Step::Verify { applicant, challenge, auth_chain_json } => {
                permit.set_waiting(false);
                let verified = shared
                    .verifier
                    .verify(auth_chain_json, applicant.address, challenge, permit.network())
                    .await;
                return match verified {
                    Ok(()) => Ok(applicant),
                    Err(refusal) => Err(End::ByServer(refusal.close(), refusal.to_string())),
                };
            }
        };
    }
}

/// Begins the session, and serves it until it ends.
async fn welcome(shared: &Shared, socket: &mut Socket, applicant: Applicant, network: Network) -> End {
    let (address, transports) = (applicant.address, applicant.transports.clone());
    let (session, mut inbox) = match shared.begin(applicant, network).await {
        Ok(begun) => begun,
        Err(close) => return end(close),
    };
    let island = tracing::field::Empty;
    let span = tracing::debug_span!("session", peer = %address, session = %session, island);
    let ended = async {
        tracing::debug!("signed in");
        let peer_id = address.to_string();
        let (resume_secret, resumed) = Resumption::welcome(inbox.resumption);
        let welcome = WelcomeMessage { peer_id, resume_secret, resumed };
        let welcome = server_packet::Message::Welcome(welcome);
        match socket.send(&encode(welcome)).await {
            Ok(()) => {
                let state = LiveState::new(transports.as_deref(), &shared.settings, Instant::now())
                    .with_resumption(inbox.resumption);
                live(shared, socket, address, session, state, &mut inbox).await
            }
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
    socket: &mut Socket,
    address: Address,
    session: SessionId,
    mut state: LiveState,
    inbox: &mut Inbox,
) -> End {
    let settings = &shared.settings;
    let mut timers = Timers::new(shared);
    loop {
        let next_step = tokio::select! {
            biased;
            told = inbox.next() => match told {
                Ok(told) => {
                    if let Err(ended) = socket.send(&packet(&told)).await {
                        return ended;
                    }
                    if let Told::IslandChanged(change) = &told {
                        state.told(change);
                    }
                    Live::Ignore
                }
                Err(close) => {
                    if close == Close::NewSession {
                        let kicked = server_packet::Message::Kicked(KickedMessage { reason: 0 });
                        if let Err(ended) = socket.send(&encode(kicked)).await {
                            return ended;
                        }
                    }
                    Live::End(close)
                }
            },
            received = socket.next() => {
                timers.arrived();
                match take(socket, received).await {
                    Ok(Some(packet)) => state.receive(packet, settings, Instant::now()),
                    Ok(None) => Live::Ignore,
                    Err(ended) => return ended,
                }
            }
            next_step = timers.next(&mut state) => next_step,
        };
        match timers.checked(next_step, socket.active_until()) {
            Live::Ignore | Live::Check => {}
            Live::Publish(position) => shared.publish_heartbeat(address, session, &mut state, position),
            Live::Ping => {
                if let Err(ended) = socket.ping().await {
                    return ended;
                }
            }
            Live::End(close) => return end(close),
        }
    }
}

fn decode(bytes: Bytes) -> Result<ClientPacket, End> {
    ClientPacket::decode(bytes).map_err(|_| end(Close::Undecodable))
}

/// The packet that a frame completes, if it does.
async fn take(socket: &mut Socket, received: Result<Received, End>) -> Result<Option<ClientPacket>, End> {
    socket.accept(received?).await?.map(decode).transpose()
}

fn encode(message: server_packet::Message) -> Bytes {
    ServerPacket { message: Some(message) }.encode_to_vec().into()
}

/// What is told as a `ServerPacket`, around the bytes of its message.
fn packet(told: &Told) -> Bytes {
    const ISLAND_CHANGED_FIELD: u32 = 3;
    const LEFT_ISLAND_FIELD: u32 = 4;
    const JOIN_ISLAND_FIELD: u32 = 5;
    let (field, message) = match told {
        Told::IslandChanged(change) => (ISLAND_CHANGED_FIELD, &change.message),
        Told::MemberChanged(change) if change.joined => (JOIN_ISLAND_FIELD, &change.message),
        Told::MemberChanged(change) => (LEFT_ISLAND_FIELD, &change.message),
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
    use crate::sessions::{IslandChange, MemberChange};

    #[test]
    fn what_is_told_is_wrapped_as_it_would_be_encoded() {
        let change = IslandChangedMessage {
            island_id: "I1".to_owned(),
            conn_str: "x".repeat(300),
            from_island_id: Some("I0".to_owned()),
            peers: Default::default(),
        };
        let (island, message) = ("I1".parse().unwrap(), change.encode_to_vec().into());
        let told = Told::IslandChanged(IslandChange { island, node: None, message });
        assert_eq!(packet(&told), encode(IslandChanged(change)));
        let member = |joined, message: Vec<u8>| {
            let topic = "island.I1.peer_join".parse().unwrap();
            Told::MemberChanged(Arc::new(MemberChange { joined, topic, message: message.into() }))
        };
        let join = JoinIslandMessage { island_id: "I1".to_owned(), peer_id: "0x1".to_owned() };
        assert_eq!(packet(&member(true, join.encode_to_vec())), encode(JoinIsland(join)));
        let left = LeftIslandMessage { island_id: "I1".to_owned(), peer_id: "0x1".to_owned() };
        assert_eq!(packet(&member(false, left.encode_to_vec())), encode(LeftIsland(left)));
    }
}
