//! The session driver: one task serves a socket from its first frame to its last, in any dialect.
//!
//! The driver does all input and output. The dialect decodes and encodes, [`Handshake`] and [`SessionState`]
//! decide.

use std::convert::Infallible;

use admission::{Network, Permit};
use bus::Headers;
use bytes::Bytes;
use protocol::{Address, Close, SceneTopic, SessionId, Subject, Topic};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use ws::{Liveness, Received};

use crate::{
    client_socket::{ClientSocket, SocketEnd, server_close},
    dialect::{ClientRequest, Dialect, FrameCost},
    metrics,
    session::{
        handshake::{Handshake, SignInRequest, Step},
        message::SessionMessage,
        queue::SessionReceiver,
        registry::NewSession,
        state::SessionState,
        timers::{SessionTimers, Timer},
    },
    shared::Shared,
};

/// Serves one socket: handshake, session, close.
pub(crate) async fn serve<D: Dialect>(
    shared: &Shared,
    socket: &mut ClientSocket,
    new_dialect: impl FnOnce(&Shared) -> D,
    permit: Permit,
) {
    let network = permit.network();
    let mut driver = Driver { shared, socket, dialect: new_dialect(shared) };
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, driver.sign_in(&permit)) => {
            signed_in.unwrap_or(Err(server_close(Close::HandshakeTimeout)))
        }
        () = shared.handshakes.closed() => Err(server_close(Close::Restarting)),
        () = permit.evicted() => Err(server_close(Close::Full)),
    };
    // Dropped before the close, so that another handshake does not wait until this client has read it.
    drop(permit);
    match signed_in {
        Ok(request) => {
            let ended = driver.serve_session(request, network).await;
            // Ends its subscriptions before the closing handshake.
            drop(driver.dialect);
            driver.socket.close(ended).await;
        }
        Err(ended) => driver.socket.close_rejected(ended).await,
    }
}

/// The socket of one client with the state of its dialect.
struct Driver<'a, D> {
    shared: &'a Shared,
    socket: &'a mut ClientSocket,
    dialect: D,
}

/// A session after its welcome.
struct Session<'a> {
    peer: Address,
    id: SessionId,
    receiver: SessionReceiver,
    state: SessionState<'a>,
    timers: SessionTimers,
}

impl<D: Dialect> Driver<'_, D> {
    /// Runs the handshake: sends a challenge and verifies its signature.
    async fn sign_in(&mut self, permit: &Permit) -> Result<SignInRequest, SocketEnd> {
        let mut handshake = Handshake::AwaitRequest;
        loop {
            self.flush().await?;
            let received = self.socket.next().await?;
            self.receive_frame(received).await?;
            while let Some(request) = self.dialect.poll_request(Instant::now()) {
                handshake = match handshake.receive(request) {
                    Ok(Step::Challenge(request)) => self.challenge(request)?,
                    Ok(Step::Verify { request, challenge, auth_chain_json }) => {
                        permit.set_waiting(false);
                        let (verifier, network) = (&self.shared.verifier, permit.network());
                        let verified =
                            verifier.verify(auth_chain_json, request.address, challenge, network).await;
                        return match verified {
                            Ok(()) => Ok(request),
                            Err(refusal) => Err(self.reject(refusal.close(), refusal.to_string()).await),
                        };
                    }
                    Err((close, reason)) => return Err(self.reject(close, reason).await),
                };
            }
        }
    }

    /// Sends a challenge. Returns the state that awaits its signature.
    fn challenge(&mut self, request: SignInRequest) -> Result<Handshake, SocketEnd> {
        let challenge = self.shared.verifier.challenge().map_err(|_| server_close(Close::Restarting))?;
        let already_connected = self.shared.sessions.already_connected(request.address);
        self.dialect.challenge(challenge.as_str(), already_connected);
        Ok(Handshake::AwaitSignature { request, challenge })
    }

    /// Rejects the sign-in. Returns the end of the socket, with the same reason.
    async fn reject(&mut self, close: Close, reason: String) -> SocketEnd {
        self.dialect.reject(&reason);
        match self.flush().await {
            Ok(()) => SocketEnd::ByServer(close, reason),
            Err(ended) => ended,
        }
    }

    /// Begins the session, sends the welcome, and serves the session until it ends.
    async fn serve_session(&mut self, request: SignInRequest, network: Network) -> SocketEnd {
        let (shared, peer) = (self.shared, request.address);
        let transports = request.transports.clone();
        let NewSession { id, receiver, resumption } = match begin_session(shared, request, network).await {
            Ok(begun) => begun,
            Err(close) => return self.reject(close, close.reason().to_owned()).await,
        };
        let island = tracing::field::Empty;
        let span = tracing::debug_span!("session", peer = %peer, session = %id, island);
        span.in_scope(|| tracing::debug!("signed in"));
        self.dialect.welcome(peer, resumption);
        let (settings, scheme) = (&shared.settings, shared.bus.subject_scheme());
        let state = SessionState::new(transports.as_deref(), resumption, settings, scheme, Instant::now());
        let timers = SessionTimers::new(settings, shared.roster_requests.subscribe());
        let mut session = Session { peer, id, receiver, state, timers };
        let Err(ended) = self.run(&mut session).instrument(span).await;
        shared.sessions.end(peer, id);
        ended
    }

    /// Serves a session until it ends. The order of the `select!` branches is their priority: messages to
    /// the session, then frames from the client, then timers, then output of the dialect. That has the lowest
    /// priority, so that messages of others never keep the gateway from reading this client.
    async fn run(&mut self, session: &mut Session<'_>) -> Result<Infallible, SocketEnd> {
        loop {
            // Messages that arrived together with the signature may contain requests already.
            while let Some(request) = self.dialect.poll_request(Instant::now()) {
                self.handle_request(request, session)?;
            }
            self.flush().await?;
            tokio::select! {
                biased;
                message = session.receiver.next() => match message {
                    Ok(message) => {
                        self.dialect.deliver(&message);
                        if let SessionMessage::IslandChanged(change) = &message {
                            session.state.record_island(change);
                        }
                    }
                    Err(close) => return Err(self.end(close).await),
                },
                received = self.socket.next() => {
                    session.timers.record_arrival();
                    self.receive_frame(received?).await?;
                }
                timer = session.timers.next(session.state.republish_at()) => {
                    self.handle_timer(timer, session).await?;
                }
                () = self.dialect.wait_for_output() => {}
            }
        }
    }

    /// Handles a request of the signed-in client.
    fn handle_request(&mut self, request: ClientRequest, session: &mut Session<'_>) -> Result<(), SocketEnd> {
        match request {
            ClientRequest::Heartbeat(heartbeat) => {
                let epoch = self.shared.bus.latest_epoch();
                if let Some(heartbeat) = session.state.receive_heartbeat(heartbeat, epoch, Instant::now()) {
                    self.publish_heartbeat(session, heartbeat);
                }
            }
            ClientRequest::Publish { topic, payload, read_at } => {
                self.socket.delay_reads_until(read_at);
                self.publish_topic(session, topic, payload);
            }
            ClientRequest::Challenge(_) | ClientRequest::Authenticate { .. } => {
                return Err(server_close(Close::OutOfOrder));
            }
        }
        Ok(())
    }

    /// Handles a timer that is due.
    async fn handle_timer(&mut self, timer: Timer, session: &mut Session<'_>) -> Result<(), SocketEnd> {
        let (epoch, now) = (self.shared.bus.latest_epoch(), Instant::now());
        let (state, unresponsive) = (&mut session.state, session.timers.is_unresponsive());
        let heartbeat = match timer {
            Timer::Liveness => match session.timers.check_liveness(self.socket.active_until(), now) {
                Liveness::Alive => None,
                Liveness::Silent => return self.socket.ping().await,
                Liveness::Dead => return Err(server_close(Close::Silent)),
            },
            Timer::Idle if state.is_idle(now) => return Err(server_close(Close::Idle)),
            Timer::Idle => None,
            Timer::Republish => state.republish_if_due(unresponsive, epoch, now),
            Timer::RepublishScheduled => state.republish(unresponsive, epoch, now),
            Timer::RosterRequest { republish_at } => {
                state.schedule_republish(republish_at);
                None
            }
        };
        if let Some(heartbeat) = heartbeat {
            self.publish_heartbeat(session, heartbeat);
        }
        Ok(())
    }

    /// Publishes an encoded heartbeat.
    fn publish_heartbeat(&self, session: &Session<'_>, heartbeat: Vec<u8>) {
        let headers = Headers::for_session(session.id);
        self.shared.bus.publish(&Subject::PeerHeartbeat(session.peer), headers, heartbeat);
        self.shared.heartbeats.increment(1);
    }

    /// Publishes a message of a client under a topic: a scene topic with the sender in a header, any other
    /// topic under a subject that contains the sender.
    fn publish_topic(&self, session: &Session<'_>, topic: Topic, payload: Bytes) {
        metrics::topic_messages().increment(1);
        let mut headers = Headers::for_session(session.id);
        let subject = match SceneTopic::try_from(topic) {
            Ok(topic) => {
                headers.sender = Some(session.peer);
                Subject::SceneTopic(topic)
            }
            Err(topic) => Subject::PeerTopic(session.peer, topic),
        };
        self.shared.bus.publish(&subject, headers, payload);
    }

    /// Processes a frame.
    async fn receive_frame(&mut self, received: Received) -> Result<(), SocketEnd> {
        let Some(message) = self.socket.handle_frame(received).await? else { return Ok(()) };
        match self.dialect.receive(message).map_err(server_close)? {
            FrameCost::Charged => {}
            FrameCost::Free => self.socket.refund(),
        }
        Ok(())
    }

    /// Ends a session that the registry ended. Returns the end of the socket.
    async fn end(&mut self, close: Close) -> SocketEnd {
        if close == Close::NewSession {
            self.dialect.kick();
            if let Err(ended) = self.flush().await {
                return ended;
            }
        }
        server_close(close)
    }

    /// Writes all output of the dialect.
    async fn flush(&mut self) -> Result<(), SocketEnd> {
        while let Some(message) = self.dialect.poll_output() {
            self.socket.send(&message).await?;
        }
        Ok(())
    }
}

/// Begins a session, or returns the close code of its rejection: see
/// [`SessionRegistry::begin`](crate::session::registry::SessionRegistry::begin).
async fn begin_session(
    shared: &Shared,
    request: SignInRequest,
    network: Network,
) -> Result<NewSession, Close> {
    let (Ok(random), Ok(secret)) = (admission::random(), admission::random()) else {
        return Err(Close::Restarting);
    };
    shared.resync.wait_for_report(&shared.sessions, &request).await;
    shared.sessions.begin(request, network, [random, secret])
}
