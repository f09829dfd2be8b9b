//! The bus over NATS.
//!
//! Published messages wait in a bounded queue for the writer task, which numbers them and passes them to the
//! client library; so publishing never waits for the network. Each subscriber has a reader task, which merges
//! the messages of its patterns in order and adds them to the subscriber's queue.

mod connect;
mod disconnect_buffer;
mod lease;
mod link;
mod publication;
mod reader;
mod reassembly;
mod sender;
mod sequence;
mod server_events;
mod settings;
mod subscribers;
mod timing;
mod wire;
mod writer;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::Client;
use bytes::Bytes;
use protocol::{Subject, subject::SubjectScheme};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};

use crate::{
    election::Candidate,
    envelope::{Envelope, Headers},
    fencing::EpochFence,
    subscriber_queue::SubscriberQueue,
};
use connect::connect;
use lease::ReplicaTarget;
use publication::{DropReason, Publication};
use server_events::event_handler;
use subscribers::Subscribers;
use writer::{SubscribeRequest, WriterCommand, WriterRequests, WriterTask};

pub use connect::ConnectError;
pub use settings::{Credentials, NatsSettings};

/// Messages that can wait to be published; when the queue is full the newest is dropped and counted.
const OUTGOING_QUEUE: usize = 65_536;
/// How often [`Nats::wait_for_capacity`] checks whether half of the queue is free.
const CAPACITY_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A connection to NATS.
pub(crate) struct Nats {
    client: Client,
    commands: mpsc::Sender<WriterCommand>,
    subscribe_requests: mpsc::UnboundedSender<SubscribeRequest>,
    disconnected: Arc<AtomicBool>,
    reconnects: watch::Receiver<u64>,
    fence: Arc<EpochFence>,
    subject_scheme: SubjectScheme,
    replicas: ReplicaTarget,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("disconnected", &self.disconnected).finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects. When the connection is lost later, it is re-established with unlimited attempts.
    pub(crate) async fn connect(settings: NatsSettings) -> Result<Self, ConnectError> {
        let subject_scheme = settings.subject_scheme;
        let replicas = ReplicaTarget::new(settings.lease_replicas);
        let subscribers = Subscribers::default();
        let client = connect(settings, event_handler(subscribers.clone())).await?;
        let (commands, commands_receiver) = mpsc::channel(OUTGOING_QUEUE);
        let (subscribe_requests, subscriptions) = mpsc::unbounded_channel();
        let requests = WriterRequests { commands: commands_receiver, subscriptions };
        let disconnected = Arc::new(AtomicBool::new(false));
        let (reconnects_sender, reconnects) = watch::channel(0);
        let writer =
            WriterTask::new(client.clone(), requests, disconnected.clone(), reconnects_sender, subscribers);
        tokio::spawn(writer.run());
        Ok(Self {
            client,
            commands,
            subscribe_requests,
            disconnected,
            reconnects,
            fence: Arc::default(),
            subject_scheme,
            replicas,
        })
    }

    pub(crate) fn publish(&self, subject: &Subject, headers: Headers, payload: Bytes) {
        let headers = self.subject_scheme.has_headers(subject).then_some(headers);
        let survives_disconnect = subject.survives_disconnect();
        if !survives_disconnect && self.is_disconnected() {
            return DropReason::Stale.count();
        }
        let Some(subject) = self.subject_scheme.format(subject) else { return };
        let publication =
            Publication { subject, survives_disconnect, headers, payload, queued_at: Instant::now() };
        if self.commands.try_send(WriterCommand::Publish(publication)).is_err() {
            DropReason::Full.count();
        }
    }

    pub(crate) fn subscribe(
        &self,
        name: &'static str,
        patterns: &[&str],
        capacity: usize,
    ) -> mpsc::Receiver<Envelope> {
        let (queue, receiver) = SubscriberQueue::new(name, capacity, self.fence.clone());
        let patterns = patterns.iter().filter_map(|pattern| self.subject_scheme.pattern(pattern));
        let patterns = patterns.map(str::to_owned).collect();
        // If the connection is closed for good, the subscription ends too.
        let _ = self.subscribe_requests.send(SubscribeRequest {
            patterns,
            subject_scheme: self.subject_scheme,
            queue,
        });
        receiver
    }

    pub(crate) fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::Relaxed)
    }

    pub(crate) fn campaign(&self, lease_name: &'static str) -> Candidate {
        lease::campaign(&self.client, lease_name, self.fence.clone(), self.replicas)
    }

    pub(crate) fn subject_scheme(&self) -> SubjectScheme {
        self.subject_scheme
    }

    pub(crate) fn fence(&self) -> &EpochFence {
        &self.fence
    }

    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.clone()
    }

    pub(crate) async fn wait_for_capacity(&self) {
        while self.commands.capacity() < OUTGOING_QUEUE / 2 && !self.commands.is_closed() {
            time::sleep(CAPACITY_POLL_INTERVAL).await;
        }
    }

    pub(crate) async fn flush(&self) {
        let (reply_sender, reply) = oneshot::channel();
        if self.commands.send(WriterCommand::Flush(reply_sender)).await.is_ok() {
            let _ = reply.await;
        }
    }
}
