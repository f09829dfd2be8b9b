//! From the queue of what is to be published to the connection.

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

/// How often the courier looks whether the connection is there.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long after a reconnect nothing is published yet: whoever lost the connection, too, is to be
/// back by then, and to hear what was kept. Above the longest pause between attempts.
const RECONNECT_GRACE: Duration = Duration::from_millis(1_500);
/// What is repeated anyway is stale when it waited for this long.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// For how long what holds late is kept while the connection is away.
const MAX_BUFFER_AGE: Duration = Duration::from_secs(60);
/// How much of it is kept; at the bound the newest is dropped and counted.
const MAX_BUFFERED: usize = 16_384;
/// How often it is said in the log that a message was too large.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Subscribers by the number that the client library gives to the subscription of each pattern.
pub(super) type Subscribers = Arc<Mutex<HashMap<u64, Arc<SubscriberQueue>>>>;

/// A message to publish.
pub(super) struct Publication {
    pub(super) subject: String,
    pub(super) survives_disconnect: bool,
    /// `None` where there are none to be.
    pub(super) headers: Option<Headers>,
    pub(super) payload: Bytes,
    pub(super) queued_at: Instant,
}

/// What the courier is asked to do.
pub(super) enum WriterCommand {
    Publish(Publication),
    /// To answer when all before it is on its way.
    Flush(oneshot::Sender<()>),
}

/// A subscription to begin.
pub(super) struct SubscribeRequest {
    pub(super) patterns: Vec<String>,
    pub(super) subject_scheme: SubjectScheme,
    pub(super) queue: SubscriberQueue,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum DropReason {
    /// The queue of what is to be published is full.
    Full,
    /// It would have been told late, and is repeated anyway.
    Stale,
    /// It was kept for as long as such a message is, or too many are.
    Expired,
    /// It is larger than even parts can carry.
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

/// What became of a message that the client library was given.
enum SendOutcome {
    /// It is on its way.
    Sent,
    /// It is not taken.
    Rejected(DropReason),
    /// The connection went first.
    Disconnected,
}

/// How it is with the connection.
enum LinkState {
    Connected,
    /// Since when.
    Disconnected(Instant),
    /// It is back, and nothing is published until then.
    ReconnectGrace(Instant),
}

/// The one task that talks to the connection.
pub(super) struct WriterTask {
    client: Client,
    commands: mpsc::Receiver<WriterCommand>,
    subscribe_requests: mpsc::UnboundedReceiver<SubscribeRequest>,
    link: LinkState,
    /// Whether publishing waits for the connection, for those who publish.
    disconnected: Arc<AtomicBool>,
    /// How often it was back after that.
    reconnects: watch::Sender<u64>,
    /// How often there was a connection.
    connects: u64,
    /// What is kept for when the connection is back.
    buffered: VecDeque<Publication>,
    /// Of this connection's messages the last.
    sequence_id: wire::SequenceId,
    subscribers: Subscribers,
    /// How many patterns were subscribed to.
    subscriptions: u64,
    readers: JoinSet<()>,
    last_warned: Option<Instant>,
}

/// The connection has ended for good.
#[derive(Debug)]
struct ConnectionClosed;

impl WriterTask {
    pub(super) fn new(
        client: Client,
        (errands, openings): (mpsc::Receiver<WriterCommand>, mpsc::UnboundedReceiver<SubscribeRequest>),
        away: Arc<AtomicBool>,
        returned: watch::Sender<u64>,
        subscribers: Subscribers,
    ) -> Self {
        metrics::gauge!("atoll_bus_connected").set(1.0);
        Self {
            client,
            commands: errands,
            subscribe_requests: openings,
            link: LinkState::Connected,
            disconnected: away,
            reconnects: returned,
            connects: 1,
            buffered: VecDeque::new(),
            sequence_id: wire::SequenceId { publisher: rand::random(), number: 0 },
            subscribers,
            subscriptions: 0,
            readers: JoinSet::new(),
            last_warned: None,
        }
    }

    /// Runs for as long as somebody may publish or subscribe. With it all subscriptions end.
    pub(super) async fn run(mut self) {
        let mut looks = time::interval(CHECK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                Some(opening) = self.subscribe_requests.recv() => self.subscribe(opening).await,
                _ = looks.tick() => self.check_connection().await,
                errand = self.commands.recv() => match errand {
                    Some(errand) => self.run_command(errand).await,
                    None => return,
                },
            };
            if let Err(ConnectionClosed) = done {
                metrics::gauge!("atoll_bus_connected").set(0.0);
                tracing::error!("the connection to the bus has ended for good");
                return;
            }
        }
    }

    async fn run_command(&mut self, errand: WriterCommand) -> Result<(), ConnectionClosed> {
        // Whoever subscribed before this was published is to hear it.
        while let Ok(opening) = self.subscribe_requests.try_recv() {
            self.subscribe(opening).await?;
        }
        self.check_connection().await?;
        match errand {
            WriterCommand::Publish(publication) => self.publish(publication).await,
            WriterCommand::Flush(answer) => {
                if let LinkState::Connected = self.link {
                    let _ = time::timeout(CHECK_INTERVAL * 10, self.client.flush()).await;
                }
                let _ = answer.send(());
                Ok(())
            }
        }
    }

    async fn subscribe(
        &mut self,
        SubscribeRequest { patterns, subject_scheme: layout, queue: inbox }: SubscribeRequest,
    ) -> Result<(), ConnectionClosed> {
        let inbox = Arc::new(inbox);
        let mut channels = Vec::with_capacity(patterns.len());
        for pattern in &patterns {
            self.register_subscription(&inbox);
            // Waits only while more is under way than the library takes.
            channels.push(self.client.subscribe(pattern.clone()).await.map_err(|error| {
                tracing::error!(pattern, %error, "cannot subscribe");
                ConnectionClosed
            })?);
        }
        self.readers.spawn(OrderedReader::new(patterns, layout, channels, inbox).run());
        while self.readers.try_join_next().is_some() {}
        Ok(())
    }

    /// Notes for whom the next subscription is: the library counts them from 1 on, and this task
    /// makes all of them.
    fn register_subscription(&mut self, inbox: &Arc<SubscriberQueue>) {
        self.subscriptions += 1;
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|_, inbox| !inbox.is_closed());
        subscribers.insert(self.subscriptions, inbox.clone());
    }

    /// Looks whether the connection is there, and says so when that has changed.
    async fn check_connection(&mut self) -> Result<(), ConnectionClosed> {
        let connected = self.client.connection_state() == State::Connected;
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        // It may have been away between two looks.
        let held = connected && connects == self.connects;
        match self.link {
            LinkState::Connected if held => {}
            LinkState::ReconnectGrace(until) if held => {
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
                let away_ms = since.elapsed().as_millis();
                tracing::info!(away_ms, held = self.buffered.len(), "the connection to the bus is back");
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
        tracing::warn!("the connection to the bus is lost");
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

    /// Keeps a message for when the connection is back, if it holds late.
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

    /// Sends a message, in parts where it is larger than the server takes. When the connection goes
    /// in the meantime, it is kept or dropped as a whole, as any other.
    async fn send(&mut self, publication: Publication) -> Result<(), ConnectionClosed> {
        let Publication { subject, headers, payload, .. } = &publication;
        let most = self.client.max_payload();
        let sent = match headers {
            None => self.send_to_client(subject, None, payload.clone()).await?,
            Some(headers) => {
                let map = wire::encode(headers, self.next_sequence_id(), None);
                if wire::encoded_size(&map) + payload.len() <= most {
                    self.send_to_client(subject, Some(map), payload.clone()).await?
                } else if let Some(parts) = reassembly::split(payload, wire::part_capacity(&map, most)) {
                    self.send_parts(subject, headers, parts).await?
                } else {
                    SendOutcome::Rejected(DropReason::TooLarge)
                }
            }
        };
        match sent {
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

    /// Hands a message to the client library. That takes time only while more is under way than
    /// the library takes.
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
                sent = &mut sending => return match sent {
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
            let (bytes, taken) = (payload.len(), self.client.max_payload());
            tracing::warn!(subject, bytes, taken, "a message is larger than all parts can be, dropped");
            self.last_warned = Some(Instant::now());
        }
    }
}
