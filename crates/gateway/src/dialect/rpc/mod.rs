//! The RPC socket: one task serves a session from its first frame to its last.
//!
//! It shares the handshake limiter, the handshake, the session registry and the session state with the
//! archipelago socket; only the messages differ.

mod procedures;
mod rpc_session;
mod subscriptions;

use std::sync::Arc;

use admission::{Network, Permit, Throttle};
use bytes::Bytes;
use protocol::{
    Address, Close, SessionId,
    bff::{GetChallengeRequest, GetChallengeResponse, SignedChallenge},
    v3::{ChallengeRequestMessage, ClientPacket, SignedChallengeMessage, client_packet},
};
use rpc::{ErrorCode, MessageKind};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use ws::Received;

use crate::{
    client_socket::{ClientSocket, SocketEnd, server_close},
    session::{
        handshake::{Handshake, SignInRequest, Step},
        message::{SessionMessage, SessionReceiver},
        registry::NewSession,
        state::{SessionAction, SessionState},
        timers::SessionTimers,
    },
    shared::Shared,
};
use procedures::ProcedureId;
use rpc_session::{ClientRequest, RpcSession};
use subscriptions::Subscriptions;

/// Serves one socket: handshake, session, close.
pub(crate) async fn serve(shared: Arc<Shared>, mut socket: ClientSocket, permit: Permit) {
    let network = permit.network();
    let shared = &*shared;
    let settings = &shared.settings;
    let (max, buffer) = (settings.max_subscriptions, settings.subscription_buffer);
    let rpc = RpcSession::new(Subscriptions::new(shared.topics.clone(), max, buffer));
    let topic_throttle = Throttle::new(u32::MAX, settings.topic_bytes_per_second, Instant::now());
    let mut client = RpcSocket { shared, socket: &mut socket, rpc, topic_throttle };
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, client.sign_in(&permit)) => {
            signed_in.unwrap_or(Err(server_close(Close::HandshakeTimeout)))
        }
        () = shared.handshakes.closed() => Err(server_close(Close::Restarting)),
        () = permit.evicted() => Err(server_close(Close::Full)),
    };
    match signed_in {
        Ok((request, number)) => {
            drop(permit);
            let ended = client.serve_session(request, network, number).await;
            // Ends its subscriptions before the closing handshake.
            drop(client);
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

/// The socket of one client with its RPC state.
struct RpcSocket<'a> {
    shared: &'a Shared,
    socket: &'a mut ClientSocket,
    rpc: RpcSession,
    /// Rate limit of the bytes that the client publishes under topics, which are delivered to many
    /// subscribers.
    topic_throttle: Throttle,
}

impl RpcSocket<'_> {
    /// Runs the handshake. Returns the request, and the number of the call that awaits the welcome.
    async fn sign_in(&mut self, permit: &Permit) -> Result<(SignInRequest, u32), SocketEnd> {
        let mut handshake = Handshake::AwaitRequest;
        loop {
            self.flush().await?;
            let received = self.socket.next().await?;
            self.receive_frame(received).await?;
            while let Some((number, call, payload)) = self.rpc.poll_sign_in() {
                let Some(packet) = self.sign_in_packet(number, call, payload) else { continue };
                let (state, step) = match handshake.receive(packet) {
                    Ok(next) => next,
                    Err((close, reason)) => return Err(self.reject(number, close, reason).await),
                };
                handshake = match step {
                    Step::Ignore => state,
                    Step::Challenge(request) => self.challenge(number, request)?,
                    Step::Verify { request, challenge, auth_chain_json } => {
                        permit.set_waiting(false);
                        let verifier = &self.shared.verifier;
                        let verified = verifier
                            .verify(auth_chain_json, request.address, challenge, permit.network())
                            .await;
                        return match verified {
                            Ok(()) => Ok((request, number)),
                            Err(refusal) => {
                                Err(self.reject(number, refusal.close(), refusal.to_string()).await)
                            }
                        };
                    }
                };
            }
        }
    }

    /// Translates a call of the sign-in to the packet of the archipelago socket.
    fn sign_in_packet(&mut self, number: u32, call: ProcedureId, payload: Bytes) -> Option<ClientPacket> {
        let message = match call {
            ProcedureId::GetChallenge => {
                let request: GetChallengeRequest = self.rpc.decode_argument(number, payload)?;
                let GetChallengeRequest { address, transports, resume_secret } = request;
                let resume_secret = resume_secret.map(Vec::from);
                let request = ChallengeRequestMessage { address, transports, resume_secret };
                client_packet::Message::ChallengeRequest(request)
            }
            ProcedureId::Authenticate => {
                let SignedChallenge { auth_chain_json } = self.rpc.decode_argument(number, payload)?;
                client_packet::Message::SignedChallenge(SignedChallengeMessage { auth_chain_json })
            }
            // The module of this procedure is not offered yet.
            _ => return None,
        };
        Some(ClientPacket { message: Some(message) })
    }

    fn challenge(&mut self, number: u32, request: SignInRequest) -> Result<Handshake, SocketEnd> {
        let challenge = self.shared.verifier.challenge().map_err(|_| server_close(Close::Restarting))?;
        let challenge_to_sign = challenge.as_str().to_owned();
        let already_connected = self.shared.sessions.already_connected(request.address);
        self.rpc.respond(number, &GetChallengeResponse { challenge_to_sign, already_connected });
        Ok(Handshake::AwaitSignature { request, challenge })
    }

    /// Responds to a call of the sign-in with an error. Returns the end of the socket, with the same reason.
    async fn reject(&mut self, number: u32, close: Close, reason: String) -> SocketEnd {
        self.rpc.reject(number, ErrorCode::Refused, &reason);
        match self.flush().await {
            Ok(()) => SocketEnd::ByServer(close, reason),
            Err(ended) => ended,
        }
    }

    /// Begins the session, sends the welcome, and serves the session until it ends.
    async fn serve_session(&mut self, request: SignInRequest, network: Network, number: u32) -> SocketEnd {
        let (shared, address) = (self.shared, request.address);
        let transports = request.transports.clone();
        let NewSession { id: session, mut receiver, resumption } =
            match shared.begin_session(request, network).await {
                Ok(begun) => begun,
                Err(close) => return self.reject(number, close, close.reason().to_owned()).await,
            };
        let island = tracing::field::Empty;
        let span = tracing::debug_span!("session", peer = %address, session = %session, island);
        let ended = async {
            tracing::debug!("signed in");
            self.rpc.welcome(number, address, resumption);
            let state = SessionState::new(transports.as_deref(), &self.shared.settings, Instant::now())
                .with_resumption(resumption);
            self.run_session(address, session, state, &mut receiver).await
        }
        .instrument(span)
        .await;
        shared.sessions.end(address, session);
        ended
    }

    /// Serves a session after its welcome. The order of the `select!` branches is their priority: messages to
    /// the session, then frames from the client, then timers, then queued topic messages.
    async fn run_session(
        &mut self,
        address: Address,
        session: SessionId,
        mut state: SessionState,
        receiver: &mut SessionReceiver,
    ) -> SocketEnd {
        let (shared, settings) = (self.shared, &self.shared.settings);
        let queues = self.rpc.queues();
        let mut timers = SessionTimers::new(shared);
        loop {
            // Messages that arrived together with the signature may contain requests already.
            while let Some(request) = self.rpc.poll_request(address) {
                match request {
                    ClientRequest::Heartbeat(heartbeat) => {
                        let next_step = state.receive_heartbeat(heartbeat, settings, Instant::now());
                        if let SessionAction::Publish(position) = next_step {
                            shared.publish_heartbeat(address, session, &mut state, position);
                        }
                    }
                    ClientRequest::Publish(topic, payload) => {
                        let now = Instant::now();
                        let from = self.topic_throttle.charge(topic.as_str().len() + payload.len(), now);
                        self.socket.delay_reads_until(from);
                        shared.publish_topic(address, session, topic, payload);
                    }
                }
            }
            self.rpc.serve_streams();
            if let Err(ended) = self.flush().await {
                return ended;
            }
            let next_step = tokio::select! {
                biased;
                message = receiver.next() => match message {
                    Ok(message) => {
                        match &message {
                            SessionMessage::IslandChanged(change) => {
                                // Kept until the client requests it, so it counts as sent from now on.
                                self.rpc.island_changed(&change.message);
                                state.record_island(change);
                            }
                            SessionMessage::MemberChanged(change) => self.rpc.member_changed(change),
                        }
                        SessionAction::Ignore
                    }
                    Err(close) => {
                        if close == Close::NewSession {
                            self.rpc.notify_kicked();
                            if let Err(ended) = self.flush().await {
                                return ended;
                            }
                        }
                        SessionAction::End(close)
                    }
                },
                received = self.socket.next() => {
                    timers.record_arrival();
                    let result = match received {
                        Ok(received) => self.receive_frame(received).await,
                        Err(ended) => Err(ended),
                    };
                    if let Err(ended) = result {
                        return ended;
                    }
                    SessionAction::Ignore
                }
                next_step = timers.next(&mut state) => next_step,
                // Lowest priority, so that messages of others never keep the gateway from reading this
                // client.
                () = queues.wait_for_message() => SessionAction::Ignore,
            };
            match timers.resolve_check(next_step, self.socket.active_until()) {
                SessionAction::Ignore | SessionAction::CheckLiveness => {}
                SessionAction::Publish(position) => {
                    shared.publish_heartbeat(address, session, &mut state, position)
                }
                SessionAction::Ping => {
                    if let Err(ended) = self.socket.ping().await {
                        return ended;
                    }
                }
                SessionAction::End(close) => return server_close(close),
            }
        }
    }

    /// Processes a frame.
    async fn receive_frame(&mut self, received: Received) -> Result<(), SocketEnd> {
        let Some(bytes) = self.socket.handle_frame(received).await? else { return Ok(()) };
        let kind = self.rpc.receive(&bytes).map_err(|_| server_close(Close::Undecodable))?;
        // Due acknowledgements do not count against the rate limit: there is one for each element that was
        // sent.
        if kind == MessageKind::Acknowledged {
            self.socket.refund();
        }
        Ok(())
    }

    /// Writes all pending output.
    async fn flush(&mut self) -> Result<(), SocketEnd> {
        while let Some(bytes) = self.rpc.poll_output() {
            self.socket.send(&bytes).await?;
        }
        Ok(())
    }
}
