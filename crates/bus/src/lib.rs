//! Publish and subscribe between the roles of a realm.
//!
//! Messages are at most once, and those of one publisher in their order: a subscriber whose queue is
//! full loses the newest, which is counted (`atoll_bus_dropped_total`, and on the next message that
//! it keeps), and a publisher never waits. Subjects and wildcards follow NATS, and the same roles run
//! on either bus: within a process, or over NATS.
//!
//! Over NATS, while the connection is away, what holds late ([`Subject::survives_disconnect`]) is kept for a
//! minute and said in order when it is back; all else is dropped and counted. What was on its way
//! when the connection went is lost. Messages may be up to 64 MiB large, whatever the server takes at
//! a time.
//!
//! An office is held by one process at a time ([`Bus::campaign`]), in terms of growing epochs. What the
//! holder says in an earlier epoch than the latest that a bus heard of is dropped and counted, for
//! every subscriber (`atoll_bus_deposed_total`). Over NATS this needs JetStream, in which the name of
//! the holder stands for two seconds and is written again twice a second; where there is none, and
//! within a process, everybody leads, without epochs.

mod election;
mod fencing;
mod in_process;
mod nats;
mod subscriber_queue;

use std::sync::Arc;

use bytes::Bytes;
use protocol::{Address, NodeName, ResumeHash, SessionId, Subject, subject::SubjectScheme};
use tokio::sync::{mpsc, watch};

pub use election::{Candidate, ElectionState, Term};
pub use nats::{ConnectError, Credentials, NatsSettings};

use election::ObservedState;
use fencing::EpochFence;
use in_process::InProcess;
use nats::Nats;

/// What came over the bus.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Its subject, as text; [`Envelope::subject`] reads it.
    subject: Arc<str>,
    /// How it is spelled.
    subject_scheme: SubjectScheme,
    /// What is said beside the payload.
    pub headers: Headers,
    /// The bytes.
    pub payload: Bytes,
    /// So many messages were dropped just before this one, as this subscription's queue was full.
    pub missed: u64,
}

impl Envelope {
    /// The subject, if it is one that this project knows.
    pub fn subject(&self) -> Option<Subject> {
        self.subject_scheme.parse(&self.subject).ok()
    }
}

/// What is said beside a payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Atoll-Session`: the sign-in that the message belongs to. Absent: the current one.
    pub session: Option<SessionId>,
    /// `Atoll-Transports`: what the client said that it can join, separated by commas. Absent: it
    /// said nothing.
    pub transports: Option<Arc<str>>,
    /// `Atoll-Sender`: who says something under a scene's topic. Absent: a server does.
    pub sender: Option<Address>,
    /// `Atoll-Node`: with a change of island, the node of the island's room.
    pub node: Option<NodeName>,
    /// `Atoll-Epoch`: of which term of which director the message is; a later term has a greater
    /// one. Absent: of one that shares its realm with no other.
    pub epoch: Option<u64>,
    /// The resumption headers of a connect. Boxed, since hardly any other message has them.
    pub resumption: Option<Box<Resumption>>,
}

/// The resumption headers of a connect whose client announced extensions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumption {
    /// `Atoll-Resume-Hash`: the hash of the session's resumption secret.
    pub hash: Option<ResumeHash>,
    /// `Atoll-Resumes`: the older session that this one resumes.
    pub resumes: Option<SessionId>,
}

impl Headers {
    /// The headers of a message that belongs to one session.
    pub fn for_session(session: SessionId) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    /// The resumption headers: both absent, unless the message is the connect of a client that announced
    /// extensions.
    pub fn resumption(&self) -> Resumption {
        self.resumption.as_deref().copied().unwrap_or_default()
    }
}

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

    /// A bus over NATS. It reconnects by itself, and ends for good with the last handle to it.
    pub async fn nats(settings: NatsSettings) -> Result<Self, ConnectError> {
        Ok(Self(Backend::Nats(Arc::new(Nats::connect(settings).await?))))
    }

    /// How subjects are spelled there, and which there are. What this bus is asked to publish and
    /// subscribe to is spelled as [`Layout::CommsV3`] has it, whatever this says; what has no place
    /// there is not published.
    pub fn subject_scheme(&self) -> SubjectScheme {
        match &self.0 {
            Backend::InProcess(_) => SubjectScheme::CommsV3,
            Backend::Nats(bus) => bus.subject_scheme(),
        }
    }

    /// Gives a message to everybody subscribed to its subject. Never waits.
    pub fn publish(&self, subject: &Subject, headers: Headers, payload: impl Into<Bytes>) {
        let payload = payload.into();
        match &self.0 {
            Backend::InProcess(bus) => {
                let (subject, layout) = (subject.to_string().into(), SubjectScheme::CommsV3);
                bus.publish(Envelope { subject, subject_scheme: layout, headers, payload, missed: 0 });
            }
            Backend::Nats(bus) => bus.publish(subject, headers, payload),
        }
    }

    /// Messages on subjects that match one of `patterns`, those of one publisher in the order of
    /// their publication; what this bus itself publishes from now on is among them.
    ///
    /// The queue holds `capacity` messages; at the bound the newest is dropped and counted under
    /// the name of the `subscriber`.
    pub fn subscribe(&self, subscriber: &'static str, patterns: &[&str], capacity: usize) -> Subscription {
        Subscription(match &self.0 {
            Backend::InProcess(bus) => bus.subscribe(subscriber, patterns, capacity),
            Backend::Nats(bus) => bus.subscribe(subscriber, patterns, capacity),
        })
    }

    /// Whether other processes may be on it.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Backend::Nats(_))
    }

    /// Whether nobody can be told anything, and nobody heard, as the connection is away. Never so
    /// within a process.
    pub fn is_disconnected(&self) -> bool {
        match &self.0 {
            Backend::InProcess(_) => false,
            Backend::Nats(bus) => bus.is_disconnected(),
        }
    }

    /// Waits until a good part of what waits to be published has been: for whoever has much to say and
    /// nobody waiting for it. What is said without would be dropped once the queue is full.
    pub async fn wait_for_capacity(&self) {
        match &self.0 {
            Backend::InProcess(_) => {}
            Backend::Nats(bus) => bus.wait_for_capacity().await,
        }
    }

    /// Waits until what was published is on its way, for about a second at most once it is its turn.
    pub async fn flush(&self) {
        match &self.0 {
            Backend::InProcess(_) => {}
            Backend::Nats(bus) => bus.flush().await,
        }
    }

    /// Begins to campaign for an office, which one process at a time holds: a word of letters, digits
    /// and `-`. Within a process everybody holds it at once.
    ///
    /// The connection lasts as long as the campaign does, too.
    pub fn campaign(&self, lease_name: &'static str) -> Candidate {
        match &self.0 {
            Backend::InProcess(_) => Candidate::new(watch::channel(ObservedState::UNCONTESTED).1, None),
            Backend::Nats(bus) => bus.campaign(lease_name),
        }
    }

    /// The latest epoch that this bus heard of from directors, or from who holds an office. 0 if it never
    /// did.
    pub fn latest_epoch(&self) -> u64 {
        self.fence().latest()
    }

    /// Tells the bus of an epoch that somebody else has heard of: our terms have a greater one from now
    /// on, so that it hears us. What is said in an earlier one is still heard here.
    pub fn observe_epoch(&self, epoch: u64) {
        self.fence().observe_reported(epoch);
    }

    /// How often the connection came back, counted when messages go over it again. Never within a
    /// process.
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
    /// The next message; `None` when the bus is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Envelope> {
        self.0.recv().await
    }

    /// The next message, if one is already there.
    pub fn try_next(&mut self) -> Option<Envelope> {
        self.0.try_recv().ok()
    }

    /// How many are there.
    pub fn backlog(&self) -> usize {
        self.0.len()
    }
}
