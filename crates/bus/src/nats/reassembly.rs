//! Messages beyond what a server takes: published in parts, and put together again.

use std::{collections::HashMap, future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::{self, Instant};

use super::wire::SequenceId;
use crate::{Envelope, subscriber_queue::SubscriberQueue};

/// The largest message that goes in parts, and what all that are incomplete may hold together, of
/// one subscriber.
pub(super) const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// So many parts one message may have.
pub(super) const MAX_PARTS: u32 = 16_384;
/// What a part counts for at least: it takes some memory, whatever it says.
const MIN_PART_BYTES: usize = 1_024;
/// So many publishers may have one that is incomplete.
const MAX_PARTIAL_MESSAGES: usize = 1_024;
/// How long the next part may take.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// Which part of a message it is: `<number>/<of>`, from 1 on. The parts of one message are one after
/// the other among the messages of their publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) total: u32,
}

/// A payload in parts of at most `room` bytes; `None` where even those cannot carry it.
pub(super) fn split(payload: &Bytes, max_part_bytes: usize) -> Option<impl Iterator<Item = (Part, Bytes)>> {
    let count = payload.len().div_ceil(max_part_bytes.max(1));
    if max_part_bytes == 0 || payload.len() > MAX_MESSAGE || count > MAX_PARTS as usize {
        return None;
    }
    let of = u32::try_from(count).ok()?;
    Some((0..of).zip((0..payload.len()).step_by(max_part_bytes)).map(move |(index, begin)| {
        let end = payload.len().min(begin + max_part_bytes);
        (Part { number: index + 1, total: of }, payload.slice(begin..end))
    }))
}

/// The messages of one subscriber of which parts are missing.
#[derive(Debug)]
pub(super) struct Reassembler {
    queue: Arc<SubscriberQueue>,
    /// By publisher: each has one at a time.
    partial_messages: HashMap<u64, PartialMessage>,
    /// Of all of them together.
    bytes: usize,
}

#[derive(Debug)]
struct PartialMessage {
    /// The number of its first part.
    first: u64,
    total: u32,
    /// `None` once it is known that it will never be whole.
    received: Option<ReceivedParts>,
    /// When the next part is due.
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
    pub(super) fn new(inbox: Arc<SubscriberQueue>) -> Self {
        Self { queue: inbox, partial_messages: HashMap::new(), bytes: 0 }
    }

    /// The next message of its publisher: what of it is passed on, which is itself, the whole whose
    /// last part it is, or nothing.
    pub(super) fn add(
        &mut self,
        place: Option<SequenceId>,
        part: Option<Part>,
        envelope: Envelope,
    ) -> Option<Envelope> {
        let Some(SequenceId { publisher, number }) = place else { return Some(envelope) };
        let first = part.map(|part| number.wrapping_sub(u64::from(part.number - 1)));
        if self.partial_messages.get(&publisher).is_some_and(|incomplete| Some(incomplete.first) != first) {
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
        let incomplete = self.partial_messages.entry(publisher).or_insert_with(|| {
            let empty = Envelope { payload: Bytes::new(), ..envelope.clone() };
            let kept = ReceivedParts { envelope: empty, payloads: Vec::new(), bytes: 0 };
            PartialMessage { first, total: part.total, received: Some(kept), due: Instant::now() }
        });
        incomplete.due = Instant::now() + PART_TIMEOUT;
        let of = incomplete.total;
        if let Some(kept) = &mut incomplete.received {
            let bytes = envelope.payload.len().max(MIN_PART_BYTES);
            let next = kept.payloads.len() + 1 == part.number as usize
                && part.total == of
                && envelope.subject == kept.envelope.subject;
            if next && self.bytes + bytes <= MAX_MESSAGE {
                kept.payloads.push(envelope.payload);
                kept.bytes += bytes;
                self.bytes += bytes;
            } else {
                self.discard(publisher);
            }
        }
        if part.number < of {
            return None;
        }
        let ReceivedParts { envelope, payloads, bytes } =
            self.partial_messages.remove(&publisher)?.received?;
        self.bytes -= bytes;
        let mut payload = BytesMut::with_capacity(bytes);
        payloads.into_iter().for_each(|part| payload.extend_from_slice(&part));
        Some(Envelope { payload: payload.freeze(), ..envelope })
    }

    /// Drops what this publisher's message has so far; what else comes of it is passed over.
    fn discard(&mut self, publisher: u64) {
        if let Some(kept) = self.partial_messages.get_mut(&publisher).and_then(|lost| lost.received.take()) {
            self.bytes -= kept.bytes;
            self.queue.count_incomplete(&kept.envelope.subject);
        }
    }

    /// Waits until a part is overdue.
    pub(super) async fn wait_for_overdue_part(&self) {
        match self.partial_messages.values().map(|incomplete| incomplete.due).min() {
            Some(due) => time::sleep_until(due).await,
            None => future::pending().await,
        }
    }

    /// Drops messages of which a part is overdue.
    pub(super) fn expire(&mut self) {
        if self.partial_messages.is_empty() {
            return;
        }
        let now = Instant::now();
        let overdue = self.partial_messages.iter().filter(|(_, incomplete)| incomplete.due <= now);
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
    use crate::Headers;

    /// An assembly, and the messages in front of which something was missed.
    struct TestReassembler {
        reassembler: Reassembler,
        queue: Arc<SubscriberQueue>,
        delivered: tokio::sync::mpsc::Receiver<Envelope>,
    }

    impl TestReassembler {
        fn new() -> Self {
            let (inbox, heard) = SubscriberQueue::new("parts", 100, Arc::default());
            let inbox = Arc::new(inbox);
            Self { reassembler: Reassembler::new(inbox.clone()), queue: inbox, delivered: heard }
        }

        /// A message `payload` with this number of this publisher, as this part. What is heard, with
        /// how many were missed before.
        fn add(
            &mut self,
            (publisher, number): (u64, u64),
            part: Option<(u32, u32)>,
            payload: &str,
        ) -> Option<(String, u64)> {
            let payload = Bytes::copy_from_slice(payload.as_bytes());
            let (subject, layout, headers) = ("s".into(), SubjectScheme::CommsV3, Headers::default());
            let envelope = Envelope { subject, subject_scheme: layout, headers, payload, missed: 0 };
            let part = part.map(|(number, of)| Part { number, total: of });
            let whole = self.reassembler.add(Some(SequenceId { publisher, number }), part, envelope)?;
            self.queue.offer(whole);
            let heard = self.delivered.try_recv().unwrap();
            Some((String::from_utf8(heard.payload.to_vec()).unwrap(), heard.missed))
        }
    }

    fn delivered(payload: &str, missed: u64) -> Option<(String, u64)> {
        Some((payload.to_owned(), missed))
    }

    #[test]
    fn reassembled_parts_equal_the_payload() {
        let payload: Bytes = (0..=255).cycle().take(10_000).collect::<Vec<u8>>().into();
        for room in [1, 2, 999, 1_000, 1_001, 9_999, 10_000, 20_000] {
            let parts: Vec<_> = split(&payload, room).unwrap().collect();
            assert_eq!(parts.len(), 10_000_usize.div_ceil(room));
            assert!(parts.iter().all(|(_, bytes)| (1..=room).contains(&bytes.len())));
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
        let mut trial = TestReassembler::new();
        assert_eq!(trial.add((1, 5), Some((1, 3)), "a"), None);
        assert_eq!(trial.add((2, 1), None, "whole"), delivered("whole", 0));
        assert_eq!(trial.add((2, 2), Some((1, 2)), "x"), None);
        assert_eq!(trial.add((1, 6), Some((2, 3)), "b"), None);
        assert_eq!(trial.add((2, 3), Some((2, 2)), "y"), delivered("xy", 0));
        assert_eq!(trial.add((1, 7), Some((3, 3)), "c"), delivered("abc", 0));
        assert_eq!((trial.reassembler.partial_messages.len(), trial.reassembler.bytes), (0, 0));
    }

    #[test]
    fn incomplete_message_is_counted_as_missed_once() {
        // Its end, its middle, its beginning.
        let mut trial = TestReassembler::new();
        assert_eq!(trial.add((1, 1), Some((1, 4)), "a"), None);
        assert_eq!(trial.add((1, 2), Some((2, 4)), "b"), None);
        assert_eq!(trial.add((1, 5), Some((1, 4)), "a"), None);
        assert_eq!(trial.add((1, 6), Some((2, 4)), "b"), None);
        assert_eq!(trial.add((1, 8), Some((4, 4)), "d"), None);
        assert_eq!(trial.add((1, 10), Some((2, 4)), "b"), None);
        assert_eq!(trial.add((1, 11), Some((3, 4)), "c"), None);
        assert_eq!(trial.add((1, 12), Some((4, 4)), "d"), None);
        assert_eq!(trial.add((1, 13), Some((1, 2)), "a"), None);
        assert_eq!(trial.add((1, 15), None, "whole"), delivered("whole", 4));
        assert_eq!(trial.add((1, 16), None, "whole"), delivered("whole", 0));
        assert_eq!((trial.reassembler.partial_messages.len(), trial.reassembler.bytes), (0, 0));
    }

    #[test]
    fn buffered_parts_stay_within_the_bound() {
        let mut trial = TestReassembler::new();
        let half = "-".repeat(MAX_MESSAGE / 2);
        assert_eq!(trial.add((1, 1), Some((1, 3)), &half), None);
        assert_eq!(trial.add((2, 1), Some((1, 2)), &half), None);
        // The first one does not fit any more, and makes room for the second.
        assert_eq!(trial.add((1, 2), Some((2, 3)), "-"), None);
        assert_eq!(trial.reassembler.bytes, MAX_MESSAGE / 2);
        let (whole, missed) = trial.add((2, 2), Some((2, 2)), "-").unwrap();
        assert_eq!((whole.len(), missed), (MAX_MESSAGE / 2 + 1, 1));
        assert_eq!(trial.add((1, 3), Some((3, 3)), "-"), None);
        assert_eq!((trial.reassembler.partial_messages.len(), trial.reassembler.bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn partial_message_expires() {
        let mut trial = TestReassembler::new();
        assert_eq!(trial.add((1, 1), Some((1, 3)), "a"), None);
        time::sleep(PART_TIMEOUT / 2).await;
        trial.reassembler.expire();
        assert_eq!(trial.add((1, 2), Some((2, 3)), "b"), None);
        trial.reassembler.wait_for_overdue_part().await;
        trial.reassembler.expire();
        assert_eq!((trial.reassembler.partial_messages.len(), trial.reassembler.bytes), (0, 0));
        assert_eq!(trial.add((2, 1), None, "whole"), delivered("whole", 1));
    }
}
