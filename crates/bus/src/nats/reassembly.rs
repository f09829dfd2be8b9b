//! Messages above the server's payload limit: split into parts by the publisher and reassembled by each
//! subscriber.

use std::{collections::HashMap, future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::{self, Instant};

use super::sequence::{MAX_PARTS, Part, SequenceId};
use crate::{envelope::Envelope, subscriber_queue::SubscriberQueue};

/// The largest message that is sent in parts, and the bound of the bytes that one subscriber buffers for all
/// its partial messages, in bytes.
pub(super) const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// The least size that a part counts as: each part takes some memory, even if its payload is empty.
const MIN_PART_BYTES: usize = 1_024;
/// How many publishers may have a partial message at the same time.
const MAX_PARTIAL_MESSAGES: usize = 1_024;
/// The longest time between two parts.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// Splits a payload into parts of at most `max_part_bytes` bytes; `None` if it needs too many parts or
/// exceeds [`MAX_MESSAGE`].
pub(super) fn split(payload: &Bytes, max_part_bytes: usize) -> Option<impl Iterator<Item = (Part, Bytes)>> {
    let count = payload.len().div_ceil(max_part_bytes.max(1));
    if max_part_bytes == 0 || payload.len() > MAX_MESSAGE || count > MAX_PARTS as usize {
        return None;
    }
    let total = u32::try_from(count).ok()?;
    Some((0..total).zip((0..payload.len()).step_by(max_part_bytes)).map(move |(index, begin)| {
        let end = payload.len().min(begin + max_part_bytes);
        (Part { number: index + 1, total }, payload.slice(begin..end))
    }))
}

/// The partial messages of one subscriber.
#[derive(Debug)]
pub(super) struct Reassembler {
    queue: Arc<SubscriberQueue>,
    /// By publisher: each has at most one.
    partial_messages: HashMap<u64, PartialMessage>,
    /// The bytes of all of them together.
    bytes: usize,
}

#[derive(Debug)]
struct PartialMessage {
    /// The sequence number of the first part.
    first: u64,
    total: u32,
    /// `None` once a part was lost or refused: the message can no longer be completed.
    received: Option<ReceivedParts>,
    /// When the next part is overdue.
    due: Instant,
}

#[derive(Debug)]
struct ReceivedParts {
    /// Subject and headers of the first part.
    envelope: Envelope,
    payloads: Vec<Bytes>,
    bytes: usize,
}

impl Reassembler {
    pub(super) fn new(queue: Arc<SubscriberQueue>) -> Self {
        Self { queue, partial_messages: HashMap::new(), bytes: 0 }
    }

    /// Adds the next message of a publisher. Returns the message to deliver: the message itself if it is
    /// whole, the reassembled one if this was its last part, otherwise none.
    pub(super) fn add(
        &mut self,
        sequence_id: Option<SequenceId>,
        part: Option<Part>,
        envelope: Envelope,
    ) -> Option<Envelope> {
        let Some(SequenceId { publisher, number }) = sequence_id else { return Some(envelope) };
        let first = part.map(|part| number.wrapping_sub(u64::from(part.number - 1)));
        if self.partial_messages.get(&publisher).is_some_and(|partial| Some(partial.first) != first) {
            self.discard(publisher);
            self.partial_messages.remove(&publisher);
        }
        let (Some(part), Some(first)) = (part, first) else { return Some(envelope) };
        if self.partial_messages.len() >= MAX_PARTIAL_MESSAGES
            && !self.partial_messages.contains_key(&publisher)
        {
            self.queue.count_incomplete(&envelope.subject);
            return None;
        }
        let partial = self.partial_messages.entry(publisher).or_insert_with(|| {
            let empty = Envelope { payload: Bytes::new(), ..envelope.clone() };
            let received = ReceivedParts { envelope: empty, payloads: Vec::new(), bytes: 0 };
            PartialMessage { first, total: part.total, received: Some(received), due: Instant::now() }
        });
        partial.due = Instant::now() + PART_TIMEOUT;
        let total = partial.total;
        if let Some(received) = &mut partial.received {
            let bytes = envelope.payload.len().max(MIN_PART_BYTES);
            let next = received.payloads.len() + 1 == part.number as usize
                && part.total == total
                && envelope.subject == received.envelope.subject;
            if next && self.bytes + bytes <= MAX_MESSAGE {
                received.payloads.push(envelope.payload);
                received.bytes += bytes;
                self.bytes += bytes;
            } else {
                self.discard(publisher);
            }
        }
        if part.number < total {
            return None;
        }
        let ReceivedParts { envelope, payloads, bytes } =
            self.partial_messages.remove(&publisher)?.received?;
        self.bytes -= bytes;
        let mut payload = BytesMut::with_capacity(bytes);
        payloads.into_iter().for_each(|part| payload.extend_from_slice(&part));
        Some(Envelope { payload: payload.freeze(), ..envelope })
    }

    /// Drops the parts of this publisher's message; its later parts are ignored.
    fn discard(&mut self, publisher: u64) {
        if let Some(received) =
            self.partial_messages.get_mut(&publisher).and_then(|partial| partial.received.take())
        {
            self.bytes -= received.bytes;
            self.queue.count_incomplete(&received.envelope.subject);
        }
    }

    /// Waits until a part is overdue.
    pub(super) async fn wait_for_overdue_part(&self) {
        match self.partial_messages.values().map(|partial| partial.due).min() {
            Some(due) => time::sleep_until(due).await,
            None => future::pending().await,
        }
    }

    /// Drops messages with an overdue part.
    pub(super) fn expire(&mut self) {
        if self.partial_messages.is_empty() {
            return;
        }
        let now = Instant::now();
        let overdue = self.partial_messages.iter().filter(|(_, partial)| partial.due <= now);
        for publisher in overdue.map(|(&publisher, _)| publisher).collect::<Vec<_>>() {
            self.discard(publisher);
            self.partial_messages.remove(&publisher);
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::subject::SubjectScheme;

    use super::*;
    use crate::envelope::Headers;

    /// A reassembler with the queue that it reports to, and the messages delivered from that queue.
    struct TestReassembler {
        reassembler: Reassembler,
        queue: Arc<SubscriberQueue>,
        delivered: tokio::sync::mpsc::Receiver<Envelope>,
    }

    impl TestReassembler {
        fn new() -> Self {
            let (queue, delivered) = SubscriberQueue::new("parts", 100, Arc::default());
            let queue = Arc::new(queue);
            Self { reassembler: Reassembler::new(queue.clone()), queue, delivered }
        }

        /// Adds the message `payload` with this publisher and sequence number, as this part. Returns the
        /// delivered payload, and how many messages were missed before it.
        fn add(
            &mut self,
            (publisher, number): (u64, u64),
            part: Option<(u32, u32)>,
            payload: &str,
        ) -> Option<(String, u64)> {
            let payload = Bytes::copy_from_slice(payload.as_bytes());
            let (subject, subject_scheme, headers) = ("s".into(), SubjectScheme::CommsV3, Headers::default());
            let envelope = Envelope { subject, subject_scheme, headers, payload, missed: 0 };
            let part = part.map(|(number, total)| Part { number, total });
            let whole = self.reassembler.add(Some(SequenceId { publisher, number }), part, envelope)?;
            self.queue.offer(whole);
            let delivered = self.delivered.try_recv().unwrap();
            Some((String::from_utf8(delivered.payload.to_vec()).unwrap(), delivered.missed))
        }
    }

    fn delivered(payload: &str, missed: u64) -> Option<(String, u64)> {
        Some((payload.to_owned(), missed))
    }

    #[test]
    fn reassembled_parts_equal_the_payload() {
        let payload: Bytes = (0..=255).cycle().take(10_000).collect::<Vec<u8>>().into();
        for max_part_bytes in [1, 2, 999, 1_000, 1_001, 9_999, 10_000, 20_000] {
            let parts: Vec<_> = split(&payload, max_part_bytes).unwrap().collect();
            assert_eq!(parts.len(), 10_000_usize.div_ceil(max_part_bytes));
            assert!(parts.iter().all(|(_, bytes)| (1..=max_part_bytes).contains(&bytes.len())));
            let numbers: Vec<_> = parts.iter().map(|(part, _)| part.number as usize).collect();
            assert_eq!(numbers, (1..=parts.len()).collect::<Vec<_>>());
            assert_eq!(parts.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), payload);
        }
        assert!(split(&payload, 0).is_none());
        assert!(split(&Bytes::from(vec![0; MAX_PARTS as usize + 1]), 1).is_none());
        assert!(split(&Bytes::from(vec![0; MAX_MESSAGE + 1]), MAX_MESSAGE).is_none());
    }

    #[test]
    fn publishers_are_reassembled_independently() {
        let mut test = TestReassembler::new();
        assert_eq!(test.add((1, 5), Some((1, 3)), "a"), None);
        assert_eq!(test.add((2, 1), None, "whole"), delivered("whole", 0));
        assert_eq!(test.add((2, 2), Some((1, 2)), "x"), None);
        assert_eq!(test.add((1, 6), Some((2, 3)), "b"), None);
        assert_eq!(test.add((2, 3), Some((2, 2)), "y"), delivered("xy", 0));
        assert_eq!(test.add((1, 7), Some((3, 3)), "c"), delivered("abc", 0));
        assert_eq!((test.reassembler.partial_messages.len(), test.reassembler.bytes), (0, 0));
    }

    #[test]
    fn incomplete_message_is_counted_as_missed_once() {
        // The last part is missing, then a middle one, then the first.
        let mut test = TestReassembler::new();
        assert_eq!(test.add((1, 1), Some((1, 4)), "a"), None);
        assert_eq!(test.add((1, 2), Some((2, 4)), "b"), None);
        assert_eq!(test.add((1, 5), Some((1, 4)), "a"), None);
        assert_eq!(test.add((1, 6), Some((2, 4)), "b"), None);
        assert_eq!(test.add((1, 8), Some((4, 4)), "d"), None);
        assert_eq!(test.add((1, 10), Some((2, 4)), "b"), None);
        assert_eq!(test.add((1, 11), Some((3, 4)), "c"), None);
        assert_eq!(test.add((1, 12), Some((4, 4)), "d"), None);
        assert_eq!(test.add((1, 13), Some((1, 2)), "a"), None);
        assert_eq!(test.add((1, 15), None, "whole"), delivered("whole", 4));
        assert_eq!(test.add((1, 16), None, "whole"), delivered("whole", 0));
        assert_eq!((test.reassembler.partial_messages.len(), test.reassembler.bytes), (0, 0));
    }

    #[test]
    fn buffered_parts_stay_within_the_bound() {
        let mut test = TestReassembler::new();
        let half = "-".repeat(MAX_MESSAGE / 2);
        assert_eq!(test.add((1, 1), Some((1, 3)), &half), None);
        assert_eq!(test.add((2, 1), Some((1, 2)), &half), None);
        // The first message exceeds the bound; dropping it frees its bytes for the second.
        assert_eq!(test.add((1, 2), Some((2, 3)), "-"), None);
        assert_eq!(test.reassembler.bytes, MAX_MESSAGE / 2);
        let (whole, missed) = test.add((2, 2), Some((2, 2)), "-").unwrap();
        assert_eq!((whole.len(), missed), (MAX_MESSAGE / 2 + 1, 1));
        assert_eq!(test.add((1, 3), Some((3, 3)), "-"), None);
        assert_eq!((test.reassembler.partial_messages.len(), test.reassembler.bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn partial_message_expires() {
        let mut test = TestReassembler::new();
        assert_eq!(test.add((1, 1), Some((1, 3)), "a"), None);
        time::sleep(PART_TIMEOUT / 2).await;
        test.reassembler.expire();
        assert_eq!(test.add((1, 2), Some((2, 3)), "b"), None);
        test.reassembler.wait_for_overdue_part().await;
        test.reassembler.expire();
        assert_eq!((test.reassembler.partial_messages.len(), test.reassembler.bytes), (0, 0));
        assert_eq!(test.add((2, 1), None, "whole"), delivered("whole", 1));
    }
}
