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
use protocol::subject::Layout;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{
    incoming::Incoming,
    parts::{self, Part},
    wire,
};
use crate::{Headers, inbox::Inbox};

/// How often the courier looks whether the connection is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long after a reconnect nothing is published yet: whoever lost the connection, too, is to be
/// back by then, and to hear what was kept. Above the longest pause between attempts.
const SETTLING: Duration = Duration::from_millis(1_500);
/// What is repeated anyway is stale when it waited for this long.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// For how long what holds late is kept while the connection is away.
const HOLD_FOR: Duration = Duration::from_secs(60);
/// How much of it is kept; at the bound the newest is dropped and counted.
const MAX_HELD: usize = 16_384;
/// How often it is said in the log that a message was too large.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Subscribers by the number that the client library gives to the subscription of each pattern.
pub(super) type Subscribers = Arc<Mutex<HashMap<u64, Arc<Inbox>>>>;

/// A message to publish.
pub(super) struct Publication {
    pub(super) subject: String,
    pub(super) holds_late: bool,
    /// `None` where there are none to be.
    pub(super) headers: Option<Headers>,
    pub(super) payload: Bytes,
    pub(super) at: Instant,
}

/// What the courier is asked to do.
pub(super) enum Errand {
    Publish(Publication),
    /// To answer when all before it is on its way.
    Flush(oneshot::Sender<()>),
}

/// A subscription to begin.
pub(super) struct Opening {
    pub(super) patterns: Vec<String>,
    pub(super) layout: Layout,
    pub(super) inbox: Inbox,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unsent {
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

impl Unsent {
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
enum Handed {
    /// It is on its way.
    Over,
    /// It is not taken.
    Back(Unsent),
    /// The connection went first.
    Nowhere,
}

/// How it is with the connection.
enum Link {
    Up,
    /// Since when.
    Away(Instant),
    /// It is back, and nothing is published until then.
    Settling(Instant),
}

/// The one task that talks to the connection.
pub(super) struct Courier {
    client: Client,
    errands: mpsc::Receiver<Errand>,
    openings: mpsc::UnboundedReceiver<Opening>,
    link: Link,
    /// Whether publishing waits for the connection, for those who publish.
    away: Arc<AtomicBool>,
    /// How often it was back after that.
    returned: watch::Sender<u64>,
    /// How often there was a connection.
    connects: u64,
    /// What is kept for when the connection is back.
    held: VecDeque<Publication>,
    /// Of this connection's messages the last.
    place: wire::Place,
    subscribers: Subscribers,
    /// How many patterns were subscribed to.
    subscriptions: u64,
    incoming: JoinSet<()>,
    warned: Option<Instant>,
}

/// The connection has ended for good.
#[derive(Debug)]
struct Ended;

impl Courier {
    pub(super) fn new(
        client: Client,
        (errands, openings): (mpsc::Receiver<Errand>, mpsc::UnboundedReceiver<Opening>),
        away: Arc<AtomicBool>,
        returned: watch::Sender<u64>,
        subscribers: Subscribers,
    ) -> Self {
        metrics::gauge!("atoll_bus_connected").set(1.0);
        Self {
            client,
            errands,
            openings,
            link: Link::Up,
            away,
            returned,
            connects: 1,
            held: VecDeque::new(),
            place: wire::Place { publisher: rand::random(), number: 0 },
            subscribers,
            subscriptions: 0,
            incoming: JoinSet::new(),
            warned: None,
        }
    }

    /// Runs for as long as somebody may publish or subscribe. With it all subscriptions end.
    pub(super) async fn run(mut self) {
        let mut looks = time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                Some(opening) = self.openings.recv() => self.open(opening).await,
                _ = looks.tick() => self.look().await,
                errand = self.errands.recv() => match errand {
                    Some(errand) => self.run_errand(errand).await,
                    None => return,
                },
            };
            if let Err(Ended) = done {
                metrics::gauge!("atoll_bus_connected").set(0.0);
                tracing::error!("the connection to the bus has ended for good");
                return;
            }
        }
    }

    async fn run_errand(&mut self, errand: Errand) -> Result<(), Ended> {
        // Whoever subscribed before this was published is to hear it.
        while let Ok(opening) = self.openings.try_recv() {
            self.open(opening).await?;
        }
        self.look().await?;
        match errand {
            Errand::Publish(publication) => self.publish(publication).await,
            Errand::Flush(answer) => {
                if let Link::Up = self.link {
                    let _ = time::timeout(LOOK_INTERVAL * 10, self.client.flush()).await;
                }
                let _ = answer.send(());
                Ok(())
            }
        }
    }

    async fn open(&mut self, Opening { patterns, layout, inbox }: Opening) -> Result<(), Ended> {
        let inbox = Arc::new(inbox);
        let mut channels = Vec::with_capacity(patterns.len());
        for pattern in &patterns {
            self.name_next(&inbox);
            // Waits only while more is under way than the library takes.
            channels.push(self.client.subscribe(pattern.clone()).await.map_err(|error| {
                tracing::error!(pattern, %error, "cannot subscribe");
                Ended
            })?);
        }
        self.incoming.spawn(Incoming::new(patterns, layout, channels, inbox).run());
        while self.incoming.try_join_next().is_some() {}
        Ok(())
    }

    /// Notes for whom the next subscription is: the library counts them from 1 on, and this task
    /// makes all of them.
    fn name_next(&mut self, inbox: &Arc<Inbox>) {
        self.subscriptions += 1;
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|_, inbox| !inbox.is_closed());
        subscribers.insert(self.subscriptions, inbox.clone());
    }

    /// Looks whether the connection is there, and says so when that has changed.
    async fn look(&mut self) -> Result<(), Ended> {
        let connected = self.client.connection_state() == State::Connected;
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        // It may have been away between two looks.
        let held = connected && connects == self.connects;
        match self.link {
            Link::Up if held => {}
            Link::Settling(until) if held => {
                if until <= Instant::now() {
                    self.link = Link::Up;
                    self.away.store(false, Ordering::Relaxed);
                    self.send_held().await?;
                    if let Link::Up = self.link {
                        self.returned.send_modify(|times| *times += 1);
                    }
                }
            }
            Link::Up | Link::Settling(_) => self.lost(),
            Link::Away(since) if connected => {
                metrics::counter!("atoll_bus_reconnects_total").increment(connects - self.connects);
                metrics::gauge!("atoll_bus_connected").set(1.0);
                let away_ms = since.elapsed().as_millis();
                tracing::info!(away_ms, held = self.held.len(), "the connection to the bus is back");
                self.connects = connects;
                self.link = Link::Settling(Instant::now() + SETTLING);
            }
            Link::Away(_) => {}
        }
        Ok(())
    }

    fn lost(&mut self) {
        self.link = Link::Away(Instant::now());
        self.away.store(true, Ordering::Relaxed);
        metrics::gauge!("atoll_bus_connected").set(0.0);
        tracing::warn!("the connection to the bus is lost");
    }

    async fn publish(&mut self, publication: Publication) -> Result<(), Ended> {
        let stale = !publication.holds_late && publication.at.elapsed() > STALE_AFTER;
        match self.link {
            _ if stale => Unsent::Stale.count(),
            Link::Up => return self.send(publication).await,
            _ => self.hold(publication),
        }
        Ok(())
    }

    /// Keeps a message for when the connection is back, if it holds late.
    fn hold(&mut self, publication: Publication) {
        if !publication.holds_late {
            Unsent::Stale.count();
        } else if self.held.len() < MAX_HELD {
            self.held.push_back(publication);
        } else {
            Unsent::Expired.count();
        }
    }

    async fn send_held(&mut self) -> Result<(), Ended> {
        for publication in std::mem::take(&mut self.held) {
            if publication.at.elapsed() > HOLD_FOR {
                Unsent::Expired.count();
            } else if let Link::Up = self.link {
                self.send(publication).await?;
            } else {
                self.hold(publication);
            }
        }
        Ok(())
    }

    /// Sends a message, in parts where it is larger than the server takes. When the connection goes
    /// in the meantime, it is kept or dropped as a whole, as any other.
    async fn send(&mut self, publication: Publication) -> Result<(), Ended> {
        let Publication { subject, headers, payload, .. } = &publication;
        let most = self.client.max_payload();
        let sent = match headers {
            None => self.hand_over(subject, None, payload.clone()).await?,
            Some(headers) => {
                let map = wire::encode(headers, self.next_place(), None);
                if wire::size(&map) + payload.len() <= most {
                    self.hand_over(subject, Some(map), payload.clone()).await?
                } else if let Some(parts) = parts::split(payload, wire::room(&map, most)) {
                    self.send_parts(subject, headers, parts).await?
                } else {
                    Handed::Back(Unsent::TooLarge)
                }
            }
        };
        match sent {
            Handed::Over => {}
            Handed::Back(Unsent::TooLarge) => self.refuse(&publication),
            Handed::Back(reason) => reason.count(),
            Handed::Nowhere => {
                self.lost();
                self.hold(publication);
            }
        }
        Ok(())
    }

    async fn send_parts(
        &mut self,
        subject: &str,
        headers: &Headers,
        parts: impl Iterator<Item = (Part, Bytes)>,
    ) -> Result<Handed, Ended> {
        for (part, payload) in parts {
            let map = wire::encode(headers, self.next_place(), Some(part));
            match self.hand_over(subject, Some(map), payload).await? {
                Handed::Over => {}
                otherwise => return Ok(otherwise),
            }
        }
        Ok(Handed::Over)
    }

    fn next_place(&mut self) -> wire::Place {
        self.place.number += 1;
        self.place
    }

    /// Hands a message to the client library. That takes time only while more is under way than
    /// the library takes.
    async fn hand_over(
        &self,
        subject: &str,
        map: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Handed, Ended> {
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
                    Ok(()) => Ok(Handed::Over),
                    Err(error) => match error.kind() {
                        PublishErrorKind::MaxPayloadExceeded => Ok(Handed::Back(Unsent::TooLarge)),
                        PublishErrorKind::InvalidSubject => Ok(Handed::Back(Unsent::Refused)),
                        PublishErrorKind::Send => Err(Ended),
                    },
                },
                () = time::sleep(LOOK_INTERVAL) => {
                    if self.client.connection_state() != State::Connected {
                        return Ok(Handed::Nowhere);
                    }
                }
            }
        }
    }

    fn refuse(&mut self, Publication { subject, payload, .. }: &Publication) {
        Unsent::TooLarge.count();
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            let (bytes, taken) = (payload.len(), self.client.max_payload());
            tracing::warn!(subject, bytes, taken, "a message is larger than all parts can be, dropped");
            self.warned = Some(Instant::now());
        }
    }
}
