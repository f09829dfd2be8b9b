//! What those who stayed together lost of each other, whatever rooms they went through.
//!
//! A message is lost for a bot that heard it in no room, although from a second before it was sent
//! until a second after, it and the sender were told to be in one island without interruption, and
//! had been in a common room of it before. A move, by which an island only meets elsewhere, is no
//! interruption.

use std::{collections::HashMap, fmt, time::Duration};

use protocol::IslandId;
use tokio::time::Instant;

use super::{
    assignment_log::IslandMembership,
    delivery_log::{BotLog, RoomLog},
};

/// Around the time of sending.
const MARGIN: Duration = Duration::from_secs(1);

/// What was lost, by who lost it of whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct MoveLoss {
    /// Both make before they break: nothing may be lost.
    pub(crate) overlapping: LossCount,
    /// The hearer breaks first.
    pub(crate) to_stock: LossCount,
    /// The sender breaks first, and the hearer does not.
    pub(crate) from_stock: LossCount,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct LossCount {
    /// Messages that had to arrive, counted once for each who had to hear them.
    pub(crate) expected: u64,
    /// Those that did not.
    pub(crate) lost: u64,
}

impl fmt::Display for LossCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.lost, self.expected)
    }
}

/// A bot while it was in an island.
struct BotMembership<'a> {
    bot: usize,
    log: &'a BotLog,
    membership: IslandMembership<'a>,
    /// In the rooms of this island.
    stays: Vec<&'a RoomLog>,
}

/// Judges all bots, which know each other by their places in `logs`, up to now.
pub(crate) fn count_move_loss(logs: &[&BotLog], now: Instant) -> MoveLoss {
    let mut islands: HashMap<&IslandId, Vec<BotMembership<'_>>> = HashMap::new();
    for (bot, &log) in logs.iter().enumerate() {
        for membership in log.assignments.memberships(now) {
            let stays = log.room_logs.values().filter(|stay| stay.island == *membership.island).collect();
            islands.entry(membership.island).or_default().push(BotMembership { bot, log, membership, stays });
        }
    }
    let mut together = MoveLoss::default();
    for seats in islands.values() {
        for hearer in seats {
            for sender in seats.iter().filter(|sender| sender.bot != hearer.bot) {
                let tally = match (hearer.log.stock, sender.log.stock) {
                    (false, false) => &mut together.overlapping,
                    (true, _) => &mut together.to_stock,
                    (false, true) => &mut together.from_stock,
                };
                hearer.count_losses(sender, now, tally);
            }
        }
    }
    together
}

impl BotMembership<'_> {
    /// What of the time together did not arrive here.
    fn count_losses(&self, sender: &Self, now: Instant, tally: &mut LossCount) {
        let from = self.membership.from.max(sender.membership.from);
        let until = self.membership.until.min(sender.membership.until);
        let Some(met) = self.first_common_room(sender, from, until, now) else { return };
        let (since, said) = (met.max(from + MARGIN), &sender.log.sent);
        let begin = said.partition_point(|&(_, at)| at < since);
        let end = said.partition_point(|&(_, at)| at + MARGIN <= until);
        let Some(due @ [first, .., last]) = said.get(begin..end) else { return };
        let heard = self.log.received.get(&sender.bot).map_or(0, |heard| heard.count_within(first.0, last.0));
        tally.expected += due.len() as u64;
        // Messages are numbered without gaps.
        tally.lost += due.len() as u64 - heard;
    }

    /// When, in this time, both were in one room first.
    fn first_common_room(
        &self,
        other: &Self,
        from: Instant,
        until: Instant,
        now: Instant,
    ) -> Option<Instant> {
        let common = self.stays.iter().flat_map(|stay| {
            let same = other.stays.iter().filter(|there| there.url == stay.url);
            same.filter_map(|there| {
                let met = stay.entered.max(there.entered).max(from);
                let left = |stay: &RoomLog| stay.left.unwrap_or(now);
                (met < left(stay).min(left(there)).min(until)).then_some(met)
            })
        });
        common.min()
    }
}

#[cfg(test)]
mod tests {
    use client::RoomId;

    use super::*;

    /// Two bots, and what they were told; times are tenths of a second.
    struct Script {
        start: Instant,
        logs: [BotLog; 2],
    }

    const SENDER: usize = 0;
    const HEARER: usize = 1;

    impl Script {
        /// The sender says something every tenth of a second, for twenty seconds.
        fn new() -> Self {
            let (start, mut logs) = (Instant::now(), [BotLog::default(), BotLog::default()]);
            for index in 0..200 {
                logs[SENDER].sent.push((index, start + Duration::from_millis(100) * index));
            }
            Self { start, logs }
        }

        fn at(&self, tenths: u32) -> Instant {
            self.start + Duration::from_millis(100) * tenths
        }

        fn told(&mut self, bot: usize, tenths: u32, island: &str, connection: &str, from: Option<&str>) {
            let (at, connection) = (self.at(tenths), connection.parse().unwrap());
            self.logs[bot].assignments.assigned(at, island.parse().unwrap(), &connection, from);
        }

        fn both_told(&mut self, tenths: u32, island: &str, connection: &str, from: Option<&str>) {
            for bot in [SENDER, HEARER] {
                self.told(bot, tenths, island, connection, from);
            }
        }

        fn inside(&mut self, bot: usize, url: &str, from: u32, until: u32) {
            let mut stay = RoomLog::new("I1".parse().unwrap(), url.to_owned(), 1, self.at(from));
            stay.left = Some(self.at(until));
            let stays = &mut self.logs[bot].room_logs;
            stays.insert(RoomId(stays.len() as u64), stay);
        }

        fn hears(&mut self, indices: impl IntoIterator<Item = u32>) {
            let heard = self.logs[HEARER].received.entry(SENDER).or_default();
            for index in indices {
                heard.insert(index);
            }
        }

        fn judge(&self) -> MoveLoss {
            count_move_loss(&self.logs.each_ref(), self.at(200))
        }

        /// In I1 from the beginning; it moves from room a to room b after ten seconds.
        fn move_of_both() -> Self {
            let mut script = Self::new();
            script.both_told(0, "I1", "ws-room:ws://a", None);
            script.both_told(100, "I1", "ws-room:ws://b", Some("I1"));
            for bot in [SENDER, HEARER] {
                script.inside(bot, "ws://a", 1, 121);
                script.inside(bot, "ws://b", 101, 200);
            }
            script
        }
    }

    /// Of twenty seconds, the first and the last are under way.
    const EXPECTED: u64 = 181;

    #[test]
    fn message_received_in_either_room_is_not_lost() {
        let mut script = Script::move_of_both();
        script.hears(0..110);
        script.hears(105..200);
        let overlapping = LossCount { expected: EXPECTED, lost: 0 };
        assert_eq!(script.judge(), MoveLoss { overlapping, ..MoveLoss::default() });
    }

    #[test]
    fn message_received_in_no_room_is_lost_for_its_pair_kind() {
        let mut script = Script::move_of_both();
        script.hears((0..100).chain(104..200));
        let tally = LossCount { expected: EXPECTED, lost: 4 };
        assert_eq!(script.judge(), MoveLoss { overlapping: tally, ..MoveLoss::default() });
        script.logs[SENDER].stock = true;
        assert_eq!(script.judge(), MoveLoss { from_stock: tally, ..MoveLoss::default() });
        script.logs[HEARER].stock = true;
        assert_eq!(script.judge(), MoveLoss { to_stock: tally, ..MoveLoss::default() });
    }

    #[test]
    fn sender_silent_after_a_move_is_lost_until_the_end() {
        let mut script = Script::move_of_both();
        script.hears(0..100);
        assert_eq!(script.judge().overlapping, LossCount { expected: EXPECTED, lost: 91 });
        script.logs[HEARER].received.clear();
        assert_eq!(script.judge().overlapping.lost, EXPECTED);
    }

    #[test]
    fn interruptions_are_not_counted() {
        let livekit = "livekit:wss://l?access_token=t";
        for interruption in ["another island", "a connection that bots cannot enter", "no gateway"] {
            let mut script = Script::new();
            script.both_told(0, "I1", "ws-room:ws://a", None);
            match interruption {
                "another island" => script.told(SENDER, 50, "I2", "ws-room:ws://c", Some("I1")),
                "no gateway" => {
                    let at = script.at(50);
                    script.logs[HEARER].assignments.disconnected(at);
                }
                _ => script.both_told(50, "I1", livekit, Some("I1")),
            }
            script.both_told(100, "I1", "ws-room:ws://a", None);
            for bot in [SENDER, HEARER] {
                script.inside(bot, "ws://a", 1, 60);
                script.inside(bot, "ws://a", 101, 200);
            }
            script.hears((0..41).chain(110..200));
            // From 1 s to 4 s, and from 11 s to 19 s.
            let overlapping = LossCount { expected: 31 + 81, lost: 0 };
            assert_eq!(script.judge(), MoveLoss { overlapping, ..MoveLoss::default() }, "{interruption}");
        }
    }

    #[test]
    fn messages_before_the_first_common_room_are_not_counted() {
        let mut script = Script::new();
        script.both_told(0, "I1", "ws-room:ws://a", None);
        script.inside(SENDER, "ws://a", 1, 200);
        script.hears(60..200);
        assert_eq!(script.judge(), MoveLoss::default(), "they never met");
        // In a room of the island, which is not the other's any more.
        script.inside(HEARER, "ws://b", 30, 60);
        assert_eq!(script.judge(), MoveLoss::default());
        script.inside(HEARER, "ws://a", 60, 200);
        assert_eq!(script.judge().overlapping, LossCount { expected: 131, lost: 0 });
    }
}
