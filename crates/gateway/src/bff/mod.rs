//! The RPC socket: one task a session, from its first frame to its last.
//!
//! It signs people in and keeps their sessions as the archipelago socket does, through the same
//! door, handshake, sessions and live state; only what is said differs.

mod backlogs;
mod desk;
mod services;
mod subscriptions;

pub(crate) use backlogs::Backlogs;

use std::sync::Arc;

use admission::{Network, Pace, Permit};
use bytes::Bytes;
use protocol::{
    Address, Close, SessionId,
    bff::{GetChallengeRequest, GetChallengeResponse, SignedChallenge},
    v3::{ChallengeRequestMessage, ClientPacket, SignedChallengeMessage, client_packet},
};
use rpc::{ErrorCode, Taken};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use ws::Received;

use crate::{
    frames::{End, Socket, end},
    gateway::Shared,
    handshake::{Applicant, Handshake, Step},
    live::{Live, LiveState},
    sessions::{Inbox, Told},
    timers::Timers,
};
use desk::{Asked, Desk};
use services::Call;
use subscriptions::Subscriptions;

/// Serves one socket.
pub(crate) async fn serve(shared: Arc<Shared>, mut socket: Socket, permit: Permit) {
    let network = permit.network();
    let shared = &*shared;
    let settings = &shared.settings;
    let (max, buffer) = (settings.max_subscriptions, settings.subscription_buffer);
    let desk = Desk::new(Subscriptions::new(shared.topics.clone(), max, buffer));
    let topic_pace = Pace::new(u32::MAX, settings.topic_bytes_per_second, Instant::now());
    let mut client = Client { shared, socket: &mut socket, desk, topic_pace };
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, client.sign_in(&permit)) => {
            signed_in.unwrap_or(Err(end(Close::HandshakeTimeout)))
        }
        () = shared.handshakes.closed() => Err(end(Close::Restarting)),
        () = permit.evicted() => Err(end(Close::Full)),
    };
    match signed_in {
        Ok((applicant, number)) => {
            drop(permit);
            let ended = client.welcome(applicant, network, number).await;
            // It listens to nothing while it goes.
            drop(client);
            socket.close(ended).await;
        }
        Err(ended) => {
            // Another handshake need not wait until this client has read why it was refused.
            drop(permit);
            socket.refuse(ended).await;
        }
    }
}

struct Client<'a> {
    shared: &'a Shared,
    socket: &'a mut Socket,
    desk: Desk,
    /// Of what it publishes under topics, which goes to many.
    topic_pace: Pace,
}

impl Client<'_> {
    /// Has the client sign a challenge; gives the number of the call that waits for its welcome.
    async fn sign_in(&mut self, permit: &Permit) -> Result<(Applicant, u32), End> {
        let mut handshake = Handshake::AwaitRequest;
        loop {
            self.flush().await?;
            let received = self.socket.next().await?;
            self.take(received).await?;
            while let Some((number, call, payload)) = self.desk.poll_sign_in() {
                let Some(packet) = self.sign_in_packet(number, call, payload) else { continue };
                let (state, step) = match handshake.receive(packet) {
                    Ok(next) => next,
                    Err((close, reason)) => return Err(self.turn_away(number, close, reason).await),
                };
                handshake = match step {
                    Step::Ignore => state,
                    Step::Challenge(applicant) => self.challenge(number, applicant)?,
                    Step::Verify { applicant, challenge, auth_chain_json } => {
                        permit.set_waiting(false);
                        let verifier = &self.shared.verifier;
                        let verified = verifier
                            .verify(auth_chain_json, applicant.address, challenge, permit.network())
                            .await;
                        return match verified {
                            Ok(()) => Ok((applicant, number)),
                            Err(refusal) => {
                                Err(self.turn_away(number, refusal.close(), refusal.to_string()).await)
                            }
                        };
                    }
                };
            }
        }
    }

    /// What a call of the sign-in would be on the archipelago socket.
    fn sign_in_packet(&mut self, number: u32, call: Call, payload: Bytes) -> Option<ClientPacket> {
        let message = match call {
            Call::GetChallenge => {
                let request: GetChallengeRequest = self.desk.argument(number, payload)?;
                let GetChallengeRequest { address, transports, resume_secret } = request;
                let resume_secret = resume_secret.map(Vec::from);
                let request = ChallengeRequestMessage { address, transports, resume_secret };
                client_packet::Message::ChallengeRequest(request)
            }
            Call::Authenticate => {
                let SignedChallenge { auth_chain_json } = self.desk.argument(number, payload)?;
                client_packet::Message::SignedChallenge(SignedChallengeMessage { auth_chain_json })
            }
            // Not on offer yet.
            _ => return None,
        };
        Some(ClientPacket { message: Some(message) })
    }

    fn challenge(&mut self, number: u32, applicant: Applicant) -> Result<Handshake, End> {
        let challenge = self.shared.verifier.challenge().map_err(|_| end(Close::Restarting))?;
        let challenge_to_sign = challenge.as_str().to_owned();
        let already_connected = self.shared.sessions.reports_connected(applicant.address);
        self.desk.respond(number, &GetChallengeResponse { challenge_to_sign, already_connected });
        Ok(Handshake::AwaitSignature { applicant, challenge })
    }

    /// Answers a call of the sign-in with an error, and ends the socket for the same reason.
    async fn turn_away(&mut self, number: u32, close: Close, reason: String) -> End {
        self.desk.refuse(number, ErrorCode::Refused, &reason);
        match self.flush().await {
            Ok(()) => End::ByServer(close, reason),
            Err(ended) => ended,
        }
    }

    /// Begins the session, and serves it until it ends.
    async fn welcome(&mut self, applicant: Applicant, network: Network, number: u32) -> End {
        let (shared, address) = (self.shared, applicant.address);
        let transports = applicant.transports.clone();
        let (session, mut inbox) = match shared.begin(applicant, network).await {
            Ok(begun) => begun,
            Err(close) => return self.turn_away(number, close, close.reason().to_owned()).await,
        };
        let island = tracing::field::Empty;
        let span = tracing::debug_span!("session", peer = %address, session = %session, island);
        let ended = async {
            tracing::debug!("signed in");
            self.desk.welcome(number, address, inbox.resumption);
            let state = LiveState::new(transports.as_deref(), &self.shared.settings, Instant::now())
                .with_resumption(inbox.resumption);
            self.live(address, session, state, &mut inbox).await
        }
        .instrument(span)
        .await;
        shared.sessions.end(address, session);
        ended
    }

    async fn live(
        &mut self,
        address: Address,
        session: SessionId,
        mut state: LiveState,
        inbox: &mut Inbox,
    ) -> End {
        let (shared, settings) = (self.shared, &self.shared.settings);
        let backlogs = self.desk.backlogs();
        let mut timers = Timers::new(shared);
        loop {
            // What came with the signature may have been asked already.
            while let Some(asked) = self.desk.poll(address) {
                match asked {
                    Asked::Heartbeat(heartbeat) => {
                        let next_step = state.heartbeat(heartbeat, settings, Instant::now());
                        if let Live::Publish(position) = next_step {
                            shared.publish_heartbeat(address, session, &mut state, position);
                        }
                    }
                    Asked::Publish(topic, payload) => {
                        let now = Instant::now();
                        let from = self.topic_pace.count(topic.as_str().len() + payload.len(), now);
                        self.socket.delay(from);
                        shared.publish_topic(address, session, topic, payload);
                    }
                }
            }
            self.desk.serve_streams();
            if let Err(ended) = self.flush().await {
                return ended;
            }
            let next_step = tokio::select! {
                biased;
                told = inbox.next() => match told {
                    Ok(told) => {
                        match &told {
                            Told::IslandChanged(change) => {
                                // It is kept for the client from now on, until it asks for it.
                                self.desk.island_changed(&change.message);
                                state.told(change);
                            }
                            Told::MemberChanged(change) => self.desk.member_changed(change),
                        }
                        Live::Ignore
                    }
                    Err(close) => {
                        if close == Close::NewSession {
                            self.desk.kicked();
                            if let Err(ended) = self.flush().await {
                                return ended;
                            }
                        }
                        Live::End(close)
                    }
                },
                received = self.socket.next() => {
                    timers.arrived();
                    let taken = match received {
                        Ok(received) => self.take(received).await,
                        Err(ended) => Err(ended),
                    };
                    if let Err(ended) = taken {
                        return ended;
                    }
                    Live::Ignore
                }
                next_step = timers.next(&mut state) => next_step,
                // Last, so that what others say never keeps the client from being read.
                () = backlogs.news() => Live::Ignore,
            };
            match timers.checked(next_step, self.socket.active_until()) {
                Live::Ignore | Live::Check => {}
                Live::Publish(position) => shared.publish_heartbeat(address, session, &mut state, position),
                Live::Ping => {
                    if let Err(ended) = self.socket.ping().await {
                        return ended;
                    }
                }
                Live::End(close) => return end(close),
            }
        }
    }

    /// Takes in a frame.
    async fn take(&mut self, received: Received) -> Result<(), End> {
        let Some(bytes) = self.socket.accept(received).await? else { return Ok(()) };
        let taken = self.desk.receive(&bytes).map_err(|_| end(Close::Undecodable))?;
        // Due acknowledgements are free: there are only as many as elements were sent.
        if taken == Taken::Acknowledged {
            self.socket.refund();
        }
        Ok(())
    }

    /// Writes all that is to be written.
    async fn flush(&mut self) -> Result<(), End> {
        while let Some(bytes) = self.desk.poll_output() {
            self.socket.send(&bytes).await?;
        }
        Ok(())
    }
}
