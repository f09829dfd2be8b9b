//! The writer task: takes messages from the publish queue and writes them to the connection.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{Client, HeaderMap, PublishErrorKind, connection::State};
use bytes::Bytes;
use protocol::subject::SubjectScheme;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{
    reader::OrderedReader,
    reassembly::{self, Part},
    wire,
};
use crate::{Headers, subscriber_queue::SubscriberQueue};

/// How often the writer checks the connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long after a reconnect nothing is published. Other processes that also lost the connection should have
/// reconnected by then, so that they receive the buffered messages. Longer than the longest reconnect delay
/// ([`super::MAX_BACKOFF`]).
const RECONNECT_GRACE: Duration = Duration::from_millis(1_500);
/// The age at which a queued message is dropped as stale, if its publisher repeats it anyway.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// How long messages that survive a disconnect are buffered while the connection is down.
const MAX_BUFFER_AGE: Duration = Duration::from_secs(60);
/// How many messages are buffered; when the buffer is full the newest is dropped and counted.
const MAX_BUFFERED: usize = 16_384;
/// The shortest time between two log messages about a message that is too large.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Subscribers by the id that the client library assigns to the subscription of each pattern.
pub(super) type Subscribers = Arc<Mutex<HashMap<u64, Arc<SubscriberQueue>>>>;

/// A message to publish.
pub(super) struct Publication {
    pub(super) subject: String,
    pub(super) survives_disconnect: bool,
    /// `None` if the subject scheme has no headers for the subject.
    pub(super) headers: Option<Headers>,
    pub(super) payload: Bytes,
    pub(super) queued_at: Instant,
}

/// A request to the writer task.
pub(super) enum WriterCommand {
    Publish(Publication),
    /// Replies when all earlier messages were written to the connection.
    Flush(oneshot::Sender<()>),
}

/// A request to start a subscription.
pub(super) struct SubscribeRequest {
    pub(super) patterns: Vec<String>,
    pub(super) subject_scheme: SubjectScheme,
    pub(super) queue: SubscriberQueue,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum DropReason {
    /// The publish queue is full.
    Full,
    /// It would arrive late, and its publisher repeats it anyway.
    Stale,
    /// It was buffered for the longest time, or the buffer is full.
    Expired,
    /// It is too large even for the largest number of parts.
    TooLarge,
    /// The client library refuses its subject.
    Refused,
}

impl DropReason {
    pub(super) fn count(self) {
        let reason = match self {
            Self::Full => "full",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
        };
        metrics::counter!("atoll_bus_unsent_total", "reason" => reason).increment(1);
    }
}

/// The result of passing a message to the client library.
enum SendOutcome {
    /// The client library accepted it.
    Sent,
    /// The client library refused it.
    Rejected(DropReason),
    /// The connection was lost before the client library accepted it.
    Disconnected,
}

/// The state of the connection.
enum LinkState {
    Connected,
    /// Since this time.
    Disconnected(Instant),
    /// Reconnected; nothing is published until this time.
    ReconnectGrace(Instant),
}

/// The only task that publishes and subscribes on the connection.
pub(super) struct WriterTask {
    client: Client,
    commands: mpsc::Receiver<WriterCommand>,
    subscribe_requests: mpsc::UnboundedReceiver<SubscribeRequest>,
    link: LinkState,
    /// Whether publishing is suspended: the connection is down or in its reconnect grace. Shared with
    /// publishers.
    disconnected: Arc<AtomicBool>,
    /// How often publishing resumed after a reconnect.
    reconnects: watch::Sender<u64>,
    /// How often the client library connected.
    connects: u64,
    /// Messages to send after the reconnect.
    buffered: VecDeque<Publication>,
    /// The sequence id of the last message of this connection.
    sequence_id: wire::SequenceId,
    subscribers: Subscribers,
    /// How many patterns were subscribed to.
    subscriptions: u64,
    readers: JoinSet<()>,
    last_warned: Option<Instant>,
}

/// The connection is closed for good.
#[derive(Debug)]
struct ConnectionClosed;

impl WriterTask {
    pub(super) fn new(
        client: Client,
        (commands, subscribe_requests): (
            mpsc::Receiver<WriterCommand>,
            mpsc::UnboundedReceiver<SubscribeRequest>,
        ),
        disconnected: Arc<AtomicBool>,
        reconnects: watch::Sender<u64>,
        subscribers: Subscribers,
    ) -> Self {
        metrics::gauge!("atoll_bus_connected").set(1.0);
        Self {
            client,
            commands,
            subscribe_requests,
            link: LinkState::Connected,
            disconnected,
            reconnects,
            connects: 1,
            buffered: VecDeque::new(),
            sequence_id: wire::SequenceId { publisher: rand::random(), number: 0 },
            subscribers,
            subscriptions: 0,
            readers: JoinSet::new(),
            last_warned: None,
        }
    }

    /// Runs until the last handle is dropped. All subscriptions end with it.
    pub(super) async fn run(mut self) {
        let mut checks = time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                Some(request) = self.subscribe_requests.recv() => self.subscribe(request).await,
                _ = checks.tick() => self.check_connection().await,
                command = self.commands.recv() => match command {
                    Some(command) => self.run_command(command).await,
                    None => return,
                },
            };
            if let Err(ConnectionClosed) = done {
                metrics::gauge!("atoll_bus_connected").set(0.0);
                tracing::error!("the connection to NATS is closed");
                return;
            }
        }
    }

    async fn run_command(&mut self, command: WriterCommand) -> Result<(), ConnectionClosed> {
        // A subscriber that subscribed before this message was published must receive it.
        while let Ok(request) = self.subscribe_requests.try_recv() {
            self.subscribe(request).await?;
        }
        self.check_connection().await?;
        match command {
            WriterCommand::Publish(publication) => self.publish(publication).await,
            WriterCommand::Flush(reply) => {
                if let LinkState::Connected = self.link {
                    let _ = time::timeout(CHECK_INTERVAL * 10, self.client.flush()).await;
                }
                let _ = reply.send(());
                Ok(())
            }
        }
    }

    async fn subscribe(
        &mut self,
        SubscribeRequest { patterns, subject_scheme, queue }: SubscribeRequest,
    ) -> Result<(), ConnectionClosed> {
        let queue = Arc::new(queue);
        let mut channels = Vec::with_capacity(patterns.len());
        for pattern in &patterns {
            self.register_subscription(&queue);
            // Waits only while the client library's queue is full.
            channels.push(self.client.subscribe(pattern.clone()).await.map_err(|error| {
                tracing::error!(pattern, %error, "cannot subscribe");
                ConnectionClosed
            })?);
        }
        self.readers.spawn(OrderedReader::new(patterns, subject_scheme, channels, queue).run());
        while self.readers.try_join_next().is_some() {}
        Ok(())
    }

    /// Records the queue of the next subscription. The client library numbers subscriptions from 1, and only
    /// this task creates them.
    fn register_subscription(&mut self, queue: &Arc<SubscriberQueue>) {
        self.subscriptions += 1;
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|_, queue| !queue.is_closed());
        subscribers.insert(self.subscriptions, queue.clone());
    }

    /// Checks the connection, and applies a change of its state.
    async fn check_connection(&mut self) -> Result<(), ConnectionClosed> {
        let connected = self.client.connection_state() == State::Connected;
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        // The connection may have been lost and re-established between two checks.
        let is_stable = connected && connects == self.connects;
        match self.link {
            LinkState::Connected if is_stable => {}
            LinkState::ReconnectGrace(until) if is_stable => {
                if until <= Instant::now() {
                    self.link = LinkState::Connected;
                    self.disconnected.store(false, Ordering::Relaxed);
                    self.send_buffered().await?;
                    if let LinkState::Connected = self.link {
                        self.reconnects.send_modify(|times| *times += 1);
                    }
                }
            }
            LinkState::Connected | LinkState::ReconnectGrace(_) => self.on_disconnect(),
            LinkState::Disconnected(since) if connected => {
                metrics::counter!("atoll_bus_reconnects_total").increment(connects - self.connects);
                metrics::gauge!("atoll_bus_connected").set(1.0);
                let disconnected_ms = since.elapsed().as_millis();
                tracing::info!(disconnected_ms, buffered = self.buffered.len(), "reconnected to NATS");
                self.connects = connects;
                self.link = LinkState::ReconnectGrace(Instant::now() + RECONNECT_GRACE);
            }
            LinkState::Disconnected(_) => {}
        }
        Ok(())
    }

    fn on_disconnect(&mut self) {
        self.link = LinkState::Disconnected(Instant::now());
        self.disconnected.store(true, Ordering::Relaxed);
        metrics::gauge!("atoll_bus_connected").set(0.0);
        tracing::warn!("the connection to NATS is lost");
    }

    async fn publish(&mut self, publication: Publication) -> Result<(), ConnectionClosed> {
        let stale = !publication.survives_disconnect && publication.queued_at.elapsed() > STALE_AFTER;
        match self.link {
            _ if stale => DropReason::Stale.count(),
            LinkState::Connected => return self.send(publication).await,
            _ => self.buffer(publication),
        }
        Ok(())
    }

    /// Buffers a message that survives a disconnect; drops any other.
    fn buffer(&mut self, publication: Publication) {
        if !publication.survives_disconnect {
            DropReason::Stale.count();
        } else if self.buffered.len() < MAX_BUFFERED {
            self.buffered.push_back(publication);
        } else {
            DropReason::Expired.count();
        }
    }

    async fn send_buffered(&mut self) -> Result<(), ConnectionClosed> {
        for publication in std::mem::take(&mut self.buffered) {
            if publication.queued_at.elapsed() > MAX_BUFFER_AGE {
                DropReason::Expired.count();
            } else if let LinkState::Connected = self.link {
                self.send(publication).await?;
            } else {
                self.buffer(publication);
            }
        }
        Ok(())
    }

    /// Sends a message, in parts if it exceeds the server's payload limit. If the connection is lost
    /// meanwhile, the message is buffered or dropped as a whole.
    async fn send(&mut self, publication: Publication) -> Result<(), ConnectionClosed> {
        let Publication { subject, headers, payload, .. } = &publication;
        let max_payload = self.client.max_payload();
        let outcome = match headers {
            None => self.send_to_client(subject, None, payload.clone()).await?,
            Some(headers) => {
                let map = wire::encode(headers, self.next_sequence_id(), None);
                if wire::encoded_size(&map) + payload.len() <= max_payload {
                    self.send_to_client(subject, Some(map), payload.clone()).await?
                } else if let Some(parts) = reassembly::split(payload, wire::part_capacity(&map, max_payload))
                {
                    self.send_parts(subject, headers, parts).await?
                } else {
                    SendOutcome::Rejected(DropReason::TooLarge)
                }
            }
        };
        match outcome {
            SendOutcome::Sent => {}
            SendOutcome::Rejected(DropReason::TooLarge) => self.report_too_large(&publication),
            SendOutcome::Rejected(reason) => reason.count(),
            SendOutcome::Disconnected => {
                self.on_disconnect();
                self.buffer(publication);
            }
        }
        Ok(())
    }

    async fn send_parts(
        &mut self,
        subject: &str,
        headers: &Headers,
        parts: impl Iterator<Item = (Part, Bytes)>,
    ) -> Result<SendOutcome, ConnectionClosed> {
        for (part, payload) in parts {
            let map = wire::encode(headers, self.next_sequence_id(), Some(part));
            match self.send_to_client(subject, Some(map), payload).await? {
                SendOutcome::Sent => {}
                otherwise => return Ok(otherwise),
            }
        }
        Ok(SendOutcome::Sent)
    }

    fn next_sequence_id(&mut self) -> wire::SequenceId {
        self.sequence_id.number += 1;
        self.sequence_id
    }

    /// Passes a message to the client library. Waits only while the library's queue is full.
    async fn send_to_client(
        &self,
        subject: &str,
        map: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<SendOutcome, ConnectionClosed> {
        let mut sending = std::pin::pin!(async {
            match map {
                Some(map) => self.client.publish_with_headers(subject.to_owned(), map, payload).await,
                None => self.client.publish(subject.to_owned(), payload).await,
            }
        });
        loop {
            tokio::select! {
                biased;
                outcome = &mut sending => return match outcome {
                    Ok(()) => Ok(SendOutcome::Sent),
                    Err(error) => match error.kind() {
                        PublishErrorKind::MaxPayloadExceeded => Ok(SendOutcome::Rejected(DropReason::TooLarge)),
                        PublishErrorKind::InvalidSubject => Ok(SendOutcome::Rejected(DropReason::Refused)),
                        PublishErrorKind::Send => Err(ConnectionClosed),
                    },
                },
                () = time::sleep(CHECK_INTERVAL) => {
                    if self.client.connection_state() != State::Connected {
                        return Ok(SendOutcome::Disconnected);
                    }
                }
            }
        }
    }

    fn report_too_large(&mut self, Publication { subject, payload, .. }: &Publication) {
        DropReason::TooLarge.count();
        if self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            let (bytes, max_payload) = (payload.len(), self.client.max_payload());
            tracing::warn!(subject, bytes, max_payload, "message too large, dropped");
            self.last_warned = Some(Instant::now());
        }
    }
}
