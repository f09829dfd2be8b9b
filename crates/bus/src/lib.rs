//! Publish and subscribe between the roles of a realm.
//!
//! Delivery is at most once, and the messages of one publisher arrive in their order. A publisher never
//! waits: when a subscriber's queue is full, the newest message is dropped and counted (in
//! `atoll_bus_dropped_total`, and in [`Envelope::missed`] of the next message that is queued). Subjects and
//! wildcards follow NATS, and the same roles run on either bus: within a process, or over NATS.
//!
//! While the connection to NATS is down, messages that survive a disconnect
//! ([`Subject::survives_disconnect`]) are buffered for up to a minute and sent in order after the reconnect;
//! all others are dropped and counted. Messages in flight when the connection breaks are lost. A message may
//! have up to 64 MiB, also above the server's payload limit: it is then sent in parts.
//!
//! Leader election ([`Bus::campaign`]): one process at a time holds a lease, in terms of increasing epochs.
//! Fencing: a leader's message with a lower epoch than the latest that a bus has seen is dropped for every
//! subscriber and counted (`atoll_bus_deposed_total`). Over NATS this needs JetStream: the lease expires
//! after two seconds and its holder renews it twice a second. Without JetStream, and within a process, every
//! process leads, without epochs.
//!
//! ```
//! use bus::{Bus, Headers};
//! use protocol::{Address, Subject};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let bus = Bus::in_process();
//! // The name labels the subscriber's metrics; its queue holds 1,024 messages.
//! let mut heartbeats = bus.subscribe("example", &["peer.*.heartbeat"], 1_024);
//!
//! let peer = Address::new([7; 20]);
//! bus.publish(&Subject::PeerHeartbeat(peer), Headers::default(), "position");
//!
//! let envelope = heartbeats.next().await.unwrap();
//! assert_eq!(envelope.subject(), Some(Subject::PeerHeartbeat(peer)));
//! assert_eq!((&envelope.payload[..], envelope.missed), (&b"position"[..], 0));
//! # }
//! ```

mod election;
mod envelope;
mod fencing;
mod in_process;
mod metrics;
mod nats;
mod subscriber_queue;

use std::sync::Arc;

use bytes::Bytes;
use protocol::{Subject, subject::SubjectScheme};
use tokio::sync::{mpsc, watch};

pub use election::{Candidate, ElectionState, Term};
pub use envelope::{Envelope, Headers, Resumption};
pub use metrics::describe_metrics;
pub use nats::{ConnectError, Credentials, NatsSettings};

use election::ObservedState;
use fencing::EpochFence;
use in_process::InProcess;
use nats::Nats;

/// A handle to the bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus(Backend);

#[derive(Debug, Clone)]
enum Backend {
    InProcess(Arc<InProcess>),
    Nats(Arc<Nats>),
}

impl Bus {
    /// A bus within this process.
    pub fn in_process() -> Self {
        Self(Backend::InProcess(Arc::default()))
    }

    /// A bus over NATS. It reconnects by itself, and closes when its last handle is dropped.
    ///
    /// Fails if the first connection is not made within `settings.connect_timeout`, or if the server refuses
    /// the credentials.
    pub async fn nats(settings: NatsSettings) -> Result<Self, ConnectError> {
        Ok(Self(Backend::Nats(Arc::new(Nats::connect(settings).await?))))
    }

    /// The scheme in which this bus writes subjects. Callers of this bus always use the spelling of
    /// [`SubjectScheme::CommsV3`]; a message on a subject that the scheme does not have is not published.
    pub fn subject_scheme(&self) -> SubjectScheme {
        match &self.0 {
            Backend::InProcess(_) => SubjectScheme::CommsV3,
            Backend::Nats(bus) => bus.subject_scheme(),
        }
    }

    /// Publishes a message to all subscribers of its subject. Never waits.
    pub fn publish(&self, subject: &Subject, headers: Headers, payload: impl Into<Bytes>) {
        let payload = payload.into();
        match &self.0 {
            Backend::InProcess(bus) => {
                let (subject, subject_scheme) = (subject.to_string().into(), SubjectScheme::CommsV3);
                bus.publish(Envelope { subject, subject_scheme, headers, payload, missed: 0 });
            }
            Backend::Nats(bus) => bus.publish(subject, headers, payload),
        }
    }

    /// Subscribes to the subjects that match one of `patterns`. The messages of one publisher arrive in the
    /// order of their publication. Messages that this bus itself publishes after this call are included.
    ///
    /// The queue holds `capacity` messages; when it is full the newest is dropped and counted under the name
    /// of the `subscriber`.
    pub fn subscribe(&self, subscriber: &'static str, patterns: &[&str], capacity: usize) -> Subscription {
        Subscription(match &self.0 {
            Backend::InProcess(bus) => bus.subscribe(subscriber, patterns, capacity),
            Backend::Nats(bus) => bus.subscribe(subscriber, patterns, capacity),
        })
    }

    /// Whether other processes can share this bus.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Backend::Nats(_))
    }

    /// Whether the connection is down, so that messages are neither sent nor received. Always `false` within
    /// a process.
    pub fn is_disconnected(&self) -> bool {
        match &self.0 {
            Backend::InProcess(_) => false,
            Backend::Nats(bus) => bus.is_disconnected(),
        }
    }

    /// Waits until the queue of messages to publish is less than half full. For publishers of large batches
    /// that can wait: without it, messages would be dropped once the queue is full.
    pub async fn wait_for_capacity(&self) {
        match &self.0 {
            Backend::InProcess(_) => {}
            Backend::Nats(bus) => bus.wait_for_capacity().await,
        }
    }

    /// Waits until all messages published before this call were written to the connection. Once the writer
    /// reaches this request it waits for at most about a second.
    pub async fn flush(&self) {
        match &self.0 {
            Backend::InProcess(_) => {}
            Backend::Nats(bus) => bus.flush().await,
        }
    }

    /// Joins the leader election of the lease `lease_name` (letters, digits and `-`). Within a process every
    /// candidate leads at once.
    ///
    /// The connection stays open as long as the candidate exists.
    pub fn campaign(&self, lease_name: &'static str) -> Candidate {
        match &self.0 {
            Backend::InProcess(_) => Candidate::new(watch::channel(ObservedState::UNCONTESTED).1, None),
            Backend::Nats(bus) => bus.campaign(lease_name),
        }
    }

    /// The latest epoch in which a director published or held a lease, as far as this bus has seen; 0 if
    /// none.
    pub fn latest_epoch(&self) -> u64 {
        self.fence().latest()
    }

    /// Reports an epoch that another participant has seen: later terms of this process get a higher one, so
    /// that the other participant accepts its messages. It fences no leader on this bus: messages of lower
    /// epochs are still received.
    pub fn observe_epoch(&self, epoch: u64) {
        self.fence().observe_reported(epoch);
    }

    /// How often the connection was re-established, counted when messages are sent over it again. Always 0
    /// within a process.
    pub fn reconnects(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Backend::InProcess(bus) => bus.reconnects.subscribe(),
            Backend::Nats(bus) => bus.reconnects(),
        }
    }

    fn fence(&self) -> &EpochFence {
        match &self.0 {
            Backend::InProcess(bus) => &bus.fence,
            Backend::Nats(bus) => bus.fence(),
        }
    }
}

/// The receiving end of a subscription. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription(mpsc::Receiver<Envelope>);

impl Subscription {
    /// The next message; `None` when the bus is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Envelope> {
        self.0.recv().await
    }

    /// The next message, if one is queued.
    pub fn try_next(&mut self) -> Option<Envelope> {
        self.0.try_recv().ok()
    }

    /// The number of queued messages.
    pub fn backlog(&self) -> usize {
        self.0.len()
    }
}
