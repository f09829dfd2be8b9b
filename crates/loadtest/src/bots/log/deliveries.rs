//! The messages that bots sent and received in rooms, and losses.
//!
//! For each pair that were members of one room from t0 to t1, each message sent in [t0, t1 - 1 s] must
//! arrive exactly once and in order, except lossy messages in rooms that may lose them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use protocol::IslandId;
use serde::Serialize;
use tokio::time::Instant;

use super::ranges::Ranges;
use crate::bots::numbering::{Delivery, PerDelivery};

/// Messages of the last second of a common membership may still be in flight.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// The log of one membership of a bot in a room.
#[derive(Debug)]
pub(crate) struct RoomLog {
    /// The bot that is the member.
    bot: usize,
    pub(crate) island: IslandId,
    /// The URL of the room: while an island moves, the bot has two rooms of one island.
    pub(crate) url: String,
    /// The transport of the room, such as `ws-room`.
    pub(crate) transport: &'static str,
    pub(crate) entered: Instant,
    pub(crate) left: Option<Instant>,
    /// The number of links, in a mesh.
    pub(crate) links: usize,
    /// The bot of each alias.
    pub(crate) members: HashMap<u32, usize>,
    sent: PerDelivery<Vec<(u32, Instant)>>,
    received: HashMap<(usize, Delivery), ReceivedFrom>,
}

/// The messages of one kind that were received of one bot.
#[derive(Debug, Clone, Default)]
struct ReceivedFrom {
    numbers: Ranges,
    last: u32,
    disordered: u64,
}

impl RoomLog {
    pub(crate) fn new(
        bot: usize,
        island: IslandId,
        url: String,
        transport: &'static str,
        entered: Instant,
    ) -> Self {
        let (members, sent, received) = Default::default();
        Self { bot, island, url, transport, entered, left: None, links: 0, members, sent, received }
    }

    pub(crate) fn record_send(&mut self, (delivery, index): (Delivery, u32), at: Instant) {
        self.sent[delivery].push((index, at));
    }

    /// Records a message of a bot.
    pub(crate) fn record_receipt(&mut self, sender: usize, (delivery, index): (Delivery, u32)) {
        let received = self.received.entry((sender, delivery)).or_default();
        let is_first = received.numbers.is_empty();
        let is_new = received.numbers.insert(index);
        received.disordered += u64::from(!is_new || !is_first && index < received.last);
        received.last = received.last.max(index);
    }

    /// Adds the messages of this kind of a common membership that did not arrive as they should have.
    fn count_losses(&self, sender: &Self, now: Instant, delivery: Delivery, counts: &mut DeliveryCounts) {
        let from = self.entered.max(sender.entered);
        let left = |room_log: &Self| room_log.left.unwrap_or(now);
        let Some(until) = left(self).min(left(sender)).checked_sub(IN_FLIGHT) else { return };
        let sent = &sender.sent[delivery];
        let begin = sent.partition_point(|&(_, at)| at < from);
        let end = sent.partition_point(|&(_, at)| at <= until);
        let due = sent.get(begin..end).unwrap_or_default();
        let (Some(first), Some(last)) = (due.first(), due.last()) else { return };
        let received = self.received.get(&(sender.bot, delivery));
        let arrived = received.map_or(0, |received| received.numbers.count_within(first.0, last.0));
        counts.expected += due.len() as u64;
        // A message that the sender did not send in this room cannot arrive through it.
        counts.lost += (due.len() as u64).saturating_sub(arrived);
    }
}

/// Counts of expected, lost and disordered messages. The field names are JSON keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DeliveryCounts {
    /// Messages that had to arrive, counted once for each receiver.
    pub(crate) expected: u64,
    /// Expected messages that did not arrive.
    pub(crate) lost: u64,
    /// Messages that arrived twice, or after a later one.
    pub(crate) disordered: u64,
}

/// The counts of a run, by the transport of the rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Deliveries(pub(crate) BTreeMap<&'static str, PerDelivery<DeliveryCounts>>);

impl Deliveries {
    /// The messages that had to arrive: the reliable ones, and the lossy ones in WebSocket rooms, which drop them
    /// only above bounds that bots do not reach.
    pub(crate) fn required(&self) -> DeliveryCounts {
        let mut all = DeliveryCounts::default();
        for (&transport, counts) in &self.0 {
            let lossy = (!loses_messages(transport)).then_some(counts.lossy);
            for counts in [counts.reliable].into_iter().chain(lossy) {
                all.expected += counts.expected;
                all.lost += counts.lost;
                all.disordered += counts.disordered;
            }
        }
        all
    }
}

/// Whether rooms of a transport lose or reorder lossy messages in normal operation.
pub(crate) fn loses_messages(transport: &str) -> bool {
    transport != "ws-room"
}

/// Counts over all memberships up to now.
pub(crate) fn count_deliveries<'a>(
    room_logs: impl IntoIterator<Item = &'a RoomLog>,
    now: Instant,
) -> Deliveries {
    let mut rooms: HashMap<&str, Vec<&RoomLog>> = HashMap::new();
    for room_log in room_logs {
        rooms.entry(&room_log.url).or_default().push(room_log);
    }
    let mut deliveries = Deliveries::default();
    for memberships in rooms.values() {
        for receiver in memberships {
            let counts = deliveries.0.entry(receiver.transport).or_default();
            for ((_, delivery), received) in &receiver.received {
                counts[*delivery].disordered += received.disordered;
            }
        }
        for receiver in memberships {
            for sender in memberships {
                // A bot may be a member several times, one after the other.
                if sender.bot != receiver.bot {
                    let counts = deliveries.0.entry(receiver.transport).or_default();
                    for delivery in Delivery::ALL {
                        receiver.count_losses(sender, now, delivery, &mut counts[delivery]);
                    }
                }
            }
        }
    }
    deliveries
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two members of a room for ten seconds; the first sends a message every second.
    fn pair(received: &[u32]) -> DeliveryCounts {
        let start = Instant::now();
        let room_log = |bot| room_log("ws://1", "ws-room", bot, start);
        let (mut sender, mut receiver) = (room_log(1), room_log(2));
        for index in 0..10 {
            sender.record_send((Delivery::Lossy, index), start + SECOND * index);
        }
        received.iter().for_each(|&index| receiver.record_receipt(1, (Delivery::Lossy, index)));
        count_deliveries(&[sender, receiver], start + SECOND * 10).required()
    }

    fn room_log(url: &str, transport: &'static str, bot: usize, entered: Instant) -> RoomLog {
        RoomLog::new(bot, "I1".parse().unwrap(), url.to_owned(), transport, entered)
    }

    #[test]
    fn lossy_losses_count_apart_and_only_in_websocket_rooms_as_lost() {
        let start = Instant::now();
        let mut logs = Vec::new();
        for (url, transport) in [("ws://1", "ws-room"), ("ws://2#I1", "livekit")] {
            let (mut sender, mut receiver) =
                (room_log(url, transport, 1, start), room_log(url, transport, 2, start));
            for index in 0..5 {
                for delivery in Delivery::ALL {
                    sender.record_send((delivery, index), start + SECOND * index);
                }
                receiver.record_receipt(1, (Delivery::Reliable, index));
            }
            // The lossy messages overtake each other, and one is lost.
            [0, 2, 1, 4].into_iter().for_each(|index| receiver.record_receipt(1, (Delivery::Lossy, index)));
            logs.extend([sender, receiver]);
        }
        let deliveries = count_deliveries(&logs, start + SECOND * 10);
        let reliable = DeliveryCounts { expected: 5, lost: 0, disordered: 0 };
        let lossy = DeliveryCounts { expected: 5, lost: 1, disordered: 1 };
        let both = PerDelivery { reliable, lossy };
        assert_eq!(deliveries.0, BTreeMap::from([("livekit", both), ("ws-room", both)]));
        assert_eq!(deliveries.required(), DeliveryCounts { expected: 15, lost: 1, disordered: 1 });
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
        assert_eq!((late.lost, late.disordered), (0, 1));
    }

    #[test]
    fn only_common_membership_minus_last_second_counts() {
        let start = Instant::now();
        let mut sender = room_log("ws://1", "ws-room", 1, start);
        for index in 0..10 {
            sender.record_send((Delivery::Reliable, index), start + SECOND * index);
        }
        let mut receiver = room_log("ws://1", "ws-room", 2, start + SECOND * 3);
        receiver.left = Some(start + SECOND * 7);
        [3, 4, 5, 6].into_iter().for_each(|index| receiver.record_receipt(1, (Delivery::Reliable, index)));
        let other_room = room_log("ws://2", "ws-room", 3, start);
        let counts = count_deliveries(&[sender, receiver, other_room], start + SECOND * 10).required();
        assert_eq!(counts, DeliveryCounts { expected: 4, lost: 0, disordered: 0 });
    }
}
