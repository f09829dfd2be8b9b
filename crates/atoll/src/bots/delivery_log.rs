//! What was said and heard, and what of it was lost.
//!
//! For each pair that were members of one room from t0 to t1, every message sent in
//! [t0, t1 - 1 s] must arrive exactly once and in order.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use client::RoomId;
use protocol::{Address, IslandId};
use tokio::time::Instant;

use super::{assignment_log::AssignmentLog, ranges::Ranges, sessions::SessionLog};

/// Messages of the last second of a common stay may still be under way.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// What one bot was told, said and heard.
#[derive(Debug, Default)]
pub(crate) struct BotLog {
    /// `None`: it has not been enrolled.
    pub(crate) address: Option<Address>,
    /// Whether it behaves like stock clients.
    pub(crate) stock: bool,
    pub(crate) sessions: SessionLog,
    pub(crate) assignments: AssignmentLog,
    pub(crate) room_logs: BTreeMap<RoomId, RoomLog>,
    /// Its messages, numbered without gaps, in whatever rooms it was in.
    pub(crate) sent: Vec<(u32, Instant)>,
    /// What it was given of each other bot, through whatever rooms.
    pub(crate) received: HashMap<usize, Ranges>,
}

/// What one bot said and heard in one stay.
#[derive(Debug)]
pub(crate) struct RoomLog {
    pub(crate) island: IslandId,
    /// Where the room is: while an island moves, it has two.
    pub(crate) url: String,
    pub(crate) alias: u32,
    pub(crate) entered: Instant,
    pub(crate) left: Option<Instant>,
    /// Which bot goes by an alias.
    pub(crate) members: HashMap<u32, usize>,
    sent: Vec<(u32, Instant)>,
    received: HashMap<u32, ReceivedFrom>,
}

/// What was heard of one alias. Messages are numbered, so the ends and the gaps say it all.
#[derive(Debug, Clone, Copy)]
struct ReceivedFrom {
    first: u32,
    last: u32,
    missing: u64,
    disordered: u64,
}

impl RoomLog {
    pub(crate) fn new(island: IslandId, url: String, alias: u32, entered: Instant) -> Self {
        let (members, sent, heard) = Default::default();
        Self { island, url, alias, entered, left: None, members, sent, received: heard }
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
                let heard = entry.get_mut();
                if index > heard.last {
                    heard.missing += u64::from(index - heard.last - 1);
                    heard.last = index;
                } else {
                    heard.disordered += 1;
                }
            }
        }
    }

    /// What of a common stay did not arrive here as it should have.
    fn count_losses(&self, sender: &Self, now: Instant, verdict: &mut DeliveryCounts) {
        let from = self.entered.max(sender.entered);
        let left = |stay: &Self| stay.left.unwrap_or(now);
        let Some(until) = left(self).min(left(sender)).checked_sub(IN_FLIGHT) else { return };
        let begin = sender.sent.partition_point(|&(_, at)| at < from);
        let end = sender.sent.partition_point(|&(_, at)| at <= until);
        let heard = self.received.get(&sender.alias);
        if let Some(heard) = heard {
            verdict.lost += heard.missing;
            verdict.disordered += heard.disordered;
        }
        if begin >= end {
            return;
        }
        let due = &sender.sent[begin..end];
        verdict.expected += due.len() as u64;
        verdict.lost += match heard {
            None => due.len() as u64,
            Some(heard) => {
                // Indices rise, so that only the ends have to be found.
                let before = due.partition_point(|&(index, _)| index < heard.first);
                let until = due.partition_point(|&(index, _)| index <= heard.last);
                (before + due.len() - until.max(before)) as u64
            }
        };
    }
}

/// What became of all messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct DeliveryCounts {
    /// Messages that had to arrive, counted once for each who had to hear them.
    pub(crate) expected: u64,
    /// Those that did not.
    pub(crate) lost: u64,
    /// Those that came twice or after a later one.
    pub(crate) disordered: u64,
}

/// Judges all stays up to now.
pub(crate) fn count_deliveries<'a>(
    logs: impl IntoIterator<Item = &'a BotLog>,
    now: Instant,
) -> DeliveryCounts {
    let mut rooms: HashMap<&str, Vec<&RoomLog>> = HashMap::new();
    for stay in logs.into_iter().flat_map(|log| log.room_logs.values()) {
        rooms.entry(&stay.url).or_default().push(stay);
    }
    let mut verdict = DeliveryCounts::default();
    for stays in rooms.values() {
        for (one, hearer) in stays.iter().enumerate() {
            for (other, sender) in stays.iter().enumerate() {
                // A later stay of the same bot is another alias, and heard like anybody.
                if one != other {
                    hearer.count_losses(sender, now, &mut verdict);
                }
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two in a room for ten seconds, of whom the first says something every second.
    fn pair(heard: &[u32]) -> DeliveryCounts {
        let start = Instant::now();
        let stay = |alias| RoomLog::new("I1".parse().unwrap(), "ws://1".to_owned(), alias, start);
        let (mut sender, mut hearer) = (stay(1), stay(2));
        for index in 0..10 {
            sender.record_send(index, start + SECOND * index);
        }
        heard.iter().for_each(|&index| hearer.record_receipt(1, index));
        let logs = [sender, hearer]
            .map(|stay| BotLog { room_logs: BTreeMap::from([(RoomId(0), stay)]), ..BotLog::default() });
        count_deliveries(&logs, start + SECOND * 10)
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
        let mut hearer = RoomLog::new("I1".parse().unwrap(), "ws://1".to_owned(), 2, start + SECOND * 3);
        hearer.left = Some(start + SECOND * 7);
        [3, 4, 5, 6].into_iter().for_each(|index| hearer.record_receipt(1, index));
        let elsewhere = RoomLog::new("I1".parse().unwrap(), "ws://2".to_owned(), 3, start);
        let logs = [sender, hearer, elsewhere]
            .map(|stay| BotLog { room_logs: BTreeMap::from([(RoomId(0), stay)]), ..BotLog::default() });
        let verdict = count_deliveries(&logs, start + SECOND * 10);
        assert_eq!(verdict, DeliveryCounts { expected: 4, lost: 0, disordered: 0 });
    }
}
