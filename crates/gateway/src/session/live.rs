//! A session after its sign-in: one task serves it until its socket closes.

use std::{convert::Infallible, sync::Arc};

use bus::Headers;
use bytes::Bytes;
use protocol::{Address, Close, SceneTopic, SessionId, Subject, Topic};
use tokio::time::Instant;
use tracing::{Instrument, Span};
use ws::Liveness;

use crate::{
    client_socket::{SocketEnd, server_close},
    dialect::{ClientRequest, Dialect},
    mesh, metrics,
    session::{
        connection::Connection,
        message::SessionMessage,
        queue::SessionReceiver,
        registry::NewSession,
        state::SessionState,
        timers::{SessionTimers, Timer},
    },
    shared::Shared,
};

/// A session after its sign-in.
///
/// Its task holds this value and little more, because most sessions are idle most of the time. The future of
/// the sign-in is larger, so it is not part of this task.
pub(crate) struct LiveSession<D> {
    shared: Arc<Shared>,
    connection: Connection<D>,
    peer: Address,
    id: SessionId,
    receiver: SessionReceiver,
    state: SessionState,
    timers: SessionTimers,
}

impl<D: Dialect + 'static> LiveSession<D> {
    /// Welcomes the client of a new session. `transports`: those that it can join, separated by commas.
    pub(crate) fn new(
        shared: Arc<Shared>,
        mut connection: Connection<D>,
        peer: Address,
        transports: Option<&str>,
        begun: NewSession,
    ) -> Self {
        let NewSession { id, receiver, resumption } = begun;
        connection.dialect.welcome(peer, resumption);
        let (settings, scheme) = (shared.settings.clone(), shared.bus.subject_scheme());
        let timers = SessionTimers::new(&settings, shared.roster_requests.subscribe());
        let state = SessionState::new(transports, resumption, settings, scheme, Instant::now());
        Self { shared, connection, peer, id, receiver, state, timers }
    }

    /// Serves the session and closes its socket.
    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` contains its arguments twice")]
    pub(crate) fn serve(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let span = self.span();
            let Err(ended) = self.run().instrument(span).await;
            self.shared.sessions.end(self.peer, self.id);
            let Connection { mut socket, dialect, .. } = self.connection;
            // Ends its subscriptions before the closing handshake.
            drop((dialect, self.receiver, self.timers));
            Box::pin(socket.close(ended)).await;
        }
    }

    fn span(&self) -> Span {
        let island = tracing::field::Empty;
        let span = tracing::debug_span!("session", peer = %self.peer, session = %self.id, island);
        span.in_scope(|| tracing::debug!("signed in"));
        span
    }

    /// Serves a session until it ends. The order of the `select!` branches is their priority: messages to
    /// the session, then frames from the client, then timers, then output of the dialect. That has the lowest
    /// priority, so that messages of others never keep the gateway from reading this client.
    async fn run(&mut self) -> Result<Infallible, SocketEnd> {
        loop {
            // Messages that arrived together with the signature may contain requests already.
            while let Some(request) = self.connection.dialect.poll_request(Instant::now()) {
                self.handle_request(request)?;
            }
            self.connection.flush().await?;
            tokio::select! {
                biased;
                message = self.receiver.next() => match message {
                    Ok(message) => {
                        self.connection.dialect.deliver(&message);
                        if let SessionMessage::IslandChanged(change) = &message {
                            self.state.record_island(change);
                        }
                    }
                    Err(close) => return Err(self.end(close).await),
                },
                received = self.connection.socket.next() => {
                    self.timers.record_arrival();
                    self.connection.receive_frame(received?).await?;
                }
                timer = self.timers.next(self.state.republish_at()) => {
                    self.handle_timer(timer).await?;
                }
                () = self.connection.dialect.wait_for_output() => {}
            }
        }
    }

    /// Handles a request of the signed-in client.
    fn handle_request(&mut self, request: ClientRequest) -> Result<(), SocketEnd> {
        match request {
            ClientRequest::Heartbeat(heartbeat) => {
                let epoch = self.shared.bus.latest_epoch();
                if let Some(heartbeat) = self.state.receive_heartbeat(heartbeat, epoch, Instant::now()) {
                    self.publish_heartbeat(heartbeat);
                }
            }
            ClientRequest::Publish { topic, payload, read_at } => {
                self.connection.socket.delay_reads_until(read_at);
                self.publish_topic(topic, payload);
            }
            ClientRequest::MeshSignals { signals, read_at } => {
                self.connection.socket.refund();
                self.connection.socket.delay_reads_until(read_at);
                let result = mesh::forward_signals(&self.shared, self.peer, self.id, signals);
                self.connection.dialect.mesh_request_handled(result);
            }
            ClientRequest::MeshLinks(report) => {
                let result = mesh::forward_report(&self.shared, self.peer, self.id, &report);
                self.connection.dialect.mesh_request_handled(result);
            }
            ClientRequest::Challenge(_) | ClientRequest::Authenticate { .. } => {
                return Err(server_close(Close::OutOfOrder));
            }
        }
        Ok(())
    }

    /// Handles a timer that is due.
    async fn handle_timer(&mut self, timer: Timer) -> Result<(), SocketEnd> {
        let (epoch, now) = (self.shared.bus.latest_epoch(), Instant::now());
        let (state, unresponsive) = (&mut self.state, self.timers.is_unresponsive());
        let heartbeat = match timer {
            Timer::Liveness => match self.timers.check_liveness(self.connection.socket.active_until(), now) {
                Liveness::Alive => None,
                Liveness::Silent => return self.connection.socket.ping().await,
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
            self.publish_heartbeat(heartbeat);
        }
        Ok(())
    }

    /// Publishes an encoded heartbeat.
    fn publish_heartbeat(&self, heartbeat: Vec<u8>) {
        let headers = Headers::for_session(self.id);
        self.shared.bus.publish(&Subject::PeerHeartbeat(self.peer), headers, heartbeat);
        self.shared.heartbeats.increment(1);
    }

    /// Publishes a message of a client under a topic: a scene topic with the sender in a header, any other
    /// topic under a subject that contains the sender.
    fn publish_topic(&self, topic: Topic, payload: Bytes) {
        metrics::topic_messages().increment(1);
        let mut headers = Headers::for_session(self.id);
        let subject = match SceneTopic::try_from(topic) {
            Ok(topic) => {
                headers.sender = Some(self.peer);
                Subject::SceneTopic(topic)
            }
            Err(topic) => Subject::PeerTopic(self.peer, topic),
        };
        self.shared.bus.publish(&subject, headers, payload);
    }

    /// Ends a session that the registry ended. Returns the end of the socket.
    async fn end(&mut self, close: Close) -> SocketEnd {
        if close == Close::NewSession {
            self.connection.dialect.kick();
            if let Err(ended) = self.connection.flush().await {
                return ended;
            }
        }
        server_close(close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{archipelago::ArchipelagoDialect, rpc::RpcDialect};

    /// The size of the value that a function returns, here of a future.
    fn returned_size<T, F>(_: impl FnOnce(T) -> F) -> usize {
        size_of::<F>()
    }

    /// Each session has such a future for as long as it lives, so a large local variable or an `await` that
    /// holds one costs memory in every idle session.
    #[test]
    fn future_of_a_session_is_small() {
        let archipelago = returned_size(LiveSession::<ArchipelagoDialect>::serve);
        assert!(archipelago <= 1_600, "{archipelago} bytes");
        let rpc = returned_size(LiveSession::<RpcDialect>::serve);
        assert!(rpc <= 2_048, "{rpc} bytes");
    }
}
