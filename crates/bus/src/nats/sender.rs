//! Writes messages to the connection, in parts where they exceed the payload limit of the server.

use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, PublishErrorKind, connection::State};
use bytes::Bytes;
use tokio::time;

use super::{
    publication::{DropReason, Publication},
    reassembly,
    sequence::{Part, SequenceId},
    timing::CHECK_INTERVAL,
    wire,
};
use crate::envelope::Headers;

/// The shortest time between two log messages about a message that is too large.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Numbers the messages of this connection and passes them to the client library.
pub(super) struct MessageSender {
    client: Client,
    /// The sequence id of the last message of this connection.
    sequence_id: SequenceId,
    last_warned: Option<Instant>,
}

/// The result of passing a message to the client library.
pub(super) enum SendOutcome {
    /// The client library accepted it.
    Sent,
    /// The client library refused it.
    Rejected(DropReason),
    /// The connection was lost before the client library accepted it.
    Disconnected,
}

/// The connection is closed for good.
#[derive(Debug)]
pub(super) struct ConnectionClosed;

impl MessageSender {
    pub(super) fn new(client: Client) -> Self {
        let sequence_id = SequenceId { publisher: rand::random(), number: 0 };
        Self { client, sequence_id, last_warned: None }
    }

    /// Sends a message, in parts if it exceeds the server's payload limit.
    pub(super) async fn send(&mut self, publication: &Publication) -> Result<SendOutcome, ConnectionClosed> {
        let Publication { subject, headers, payload, .. } = publication;
        let Some(headers) = headers else { return self.send_to_client(subject, None, payload.clone()).await };
        let max_payload = self.client.max_payload();
        let map = wire::encode(headers, self.next_sequence_id(), None);
        if wire::encoded_size(&map) + payload.len() <= max_payload {
            self.send_to_client(subject, Some(map), payload.clone()).await
        } else if let Some(parts) = reassembly::split(payload, wire::part_capacity(&map, max_payload)) {
            self.send_parts(subject, headers, parts).await
        } else {
            Ok(SendOutcome::Rejected(DropReason::TooLarge))
        }
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

    fn next_sequence_id(&mut self) -> SequenceId {
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

    /// Logs a message that is too large, at most once in [`WARN_INTERVAL`].
    pub(super) fn warn_too_large(&mut self, Publication { subject, payload, .. }: &Publication) {
        if self.last_warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            let (bytes, max_payload) = (payload.len(), self.client.max_payload());
            tracing::warn!(subject, bytes, max_payload, "message too large, dropped");
            self.last_warned = Some(Instant::now());
        }
    }
}
