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

use super::{ranges::Ranges, sessions::SessionLog, told::ToldLog};

/// Messages of the last second of a common stay may still be under way.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What one bot was told, said and heard.
#[derive(Debug, Default)]
pub(crate) struct BotLog {
    /// `None`: it has not been enrolled.
    pub(crate) address: Option<Address>,
    /// Whether it behaves like stock clients.
    pub(crate) stock: bool,
    pub(crate) sessions: SessionLog,
    pub(crate) told: ToldLog,
    pub(crate) stays: BTreeMap<RoomId, StayLog>,
    /// Its messages, numbered without gaps, in whatever rooms it was in.
    pub(crate) said: Vec<(u32, Instant)>,
    /// What it was given of each other bot, through whatever rooms.
    pub(crate) heard: HashMap<usize, Ranges>,
}

/// What one bot said and heard in one stay.
#[derive(Debug)]
pub(crate) struct StayLog {
    pub(crate) island: IslandId,
    /// Where the room is: while an island moves, it has two.
    pub(crate) url: String,
    pub(crate) alias: u32,
    pub(crate) entered: Instant,
    pub(crate) left: Option<Instant>,
    /// Which bot goes by an alias.
    pub(crate) members: HashMap<u32, usize>,
    sent: Vec<(u32, Instant)>,
    heard: HashMap<u32, HeardOf>,
}

/// What was heard of one alias. Messages are numbered, so the ends and the gaps say it all.
#[derive(Debug, Clone, Copy)]
struct HeardOf {
    first: u32,
    last: u32,
    missing: u64,
    disordered: u64,
}

impl StayLog {
    pub(crate) fn new(island: IslandId, url: String, alias: u32, entered: Instant) -> Self {
        let (members, sent, heard) = Default::default();
        Self { island, url, alias, entered, left: None, members, sent, heard }
    }

    pub(crate) fn sent(&mut self, index: u32, at: Instant) {
        self.sent.push((index, at));
    }

    pub(crate) fn heard(&mut self, alias: u32, index: u32) {
        match self.heard.entry(alias) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(HeardOf { first: index, last: index, missing: 0, disordered: 0 });
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
    fn compare(&self, sender: &Self, now: Instant, verdict: &mut Verdict) {
        let from = self.entered.max(sender.entered);
        let left = |stay: &Self| stay.left.unwrap_or(now);
        let Some(until) = left(self).min(left(sender)).checked_sub(UNDER_WAY) else { return };
        let begin = sender.sent.partition_point(|&(_, at)| at < from);
        let end = sender.sent.partition_point(|&(_, at)| at <= until);
        let heard = self.heard.get(&sender.alias);
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
pub(crate) struct Verdict {
    /// Messages that had to arrive, counted once for each who had to hear them.
    pub(crate) expected: u64,
    /// Those that did not.
    pub(crate) lost: u64,
    /// Those that came twice or after a later one.
    pub(crate) disordered: u64,
}

/// Judges all stays up to now.
pub(crate) fn judge<'a>(logs: impl IntoIterator<Item = &'a BotLog>, now: Instant) -> Verdict {
    let mut rooms: HashMap<&str, Vec<&StayLog>> = HashMap::new();
    for stay in logs.into_iter().flat_map(|log| log.stays.values()) {
        rooms.entry(&stay.url).or_default().push(stay);
    }
    let mut verdict = Verdict::default();
    for stays in rooms.values() {
        for (one, hearer) in stays.iter().enumerate() {
            for (other, sender) in stays.iter().enumerate() {
                // A later stay of the same bot is another alias, and heard like anybody.
                if one != other {
                    hearer.compare(sender, now, &mut verdict);
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
    fn pair(heard: &[u32]) -> Verdict {
        let start = Instant::now();
        let stay = |alias| StayLog::new("I1".parse().unwrap(), "ws://1".to_owned(), alias, start);
        let (mut sender, mut hearer) = (stay(1), stay(2));
        for index in 0..10 {
            sender.sent(index, start + SECOND * index);
        }
        heard.iter().for_each(|&index| hearer.heard(1, index));
        let logs = [sender, hearer]
            .map(|stay| BotLog { stays: BTreeMap::from([(RoomId(0), stay)]), ..BotLog::default() });
        judge(&logs, start + SECOND * 10)
    }

    #[test]
    fn all_that_arrives_once_and_in_order_is_well() {
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(pair(&all), Verdict { expected: 10, lost: 0, disordered: 0 });
    }

    #[test]
    fn what_is_missing_at_the_beginning_in_the_middle_and_at_the_end_is_lost() {
        assert_eq!(pair(&[]).lost, 10);
        assert_eq!(pair(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).lost, 1);
        assert_eq!(pair(&[0, 1, 2, 5, 6, 7, 8, 9]).lost, 2);
        assert_eq!(pair(&[0, 1, 2, 3, 4, 5, 6]).lost, 3);
    }

    #[test]
    fn what_comes_twice_or_late_is_told() {
        assert_eq!(pair(&[0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]).disordered, 1);
        let late = pair(&[0, 1, 3, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!((late.lost, late.disordered), (1, 1));
    }

    #[test]
    fn only_the_common_stay_counts_and_not_its_last_second() {
        let start = Instant::now();
        let mut sender = StayLog::new("I1".parse().unwrap(), "ws://1".to_owned(), 1, start);
        for index in 0..10 {
            sender.sent(index, start + SECOND * index);
        }
        let mut hearer = StayLog::new("I1".parse().unwrap(), "ws://1".to_owned(), 2, start + SECOND * 3);
        hearer.left = Some(start + SECOND * 7);
        [3, 4, 5, 6].into_iter().for_each(|index| hearer.heard(1, index));
        let elsewhere = StayLog::new("I1".parse().unwrap(), "ws://2".to_owned(), 3, start);
        let logs = [sender, hearer, elsewhere]
            .map(|stay| BotLog { stays: BTreeMap::from([(RoomId(0), stay)]), ..BotLog::default() });
        let verdict = judge(&logs, start + SECOND * 10);
        assert_eq!(verdict, Verdict { expected: 4, lost: 0, disordered: 0 });
    }
}
