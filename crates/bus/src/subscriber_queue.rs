//! The queue between the bus and one subscriber, with the checks that each message passes before it is
//! queued.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use protocol::{is_far_ahead, unix_ms};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{envelope::Envelope, fencing::EpochFence, metrics};

/// The shortest time between two log messages about a slow subscriber.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The bounded queue of one subscriber. When it is full the newest message is dropped and counted, and the
/// next message that is queued carries the number of dropped ones.
#[derive(Debug)]
pub(crate) struct SubscriberQueue {
    name: &'static str,
    sender: mpsc::Sender<Envelope>,
    /// Shared by all queues of the bus.
    fence: Arc<EpochFence>,
    /// Messages dropped since the last one that was queued.
    missed: AtomicU64,
    /// When the slow subscriber was last logged.
    last_warned: Mutex<Option<Instant>>,
}

impl SubscriberQueue {
    /// The queue of the subscriber with this name, and its receiving end.
    pub(crate) fn new(
        name: &'static str,
        capacity: usize,
        fence: Arc<EpochFence>,
    ) -> (Self, mpsc::Receiver<Envelope>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { name, sender, fence, missed: AtomicU64::new(0), last_warned: Mutex::default() }, receiver)
    }

    /// Whether the subscriber dropped its end.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the subscriber drops its end.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Queues a message. It is dropped if the queue is full, if it comes from a deposed director, or if its
    /// session id lies more than a day in the future. Such a session would be newer than any other session of
    /// its wallet, and a ULID clock that observed it would mint consecutive ids in its millisecond until the
    /// ids of that millisecond are used up.
    pub(crate) fn offer(&self, mut envelope: Envelope) {
        let session = envelope.headers.session;
        if session.is_some_and(|session| is_far_ahead(session.unix_ms(), unix_ms(SystemTime::now()))) {
            metrics::future_sessions(self.name).increment(1);
            let subject = &*envelope.subject;
            tracing::debug!(subscriber = self.name, subject, "session id in the future, message dropped");
            return;
        }
        if !self.fence.admits(&envelope) {
            metrics::deposed(self.name).increment(1);
            let subject = &*envelope.subject;
            tracing::debug!(subscriber = self.name, subject, "message of a deposed director dropped");
            return;
        }
        envelope.missed = self.missed.swap(0, Ordering::Relaxed);
        if let Err(TrySendError::Full(envelope)) = self.sender.try_send(envelope) {
            self.missed.fetch_add(envelope.missed + 1, Ordering::Relaxed);
            metrics::dropped(self.name).increment(1);
            tracing::debug!(subscriber = self.name, subject = %envelope.subject, "queue full, message dropped");
        }
    }

    /// Counts a message that the client library dropped, before it reached this queue.
    pub(crate) fn count_slow_consumer(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        metrics::slow_consumer(self.name).increment(1);
        let mut last_warned = self.last_warned.lock();
        if last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            tracing::warn!(subscriber = self.name, "slow subscriber: messages are dropped");
            *last_warned = Some(Instant::now());
        }
    }

    /// Counts a message that is dropped because some of its parts were lost.
    pub(crate) fn count_incomplete(&self, subject: &str) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        metrics::incomplete(self.name).increment(1);
        tracing::debug!(subscriber = self.name, subject, "parts of a message are missing, message dropped");
    }

    /// Counts a message that is dropped because a header cannot be decoded.
    pub(crate) fn count_malformed(&self, subject: &str, reason: &'static str) {
        metrics::malformed(self.name, reason).increment(1);
        tracing::debug!(
            subscriber = self.name,
            subject,
            header = reason,
            "malformed header, message dropped"
        );
    }
}
