use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::{Duration, Instant, SystemTime};

use protocol::{is_far_ahead, unix_ms};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{Envelope, fencing::EpochFence};

/// How often it is said in the log that a subscriber is slow.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The queue of one subscriber: bounded, and at the bound the newest is dropped, counted and told.
#[derive(Debug)]
pub(crate) struct SubscriberQueue {
    name: &'static str,
    sender: mpsc::Sender<Envelope>,
    /// Of the whole bus.
    fence: Arc<EpochFence>,
    /// Messages dropped since the last one that was kept.
    missed: AtomicU64,
    /// When it was last said that it is slow.
    last_warned: Mutex<Option<Instant>>,
}

impl SubscriberQueue {
    /// The queue of the subscriber of this name, and its other end.
    pub(crate) fn new(
        name: &'static str,
        capacity: usize,
        epochs: Arc<EpochFence>,
    ) -> (Self, mpsc::Receiver<Envelope>) {
        let (queue, receiver) = mpsc::channel(capacity);
        (
            Self {
                name,
                sender: queue,
                fence: epochs,
                missed: AtomicU64::new(0),
                last_warned: Mutex::default(),
            },
            receiver,
        )
    }

    /// Whether the subscriber has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the subscriber has gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Puts a message into the queue, or drops it: where there is no place, where a director says it
    /// that was deposed, and where its session began more than a day from now. Such a session would be
    /// newer than any other of its wallet, and clocks that observe it would mint one id after the other
    /// in its millisecond, until the last id there is.
    pub(crate) fn offer(&self, mut envelope: Envelope) {
        let session = envelope.headers.session;
        if session.is_some_and(|session| is_far_ahead(session.unix_ms(), unix_ms(SystemTime::now()))) {
            metrics::counter!("atoll_bus_future_sessions_total", "subscriber" => self.name).increment(1);
            tracing::debug!(subscriber = self.name, subject = %envelope.subject, "session of the future, dropped");
            return;
        }
        if !self.fence.admits(&envelope) {
            metrics::counter!("atoll_bus_deposed_total", "subscriber" => self.name).increment(1);
            tracing::debug!(subscriber = self.name, subject = %envelope.subject, "of a deposed director, dropped");
            return;
        }
        envelope.missed = self.missed.swap(0, Ordering::Relaxed);
        if let Err(TrySendError::Full(envelope)) = self.sender.try_send(envelope) {
            self.missed.fetch_add(envelope.missed + 1, Ordering::Relaxed);
            metrics::counter!("atoll_bus_dropped_total", "subscriber" => self.name).increment(1);
            tracing::debug!(subscriber = self.name, subject = %envelope.subject, "queue full, message dropped");
        }
    }

    /// A message was dropped before it came this far.
    pub(crate) fn count_slow_consumer(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("atoll_bus_slow_consumer_total", "subscriber" => self.name).increment(1);
        let mut warned = self.last_warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            tracing::warn!(
                subscriber = self.name,
                "messages come faster than they are taken, some are dropped"
            );
            *warned = Some(Instant::now());
        }
    }

    /// Parts of a message were lost, and the rest is not passed on.
    pub(crate) fn count_incomplete(&self, subject: &str) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("atoll_bus_incomplete_total", "subscriber" => self.name).increment(1);
        tracing::debug!(subscriber = self.name, subject, "parts of a message are missing, message dropped");
    }

    /// A message was not understood, and is not passed on.
    pub(crate) fn count_malformed(&self, subject: &str, reason: &'static str) {
        metrics::counter!("atoll_bus_malformed_total", "subscriber" => self.name, "header" => reason)
            .increment(1);
        tracing::debug!(
            subscriber = self.name,
            subject,
            header = reason,
            "malformed header, message dropped"
        );
    }
}
