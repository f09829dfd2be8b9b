//! From the channels of a connection to the queue of one subscriber, in order.

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
    reassembly::{Part, Reassembler},
    wire::{self, DecodedHeaders, MalformedHeader, SequenceId},
};
use crate::{Envelope, subscriber_queue::SubscriberQueue};

/// What one subscriber asked for.
///
/// A server sends the messages of one publisher in their order over all subscriptions of a
/// connection; the client library then puts those of each pattern into a channel of its own, so
/// that the order between patterns is lost. It is restored here from the numbers that publishers
/// give their messages, without waiting for anything: all channels are emptied, then emptied again.
/// What came before a message of the first round was in its channel before that message was found,
/// so that it is in the first round or in the second. So after the second, all of the first can go
/// out, sorted, with what precedes it in the second; the rest of the second is the next first.
///
/// Messages of foreign publishers, which have no numbers, are in order within each pattern.
pub(super) struct OrderedReader {
    patterns: Vec<String>,
    subject_scheme: SubjectScheme,
    /// One for each pattern.
    channels: Vec<Subscriber>,
    queue: Arc<SubscriberQueue>,
}

/// A message as it came over the channel of one pattern.
type Received = (usize, Message);

/// A message that was read, which may be a part of one.
type DecodedPart = (Option<Part>, Envelope);

/// Messages, each with its place among those of its publisher.
type Sequenced<T> = Vec<(Option<SequenceId>, T)>;

impl OrderedReader {
    pub(super) fn new(
        patterns: Vec<String>,
        layout: SubjectScheme,
        channels: Vec<Subscriber>,
        inbox: Arc<SubscriberQueue>,
    ) -> Self {
        Self { patterns, subject_scheme: layout, channels, queue: inbox }
    }

    /// Passes messages on until the subscriber has gone, or the connection for good.
    pub(super) async fn run(self) {
        // A channel must not claim to be empty because this task has done enough for its turn.
        task::coop::unconstrained(self.deliver()).await;
    }

    async fn deliver(mut self) {
        let inbox = self.queue.clone();
        let (mut older, mut found): (Sequenced<DecodedPart>, Vec<Received>) = Default::default();
        let mut assembly = Reassembler::new(inbox.clone());
        loop {
            if older.is_empty() {
                let arrival = poll_fn(|cx| {
                    let open = self.drain_channels(cx, &mut found);
                    if open && found.is_empty() { Poll::Pending } else { Poll::Ready(open) }
                });
                tokio::select! {
                    () = inbox.closed() => return,
                    open = arrival => if !open { return },
                    () = assembly.wait_for_overdue_part() => {}
                }
                older.extend(found.drain(..).filter_map(|found| self.decode(found)));
            }
            let open = poll_fn(|cx| Poll::Ready(self.drain_channels(cx, &mut found))).await;
            let newer = found.drain(..).filter_map(|found| self.decode(found)).collect();
            let (due, rest) = merge_batches(older, newer);
            for (place, (part, envelope)) in due {
                if let Some(whole) = assembly.add(place, part, envelope) {
                    inbox.offer(whole);
                }
            }
            assembly.expire();
            if !open || inbox.is_closed() {
                return;
            }
            older = rest;
            // However much comes, others have their turn.
            task::yield_now().await;
        }
    }

    /// Takes everything that is in the channels, and does nothing with it: that has to be faster
    /// than it comes. `false` when there will never be more.
    fn drain_channels(&mut self, cx: &mut Context<'_>, found: &mut Vec<Received>) -> bool {
        self.channels.iter_mut().enumerate().all(|(index, channel)| {
            loop {
                match channel.poll_next_unpin(cx) {
                    Poll::Ready(Some(message)) => found.push((index, message)),
                    Poll::Ready(None) => return false,
                    Poll::Pending => return true,
                }
            }
        })
    }

    /// What is passed on of a message, if it is.
    fn decode(&self, (index, message): Received) -> Option<(Option<SequenceId>, DecodedPart)> {
        // The server sends it once for each pattern.
        let others = &self.patterns[..index];
        if others.iter().any(|pattern| subject::matches(pattern, &message.subject)) {
            return None;
        }
        let subject: Arc<str> = message.subject.as_str().into();
        match wire::decode(message.headers.as_ref()) {
            Ok(DecodedHeaders { headers, sequence_id: place, part }) => {
                let (layout, payload) = (self.subject_scheme, message.payload);
                let envelope = Envelope { subject, subject_scheme: layout, headers, payload, missed: 0 };
                Some((place, (part, envelope)))
            }
            Err(MalformedHeader(header)) => {
                self.queue.count_malformed(&subject, header);
                None
            }
        }
    }
}

/// All of `older`, with what precedes some of it in `newer`, those of one publisher in order; and
/// the rest of `newer`.
fn merge_batches<T>(older: Sequenced<T>, newer: Sequenced<T>) -> (Sequenced<T>, Sequenced<T>) {
    let mut last = HashMap::new();
    for SequenceId { publisher, number } in older.iter().filter_map(|(place, _)| *place) {
        last.entry(publisher).and_modify(|last: &mut u64| *last = number.max(*last)).or_insert(number);
    }
    let precedes = |place: SequenceId| last.get(&place.publisher).is_some_and(|&last| place.number < last);
    let (mut due, rest): (Vec<_>, Vec<_>) =
        newer.into_iter().partition(|(place, _)| place.is_some_and(precedes));
    due.extend(older);
    (sort_by_sequence(due), rest)
}

/// The same with those of each publisher in order, in the places where that one's were found. All
/// else stays where it was found: who has no number and answers somebody is heard after it.
fn sort_by_sequence<T>(found: Sequenced<T>) -> Sequenced<T> {
    let numbered = || found.iter().enumerate().filter_map(|(index, (place, _))| Some(((*place)?, index)));
    let mut messages: Vec<_> = numbered().collect();
    let mut places: Vec<_> = numbered().map(|(place, index)| (place.publisher, index)).collect();
    messages.sort_unstable();
    places.sort_unstable();
    let mut targets: Vec<usize> = (0..found.len()).collect();
    for (&(_, from), &(_, to)) in messages.iter().zip(&places) {
        targets[from] = to;
    }
    let mut found: Vec<_> = targets.into_iter().zip(found).collect();
    found.sort_unstable_by_key(|(target, _)| *target);
    found.into_iter().map(|(_, message)| message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_emits_predecessors_and_keeps_the_rest() {
        let placed = |places: &[(u64, u64)]| -> Sequenced<()> {
            places.iter().map(|&(publisher, number)| (Some(SequenceId { publisher, number }), ())).collect()
        };
        let (due, rest) =
            merge_batches(placed(&[(1, 4), (2, 9), (1, 2)]), placed(&[(1, 3), (1, 5), (3, 1), (2, 10)]));
        assert_eq!(due, placed(&[(1, 2), (1, 3), (2, 9), (1, 4)]));
        assert_eq!(rest, placed(&[(1, 5), (3, 1), (2, 10)]));
    }

    #[test]
    fn unnumbered_messages_keep_their_position() {
        let place = |number| Some(SequenceId { publisher: 1, number });
        let older = vec![(None, "a"), (place(2), "d"), (None, "c"), (place(1), "b"), (None, "e")];
        let (due, rest) = merge_batches(older, vec![(None, "f")]);
        assert_eq!(due, [(None, "a"), (place(1), "b"), (None, "c"), (place(2), "d"), (None, "e")]);
        assert_eq!(rest, [(None, "f")]);
        let (due, _) =
            merge_batches(vec![(place(4), "question"), (None, "answer")], vec![(place(3), "before")]);
        assert_eq!(due, [(place(3), "before"), (place(4), "question"), (None, "answer")]);
    }
}
