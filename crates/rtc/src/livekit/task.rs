//! The task of a participant, which owns its state.

use std::net::{IpAddr, SocketAddr};

use livekit_protocol::{
    JoinResponse, LeaveRequest, ReconnectResponse, leave_request::Action, signal_request::Message as Request,
    signal_response::Message as Response,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    error::JoinError,
    event::Event,
    leave_reason::LeaveReason,
    link::{Link, LinkProgress},
    options::Options,
    phase::{Phase, ReconnectMode, Reconnection},
    room_view::RoomView,
    sender::{Acceptance, DataSender, QueueItem},
    session::{LABELS, Session, Source},
    signal_url::signal_url,
    writer::WriterHandle,
};
use crate::{
    channel::{ChannelReader, Incoming},
    connection::{ConnectionEvent, ConnectionEventKind, Label},
};

pub(crate) struct Task {
    options: Options,
    /// The newest token: the server refreshes that of a participant.
    token: String,
    pub(crate) sender: DataSender,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) room: RoomView,
    connection_events: (mpsc::Sender<ConnectionEvent<Source>>, mpsc::Receiver<ConnectionEvent<Source>>),
    messages: (mpsc::Sender<Incoming<Source>>, mpsc::Receiver<Incoming<Source>>),
    reliable: WriterHandle,
    lossy: WriterHandle,
    pub(crate) session: Option<Session>,
    /// The number of sessions so far.
    sessions: u32,
    pub(crate) link: Link,
    /// The local UDP addresses for the next session.
    udp_addresses: Vec<SocketAddr>,
    pub(crate) phase: Phase,
}

/// The end of a participant.
pub(crate) enum End {
    Left(LeaveReason),
    NotJoined(JoinError),
}

/// Something for the task to apply.
enum Step {
    Stop,
    Delivered,
    Link(LinkProgress),
    Connection(ConnectionEvent<Source>),
    Message(Incoming<Source>),
    Deadline,
}

/// Events of connections that wait: some twenty of a negotiation. When it is full, the newest is dropped.
const CONNECTION_EVENTS: usize = 256;
/// Received messages that wait. When it is full, reliable channels are read later, and lossy messages are dropped.
const MESSAGES: usize = 256;

impl Task {
    /// A participant that begins to join. It replies when it has joined, or has failed.
    pub(crate) fn new(
        options: Options,
        sender: DataSender,
        [reliable, lossy]: [mpsc::Receiver<QueueItem>; 2],
        events: mpsc::Sender<Event>,
        reply: oneshot::Sender<Result<(), JoinError>>,
    ) -> Result<Self, JoinError> {
        let url = signal_url(&options.url, &options.token, None)?;
        Ok(Self {
            token: options.token.clone(),
            sender,
            events,
            room: RoomView::default(),
            connection_events: mpsc::channel(CONNECTION_EVENTS),
            messages: mpsc::channel(MESSAGES),
            reliable: WriterHandle::spawn(Label::Reliable, reliable),
            lossy: WriterHandle::spawn(Label::Lossy, lossy),
            session: None,
            sessions: 0,
            link: Link::connect(url),
            udp_addresses: options.udp_addresses.clone(),
            phase: Phase::Joining { deadline: Instant::now() + options.join_timeout, reply },
            options,
        })
    }

    /// Runs until the participant is dropped or its participation has ended.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let end = loop {
            let step = self.next_step(&mut stop).await;
            if let Err(end) = self.apply(step).await {
                break end;
            }
        };
        self.finish(end).await;
    }

    async fn next_step(&mut self, stop: &mut oneshot::Receiver<()>) -> Step {
        let deadline = match &self.phase {
            Phase::Joining { deadline, .. } => Some(*deadline),
            Phase::Connected => None,
            // An attempt that waits has its own timer.
            Phase::Reconnecting(_) if matches!(self.link, Link::Waiting(_)) => None,
            Phase::Reconnecting(reconnection) => Some(reconnection.attempt_deadline()),
        };
        let deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        // Events before the join are part of its event.
        let has_joined = !matches!(self.phase, Phase::Joining { .. });
        let delivers = has_joined && !self.room.is_drained();
        let reads_signalling = !has_joined || !self.room.is_full();
        tokio::select! {
            biased;
            _ = &mut *stop => Step::Stop,
            permit = self.events.reserve(), if delivers => match (permit, self.room.pop()) {
                (Ok(permit), Some(event)) => {
                    permit.send(event);
                    Step::Delivered
                }
                _ => Step::Stop,
            },
            Some(event) = self.connection_events.1.recv() => Step::Connection(event),
            progress = self.link.progress(reads_signalling) => Step::Link(progress),
            () = deadline => Step::Deadline,
            Some(message) = self.messages.1.recv(), if has_joined && !delivers => Step::Message(message),
        }
    }

    async fn apply(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Stop => return Err(End::Left(LeaveReason::Left)),
            Step::Delivered => {}
            Step::Message(message) => {
                if self.session.as_ref().is_some_and(|session| session.is_source(message.source)) {
                    self.room.packet(message.label == Label::Reliable, message.data);
                }
            }
            Step::Connection(event) => {
                self.connection_event(event)?;
                self.check_progress().await?;
            }
            Step::Link(progress) => {
                self.link_progress(progress).await?;
                self.check_progress().await?;
            }
            Step::Deadline => {
                // A session that the server has accepted, but that does not connect, is not resumed again.
                let is_accepted =
                    matches!(&self.phase, Phase::Reconnecting(reconnection) if reconnection.accepted);
                let mode = if is_accepted { ReconnectMode::Rejoin } else { ReconnectMode::Resume };
                self.failed(JoinError::Timeout("no data channel was open"), mode)?;
            }
        }
        Ok(())
    }

    fn connection_event(&mut self, event: ConnectionEvent<Source>) -> Result<(), End> {
        let Some(session) = self.session.as_mut().filter(|session| session.is_source(event.source)) else {
            return Ok(());
        };
        match event.kind {
            ConnectionEventKind::Candidate(candidate) => {
                return self.send(Session::trickle(event.source, candidate));
            }
            ConnectionEventKind::Channel(channel) => session.read_channel(channel),
            // The server closes channels together with their connection.
            ConnectionEventKind::ChannelClosed => {}
            ConnectionEventKind::ChannelOpened(label) => session.channel_opened(event.source.target, label),
            ConnectionEventKind::State(state) => {
                tracing::debug!(?event.source, %state, "WebRTC");
                session.set_state(event.source.target, state);
            }
        }
        Ok(())
    }

    async fn link_progress(&mut self, progress: LinkProgress) -> Result<(), End> {
        match progress {
            LinkProgress::Connected(signalling) => {
                if let Some(local) =
                    signalling.local_address.filter(|_| self.options.udp_addresses.is_empty())
                {
                    self.udp_addresses = default_udp_addresses(local.is_loopback().then_some(local));
                }
                self.link = Link::opened(signalling);
                Ok(())
            }
            LinkProgress::Message(message) => self.response(*message).await,
            LinkProgress::Lost(error) => self.failed(error, ReconnectMode::Resume),
            LinkProgress::RetryDue => self.attempt(),
        }
    }

    async fn response(&mut self, response: Response) -> Result<(), End> {
        let result = match (response, &mut self.session) {
            (Response::Join(join), _) => self.begin_session(&join).await,
            (Response::Reconnect(response), Some(_)) => self.resume(&response).await,
            (Response::Offer(offer), Some(session)) => match session.accept_offer(offer).await {
                Ok(answer) => return self.send(answer),
                Err(error) => Err(error),
            },
            (Response::Answer(answer), Some(session)) => session.accept_answer(answer).await,
            (Response::Trickle(trickle), Some(session)) => {
                session.add_candidate(&trickle).await;
                Ok(())
            }
            (Response::Update(update), _) => {
                if let Some(may_publish) = self.room.update(&update) {
                    self.sender.state.set_may_publish(may_publish);
                }
                Ok(())
            }
            (Response::RefreshToken(token), _) => {
                self.token = token;
                Ok(())
            }
            (Response::Leave(leave), _) => return self.leave_requested(&leave),
            _ => Ok(()),
        };
        // A negotiation that failed leaves connections that are of no use.
        result.or_else(|error| self.failed(error, ReconnectMode::Rejoin))
    }

    /// The server has admitted the participant to a new session.
    async fn begin_session(&mut self, join: &JoinResponse) -> Result<(), JoinError> {
        let permission = join.participant.as_ref().and_then(|own| own.permission.as_ref());
        let publishes = permission.is_none_or(|permission| permission.can_publish_data);
        self.sender.state.set_may_publish(publishes);
        self.room.begin(join);
        if let Phase::Reconnecting(reconnection) = &mut self.phase {
            reconnection.accepted = true;
            reconnection.unconfirmed += self.reliable.detach().await;
            self.lossy.detach().await;
        }
        if let Some(older) = self.session.take() {
            older.close();
        }
        self.sessions += 1;
        self.link.set_ping(join.ping_interval, join.ping_timeout);
        let reader = |source| ChannelReader {
            source,
            labels: LABELS,
            messages: self.messages.0.clone(),
            events: self.connection_events.0.clone(),
            lossy_dropped: self.sender.state.lossy_dropped.clone(),
        };
        let udp_addresses = self.udp_addresses.clone();
        let (session, offer) = Session::open(join, udp_addresses, self.sessions, reader, publishes).await?;
        self.session = Some(session);
        offer.map_or(Ok(()), |offer| self.link.send(offer))
    }

    /// The server continues the session on this signalling socket.
    async fn resume(&mut self, response: &ReconnectResponse) -> Result<(), JoinError> {
        let (Phase::Reconnecting(reconnection), Some(session)) = (&mut self.phase, &mut self.session) else {
            return Ok(());
        };
        reconnection.accepted = true;
        let requests = session.resume(&response.ice_servers, self.room.received()).await?;
        self.room.resumed();
        requests.into_iter().try_for_each(|request| self.link.send(request))
    }

    fn leave_requested(&mut self, leave: &LeaveRequest) -> Result<(), End> {
        let reason = LeaveReason::from_number(leave.reason);
        let mode = match Action::try_from(leave.action) {
            Ok(Action::Resume) => ReconnectMode::Resume,
            Ok(Action::Reconnect) => ReconnectMode::Rejoin,
            // Servers before version 13 of the protocol.
            _ if leave.can_reconnect => ReconnectMode::Rejoin,
            _ if matches!(self.phase, Phase::Joining { .. }) => {
                return Err(End::NotJoined(JoinError::Ended(reason)));
            }
            _ => return Err(End::Left(reason)),
        };
        self.failed(JoinError::Ended(reason), mode)
    }

    /// Ends the phase in which the participant joins or reconnects, if it is complete; and begins to reconnect if a
    /// connection is lost.
    async fn check_progress(&mut self) -> Result<(), End> {
        let Some(session) = &self.session else { return Ok(()) };
        let (unconfirmed, resumed) = match &self.phase {
            Phase::Connected if session.is_broken() => {
                let error = JoinError::Timeout("the network path is interrupted");
                return self.failed(error, ReconnectMode::Resume);
            }
            Phase::Joining { .. } if session.is_open() => (None, false),
            Phase::Reconnecting(reconnection) if reconnection.accepted => {
                let resumes = reconnection.mode() == ReconnectMode::Resume;
                if !(resumes && session.is_restored() || !resumes && session.is_open()) {
                    return Ok(());
                }
                (Some(reconnection.unconfirmed), resumes)
            }
            _ => return Ok(()),
        };
        if let Some([reliable, lossy]) = session.channels().filter(|_| !resumed) {
            self.reliable.attach(reliable).await;
            self.lossy.attach(lossy).await;
        }
        self.sender.state.accept(Acceptance::All);
        match unconfirmed {
            Some(unconfirmed) => {
                let sid = self.room.sid().to_owned();
                self.room.push(Event::Reconnected { resumed, sid, unconfirmed });
            }
            None => self.room.joined(),
        }
        if let Phase::Joining { reply, .. } = std::mem::replace(&mut self.phase, Phase::Connected) {
            // Fails if the future of the join was dropped; the task stops then.
            let _ = reply.send(Ok(()));
        }
        Ok(())
    }

    /// Queues a request to the server.
    fn send(&mut self, request: Request) -> Result<(), End> {
        self.link.send(request).or_else(|error| self.failed(error, ReconnectMode::Resume))
    }

    /// The connection, or an attempt to restore it, has failed. `mode` is the way to restore it.
    fn failed(&mut self, error: JoinError, mode: ReconnectMode) -> Result<(), End> {
        let (now, text) = (Instant::now(), error.to_string());
        tracing::debug!(%error, ?mode, "the LiveKit connection failed");
        match &mut self.phase {
            Phase::Joining { .. } => Err(End::NotJoined(error)),
            Phase::Connected => {
                let timeout = self.options.reconnect_timeout;
                if timeout.is_zero() {
                    return Err(End::Left(LeaveReason::Lost(text)));
                }
                self.phase = Phase::Reconnecting(Reconnection::new(mode, timeout, text, now));
                self.sender.state.accept(Acceptance::Reliable);
                self.room.push(Event::Reconnecting);
                self.attempt()
            }
            Phase::Reconnecting(reconnection) => {
                if mode == ReconnectMode::Rejoin {
                    reconnection.rejoin();
                }
                match reconnection.next_attempt(text, now).filter(|_| error.is_temporary()) {
                    Some(at) => {
                        self.link = Link::Waiting(at);
                        Ok(())
                    }
                    None => Err(End::Left(LeaveReason::Lost(reconnection.last_error.clone()))),
                }
            }
        }
    }

    /// Begins an attempt to reconnect.
    fn attempt(&mut self) -> Result<(), End> {
        let resumes = matches!(&self.phase, Phase::Reconnecting(reconnection)
            if reconnection.mode() == ReconnectMode::Resume);
        let sid = Some(self.room.sid()).filter(|_| resumes);
        match signal_url(&self.options.url, &self.token, sid) {
            Ok(url) => {
                self.link = Link::connect(url);
                Ok(())
            }
            Err(error) => Err(End::Left(LeaveReason::Lost(error.to_string()))),
        }
    }
}

/// The local UDP addresses if none are set. `loopback` is the local address if the server is reached over the
/// loopback, which a wildcard leaves out.
fn default_udp_addresses(loopback: Option<IpAddr>) -> Vec<SocketAddr> {
    match loopback {
        Some(address) => vec![SocketAddr::new(address, 0)],
        None => vec![SocketAddr::from(([0, 0, 0, 0], 0))],
    }
}
