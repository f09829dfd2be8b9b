//! The reader task of one subscriber: merges the messages of its patterns and restores the order of each
//! publisher.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use protocol::subject::{self, SubjectScheme};
use tokio::task;

use super::{
    reassembly::Reassembler,
    sequence::{Part, SequenceId},
    wire::{self, DecodedHeaders, MalformedHeader},
};
use crate::{envelope::Envelope, subscriber_queue::SubscriberQueue};

/// The patterns of one subscriber, and the task that reads them in order.
///
/// The server sends the messages of one publisher in order over all subscriptions of a connection. The client
/// library then puts the messages of each pattern into a channel of their own, so that the order between
/// patterns is lost. The reader restores it from the sequence numbers that publishers assign, without waiting
/// for a missing number: it drains all channels into one batch, then drains them again into a second batch. A
/// message that precedes one of the first batch was in its channel before that one was found, so it is in the
/// first or the second batch. So after the second drain the first batch is complete: it is delivered in
/// order, together with its predecessors from the second batch. The rest of the second batch is the next
/// first batch.
///
/// Messages of foreign publishers have no numbers; they stay in order within each pattern.
pub(super) struct OrderedReader {
    patterns: Vec<String>,
    subject_scheme: SubjectScheme,
    /// One channel for each pattern.
    channels: Vec<Subscriber>,
    queue: Arc<SubscriberQueue>,
}

/// The index of the pattern, and a message from its channel.
type Received = (usize, Message);

/// A decoded message, which may be one part of a larger one.
type DecodedPart = (Option<Part>, Envelope);

/// Messages with their sequence ids; `None` for foreign publishers.
type Sequenced<T> = Vec<(Option<SequenceId>, T)>;

impl OrderedReader {
    pub(super) fn new(
        patterns: Vec<String>,
        subject_scheme: SubjectScheme,
        channels: Vec<Subscriber>,
        queue: Arc<SubscriberQueue>,
    ) -> Self {
        Self { patterns, subject_scheme, channels, queue }
    }

    /// Delivers messages until the subscriber is dropped or the connection is closed for good.
    pub(super) async fn run(self) {
        // Without `unconstrained`, a channel would return `Pending` although it is not empty, once this task
        // has used up its cooperative budget.
        task::coop::unconstrained(self.deliver()).await;
    }

    async fn deliver(mut self) {
        let queue = self.queue.clone();
        let (mut older, mut received): (Sequenced<DecodedPart>, Vec<Received>) = Default::default();
        let mut reassembler = Reassembler::new(queue.clone());
        loop {
            if older.is_empty() {
                let arrival = poll_fn(|cx| {
                    let open = self.drain_channels(cx, &mut received);
                    if open && received.is_empty() { Poll::Pending } else { Poll::Ready(open) }
                });
                tokio::select! {
                    () = queue.closed() => return,
                    open = arrival => if !open { return },
                    () = reassembler.wait_for_overdue_part() => {}
                }
                older.extend(received.drain(..).filter_map(|received| self.decode(received)));
            }
            let open = poll_fn(|cx| Poll::Ready(self.drain_channels(cx, &mut received))).await;
            let newer = received.drain(..).filter_map(|received| self.decode(received)).collect();
            let (due, rest) = merge_batches(older, newer);
            for (sequence_id, (part, envelope)) in due {
                if let Some(whole) = reassembler.add(sequence_id, part, envelope) {
                    queue.offer(whole);
                }
            }
            reassembler.expire();
            if !open || queue.is_closed() {
                return;
            }
            older = rest;
            // Yields under any load, so that other tasks run.
            task::yield_now().await;
        }
    }

    /// Takes all messages out of the channels. It does nothing else with them, because draining must be
    /// faster than messages arrive. `false` when a channel is closed: no more messages will come.
    fn drain_channels(&mut self, cx: &mut Context<'_>, received: &mut Vec<Received>) -> bool {
        self.channels.iter_mut().enumerate().all(|(index, channel)| {
            loop {
                match channel.poll_next_unpin(cx) {
                    Poll::Ready(Some(message)) => received.push((index, message)),
                    Poll::Ready(None) => return false,
                    Poll::Pending => return true,
                }
            }
        })
    }

    /// Decodes a message; `None` if it is malformed or a duplicate.
    fn decode(&self, (index, message): Received) -> Option<(Option<SequenceId>, DecodedPart)> {
        // The server sends a message once for each pattern that it matches: the first one counts.
        let others = &self.patterns[..index];
        if others.iter().any(|pattern| subject::matches(pattern, &message.subject)) {
            return None;
        }
        let subject: Arc<str> = message.subject.as_str().into();
        match wire::decode(message.headers.as_ref()) {
            Ok(DecodedHeaders { headers, sequence_id, part }) => {
                let (subject_scheme, payload) = (self.subject_scheme, message.payload);
                let envelope = Envelope { subject, subject_scheme, headers, payload, missed: 0 };
                Some((sequence_id, (part, envelope)))
            }
            Err(MalformedHeader(header)) => {
                self.queue.count_malformed(&subject, header);
                None
            }
        }
    }
}

/// Splits two batches: all of `older` with its predecessors from `newer`, in the order of each publisher; and
/// the rest of `newer`.
fn merge_batches<T>(older: Sequenced<T>, newer: Sequenced<T>) -> (Sequenced<T>, Sequenced<T>) {
    let mut last = HashMap::new();
    for SequenceId { publisher, number } in older.iter().filter_map(|(sequence_id, _)| *sequence_id) {
        last.entry(publisher).and_modify(|last: &mut u64| *last = number.max(*last)).or_insert(number);
    }
    let precedes = |sequence_id: SequenceId| {
        last.get(&sequence_id.publisher).is_some_and(|&last| sequence_id.number < last)
    };
    let (mut due, rest): (Vec<_>, Vec<_>) =
        newer.into_iter().partition(|(sequence_id, _)| sequence_id.is_some_and(precedes));
    due.extend(older);
    (sort_by_sequence(due), rest)
}

/// Sorts the messages of each publisher among the positions where its messages were found. Messages without a
/// number keep their position, so that a foreign publisher's reply stays behind the message that it answers.
fn sort_by_sequence<T>(received: Sequenced<T>) -> Sequenced<T> {
    let numbered =
        || received.iter().enumerate().filter_map(|(index, (sequence_id, _))| Some(((*sequence_id)?, index)));
    let mut messages: Vec<_> = numbered().collect();
    let mut slots: Vec<_> = numbered().map(|(sequence_id, index)| (sequence_id.publisher, index)).collect();
    messages.sort_unstable();
    slots.sort_unstable();
    let mut targets: Vec<usize> = (0..received.len()).collect();
    for (&(_, from), &(_, to)) in messages.iter().zip(&slots) {
        targets[from] = to;
    }
    let mut received: Vec<_> = targets.into_iter().zip(received).collect();
    received.sort_unstable_by_key(|(target, _)| *target);
    received.into_iter().map(|(_, message)| message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_emits_predecessors_and_keeps_the_rest() {
        let sequenced = |slots: &[(u64, u64)]| -> Sequenced<()> {
            slots.iter().map(|&(publisher, number)| (Some(SequenceId { publisher, number }), ())).collect()
        };
        let (due, rest) = merge_batches(
            sequenced(&[(1, 4), (2, 9), (1, 2)]),
            sequenced(&[(1, 3), (1, 5), (3, 1), (2, 10)]),
        );
        assert_eq!(due, sequenced(&[(1, 2), (1, 3), (2, 9), (1, 4)]));
        assert_eq!(rest, sequenced(&[(1, 5), (3, 1), (2, 10)]));
    }

    #[test]
    fn unnumbered_messages_keep_their_position() {
        let sequence_id = |number| Some(SequenceId { publisher: 1, number });
        let older = vec![(None, "a"), (sequence_id(2), "d"), (None, "c"), (sequence_id(1), "b"), (None, "e")];
        let (due, rest) = merge_batches(older, vec![(None, "f")]);
        assert_eq!(
            due,
            [(None, "a"), (sequence_id(1), "b"), (None, "c"), (sequence_id(2), "d"), (None, "e")]
        );
        assert_eq!(rest, [(None, "f")]);
        let (due, _) = merge_batches(
            vec![(sequence_id(4), "question"), (None, "answer")],
            vec![(sequence_id(3), "before")],
        );
        assert_eq!(due, [(sequence_id(3), "before"), (sequence_id(4), "question"), (None, "answer")]);
    }
}
