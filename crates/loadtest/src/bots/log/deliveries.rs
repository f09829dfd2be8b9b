//! The messages that bots sent and received in rooms, and losses.
//!
//! For each pair that were members of one room from t0 to t1, each message sent in [t0, t1 - 1 s] must
//! arrive exactly once and in order.

use std::{collections::HashMap, time::Duration};

use protocol::IslandId;
use tokio::time::Instant;

/// Messages of the last second of a common membership may still be in flight.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// The log of one membership of a bot in a room.
#[derive(Debug)]
pub(crate) struct RoomLog {
    pub(crate) island: IslandId,
    /// The URL of the room: while an island moves, the bot has two rooms of one island.
    pub(crate) url: String,
    pub(crate) alias: u32,
    pub(crate) entered: Instant,
    pub(crate) left: Option<Instant>,
    /// The bot of each alias.
    pub(crate) members: HashMap<u32, usize>,
    sent: Vec<(u32, Instant)>,
    received: HashMap<u32, ReceivedFrom>,
}

/// The messages received of one alias. Messages are numbered, so the first, the last and the count of
/// gaps are enough.
#[derive(Debug, Clone, Copy)]
struct ReceivedFrom {
    first: u32,
    last: u32,
    missing: u64,
    disordered: u64,
}

impl RoomLog {
    pub(crate) fn new(island: IslandId, url: String, alias: u32, entered: Instant) -> Self {
        let (members, sent, received) = Default::default();
        Self { island, url, alias, entered, left: None, members, sent, received }
    }

    pub(crate) fn record_send(&mut self, index: u32, at: Instant) {
        self.sent.push((index, at));
    }

    pub(crate) fn record_receipt(&mut self, alias: u32, index: u32) {
        match self.received.entry(alias) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(ReceivedFrom { first: index, last: index, missing: 0, disordered: 0 });
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let received = entry.get_mut();
                if index > received.last {
                    received.missing += u64::from(index - received.last - 1);
                    received.last = index;
                } else {
                    received.disordered += 1;
                }
            }
        }
    }

    /// Adds the messages of a common membership that did not arrive as they should have.
    fn count_losses(&self, sender: &Self, now: Instant, counts: &mut DeliveryCounts) {
        let from = self.entered.max(sender.entered);
        let left = |room_log: &Self| room_log.left.unwrap_or(now);
        let Some(until) = left(self).min(left(sender)).checked_sub(IN_FLIGHT) else { return };
        let begin = sender.sent.partition_point(|&(_, at)| at < from);
        let end = sender.sent.partition_point(|&(_, at)| at <= until);
        let received = self.received.get(&sender.alias);
        if let Some(received) = received {
            counts.lost += received.missing;
            counts.disordered += received.disordered;
        }
        if begin >= end {
            return;
        }
        let due = &sender.sent[begin..end];
        counts.expected += due.len() as u64;
        counts.lost += match received {
            None => due.len() as u64,
            Some(received) => {
                // Indices increase, so a binary search for the ends is enough.
                let before = due.partition_point(|&(index, _)| index < received.first);
                let until = due.partition_point(|&(index, _)| index <= received.last);
                (before + due.len() - until.max(before)) as u64
            }
        };
    }
}

/// Counts of expected, lost and disordered messages. The field names are JSON keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct DeliveryCounts {
    /// Messages that had to arrive, counted once for each receiver.
    pub(crate) expected: u64,
    /// Expected messages that did not arrive.
    pub(crate) lost: u64,
    /// Messages that arrived twice, or after a later one.
    pub(crate) disordered: u64,
}

/// Counts over all memberships up to now.
pub(crate) fn count_deliveries<'a>(
    room_logs: impl IntoIterator<Item = &'a RoomLog>,
    now: Instant,
) -> DeliveryCounts {
    let mut rooms: HashMap<&str, Vec<&RoomLog>> = HashMap::new();
    for room_log in room_logs {
        rooms.entry(&room_log.url).or_default().push(room_log);
    }
    let mut counts = DeliveryCounts::default();
    for memberships in rooms.values() {
        for (one, receiver) in memberships.iter().enumerate() {
            for (other, sender) in memberships.iter().enumerate() {
                // A later membership of the same bot has another alias, and is a sender like any other.
                if one != other {
                    receiver.count_losses(sender, now, &mut counts);
                }
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two members of a room for ten seconds; the first sends a message every second.
    fn pair(received: &[u32]) -> DeliveryCounts {
        let start = Instant::now();
        let room_log = |alias| RoomLog::new("I1".parse().unwrap(), "ws://1".to_owned(), alias, start);
        let (mut sender, mut receiver) = (room_log(1), room_log(2));
        for index in 0..10 {
            sender.record_send(index, start + SECOND * index);
        }
        received.iter().for_each(|&index| receiver.record_receipt(1, index));
        count_deliveries(&[sender, receiver], start + SECOND * 10)
    }

    #[test]
    fn complete_ordered_delivery_counts_no_loss() {
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(pair(&all), DeliveryCounts { expected: 10, lost: 0, disordered: 0 });
    }

    #[test]
    fn gaps_at_start_middle_and_end_count_as_lost() {
        assert_eq!(pair(&[]).lost, 10);
        assert_eq!(pair(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).lost, 1);
        assert_eq!(pair(&[0, 1, 2, 5, 6, 7, 8, 9]).lost, 2);
        assert_eq!(pair(&[0, 1, 2, 3, 4, 5, 6]).lost, 3);
    }

    #[test]
    fn duplicate_or_late_message_counts_as_disordered() {
        assert_eq!(pair(&[0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]).disordered, 1);
        let late = pair(&[0, 1, 3, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!((late.lost, late.disordered), (1, 1));
    }

    #[test]
    fn only_common_membership_minus_last_second_counts() {
        let start = Instant::now();
        let mut sender = RoomLog::new("I1".parse().unwrap(), "ws://1".to_owned(), 1, start);
        for index in 0..10 {
            sender.record_send(index, start + SECOND * index);
        }
        let mut receiver = RoomLog::new("I1".parse().unwrap(), "ws://1".to_owned(), 2, start + SECOND * 3);
        receiver.left = Some(start + SECOND * 7);
        [3, 4, 5, 6].into_iter().for_each(|index| receiver.record_receipt(1, index));
        let other_room = RoomLog::new("I1".parse().unwrap(), "ws://2".to_owned(), 3, start);
        let counts = count_deliveries(&[sender, receiver, other_room], start + SECOND * 10);
        assert_eq!(counts, DeliveryCounts { expected: 4, lost: 0, disordered: 0 });
    }
}
