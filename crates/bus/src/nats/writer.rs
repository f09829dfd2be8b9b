//! The writer task: takes messages from the publish queue and writes them to the connection.

use std::sync::{Arc, atomic::AtomicBool};

use async_nats::Client;
use protocol::subject::SubjectScheme;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{
    disconnect_buffer::DisconnectBuffer,
    link::Link,
    publication::{DropReason, Publication},
    reader::OrderedReader,
    sender::{ConnectionClosed, MessageSender, SendOutcome},
    subscribers::Subscribers,
    timing::{CHECK_INTERVAL, FLUSH_TIMEOUT},
};
use crate::subscriber_queue::SubscriberQueue;

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

/// The receiving ends of the requests to the writer task.
pub(super) struct WriterRequests {
    pub(super) commands: mpsc::Receiver<WriterCommand>,
    pub(super) subscriptions: mpsc::UnboundedReceiver<SubscribeRequest>,
}

/// The only task that publishes and subscribes on the connection.
pub(super) struct WriterTask {
    client: Client,
    requests: WriterRequests,
    link: Link,
    buffer: DisconnectBuffer,
    sender: MessageSender,
    subscribers: Subscribers,
    readers: JoinSet<()>,
}

impl WriterTask {
    pub(super) fn new(
        client: Client,
        requests: WriterRequests,
        disconnected: Arc<AtomicBool>,
        reconnects: watch::Sender<u64>,
        subscribers: Subscribers,
    ) -> Self {
        Self {
            link: Link::new(client.clone(), disconnected, reconnects),
            sender: MessageSender::new(client.clone()),
            client,
            requests,
            buffer: DisconnectBuffer::default(),
            subscribers,
            readers: JoinSet::new(),
        }
    }

    /// Runs until the last handle is dropped. All subscriptions end with it.
    pub(super) async fn run(mut self) {
        let mut checks = time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                Some(request) = self.requests.subscriptions.recv() => self.subscribe(request).await,
                _ = checks.tick() => self.check_connection().await,
                command = self.requests.commands.recv() => match command {
                    Some(command) => self.run_command(command).await,
                    None => return,
                },
            };
            if let Err(ConnectionClosed) = done {
                return self.link.on_closed();
            }
        }
    }

    async fn run_command(&mut self, command: WriterCommand) -> Result<(), ConnectionClosed> {
        // A subscriber that subscribed before this message was published must receive it.
        while let Ok(request) = self.requests.subscriptions.try_recv() {
            self.subscribe(request).await?;
        }
        self.check_connection().await?;
        match command {
            WriterCommand::Publish(publication) => self.publish(publication).await,
            WriterCommand::Flush(reply) => {
                if self.link.is_connected() {
                    let _ = time::timeout(FLUSH_TIMEOUT, self.client.flush()).await;
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
            self.subscribers.register(&queue);
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

    /// Checks the connection. After a reconnect, sends the messages that waited for it.
    async fn check_connection(&mut self) -> Result<(), ConnectionClosed> {
        let Some(resumed) = self.link.check(self.buffer.len()) else { return Ok(()) };
        for publication in self.buffer.take() {
            if self.link.is_connected() {
                self.send(publication).await?;
            } else {
                self.buffer.add(publication);
            }
        }
        if self.link.is_connected() {
            self.link.count_reconnect(resumed);
        }
        Ok(())
    }

    async fn publish(&mut self, publication: Publication) -> Result<(), ConnectionClosed> {
        if publication.is_stale() {
            DropReason::Stale.count();
        } else if self.link.is_connected() {
            return self.send(publication).await;
        } else {
            self.buffer.add(publication);
        }
        Ok(())
    }

    /// Sends a message. If the connection is lost meanwhile, the message is buffered or dropped as a whole.
    async fn send(&mut self, publication: Publication) -> Result<(), ConnectionClosed> {
        match self.sender.send(&publication).await? {
            SendOutcome::Sent => {}
            SendOutcome::Rejected(reason) => {
                reason.count();
                if let DropReason::TooLarge = reason {
                    self.sender.warn_too_large(&publication);
                }
            }
            SendOutcome::Disconnected => {
                self.link.on_disconnect();
                self.buffer.add(publication);
            }
        }
        Ok(())
    }
}
