//! Losses between bots that stayed in one island, over all rooms that the island had meanwhile.
//!
//! A message is lost for a bot that received it in no room, although from a second before it was sent
//! until a second after, both bots were assigned one island without interruption, and had shared a room
//! of it before. A move, which only changes the node of the island, is no interruption. Lossy messages between
//! bots that were in a room that may lose them, of this island, are counted apart.

use std::{collections::HashMap, fmt, time::Duration};

use protocol::IslandId;
use tokio::time::Instant;

use super::{
    log::{BotLog, IslandMembership, RoomLog, loses_messages},
    numbering::Delivery,
};

/// The margin around the time of sending.
const MARGIN: Duration = Duration::from_secs(1);

/// Losses by the kinds of receiver and sender. The field names are JSON keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct MoveLoss {
    /// Both enter the new room before they leave the old one: nothing may be lost.
    pub(crate) overlapping: LossCount,
    /// The receiver leaves the old room first.
    pub(crate) to_stock: LossCount,
    /// The sender leaves the old room first, and the receiver does not.
    pub(crate) from_stock: LossCount,
    /// Lossy messages that may be lost: one of both was in a room of the island on another transport than
    /// WebSocket rooms.
    pub(crate) lossy: LossCount,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct LossCount {
    /// Messages that had to arrive, counted once for each receiver.
    pub(crate) expected: u64,
    /// Expected messages that did not arrive.
    pub(crate) lost: u64,
}

impl fmt::Display for LossCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.lost, self.expected)
    }
}

/// One bot during one membership of an island.
struct BotMembership<'a> {
    bot: usize,
    log: &'a BotLog,
    membership: IslandMembership<'a>,
    /// Its room memberships of this island.
    rooms: Vec<&'a RoomLog>,
}

/// Counts over all bots up to now. A bot's index is its position in `logs`.
pub(crate) fn count_move_loss(logs: &[&BotLog], now: Instant) -> MoveLoss {
    let mut islands: HashMap<&IslandId, Vec<BotMembership<'_>>> = HashMap::new();
    for (bot, &log) in logs.iter().enumerate() {
        for membership in log.assignments.memberships(now) {
            let rooms = log.room_logs.values().filter(|room| room.island == *membership.island).collect();
            islands.entry(membership.island).or_default().push(BotMembership { bot, log, membership, rooms });
        }
    }
    let mut losses = MoveLoss::default();
    for memberships in islands.values() {
        for receiver in memberships {
            for sender in memberships.iter().filter(|sender| sender.bot != receiver.bot) {
                let may_lose = receiver.may_lose() || sender.may_lose();
                for delivery in Delivery::ALL {
                    let tally = match (receiver.log.stock, sender.log.stock) {
                        _ if may_lose && delivery == Delivery::Lossy => &mut losses.lossy,
                        (false, false) => &mut losses.overlapping,
                        (true, _) => &mut losses.to_stock,
                        (false, true) => &mut losses.from_stock,
                    };
                    receiver.count_losses(sender, now, delivery, tally);
                }
            }
        }
    }
    losses
}

impl BotMembership<'_> {
    /// Whether one of its rooms may lose lossy messages.
    fn may_lose(&self) -> bool {
        self.rooms.iter().any(|room| loses_messages(room.transport))
    }

    /// Adds the messages of this kind of the common time that did not arrive.
    fn count_losses(&self, sender: &Self, now: Instant, delivery: Delivery, tally: &mut LossCount) {
        let from = self.membership.from.max(sender.membership.from);
        let until = self.membership.until.min(sender.membership.until);
        let Some(met) = self.first_common_room(sender, from, until, now) else { return };
        let (since, sent) = (met.max(from + MARGIN), &sender.log.sent[delivery]);
        let begin = sent.partition_point(|&(_, at)| at < since);
        let end = sent.partition_point(|&(_, at)| at + MARGIN <= until);
        let due = sent.get(begin..end).unwrap_or_default();
        let (Some(first), Some(last)) = (due.first(), due.last()) else { return };
        let received = self.log.received.get(&(sender.bot, delivery));
        let received = received.map_or(0, |received| received.count_within(first.0, last.0));
        tally.expected += due.len() as u64;
        // The subtraction is exact because messages are numbered without gaps.
        tally.lost += due.len() as u64 - received;
    }

    /// When, in this time, both were in one room for the first time.
    fn first_common_room(
        &self,
        other: &Self,
        from: Instant,
        until: Instant,
        now: Instant,
    ) -> Option<Instant> {
        let common = self.rooms.iter().flat_map(|room| {
            let same = other.rooms.iter().filter(|there| there.url == room.url);
            same.filter_map(|there| {
                let met = room.entered.max(there.entered).max(from);
                let left = |room: &RoomLog| room.left.unwrap_or(now);
                (met < left(room).min(left(there)).min(until)).then_some(met)
            })
        });
        common.min()
    }
}

#[cfg(test)]
mod tests {
    use client::RoomId;

    use super::*;

    /// Two bots and their assignments; times are tenths of a second.
    struct Script {
        start: Instant,
        logs: [BotLog; 2],
    }

    const SENDER: usize = 0;
    const RECEIVER: usize = 1;

    impl Script {
        /// The sender publishes every tenth of a second, for twenty seconds.
        fn new() -> Self {
            let (start, mut logs) = (Instant::now(), [BotLog::default(), BotLog::default()]);
            for index in 0..200 {
                logs[SENDER].sent.lossy.push((index, start + Duration::from_millis(100) * index));
            }
            Self { start, logs }
        }

        fn at(&self, tenths: u32) -> Instant {
            self.start + Duration::from_millis(100) * tenths
        }

        fn assign(&mut self, bot: usize, tenths: u32, island: &str, connection: &str, from: Option<&str>) {
            let (at, connection) = (self.at(tenths), connection.parse().unwrap());
            let _ = self.logs[bot].assignments.assigned(at, island.parse().unwrap(), &connection, from);
        }

        fn assign_both(&mut self, tenths: u32, island: &str, connection: &str, from: Option<&str>) {
            for bot in [SENDER, RECEIVER] {
                self.assign(bot, tenths, island, connection, from);
            }
        }

        fn enter_room(&mut self, bot: usize, url: &str, from: u32, until: u32) {
            let transport = if url.starts_with("ws:") { "ws-room" } else { "livekit" };
            let mut room = RoomLog::new(bot, "I1".parse().unwrap(), url.to_owned(), transport, self.at(from));
            room.left = Some(self.at(until));
            let rooms = &mut self.logs[bot].room_logs;
            rooms.insert(RoomId(rooms.len() as u64), room);
        }

        fn receive(&mut self, indices: impl IntoIterator<Item = u32>) {
            let received = self.logs[RECEIVER].received.entry((SENDER, Delivery::Lossy)).or_default();
            for index in indices {
                received.insert(index);
            }
        }

        fn count(&self) -> MoveLoss {
            count_move_loss(&self.logs.each_ref(), self.at(200))
        }

        /// Both are in I1 from the start; it moves from room a to room b after ten seconds.
        fn move_of_both() -> Self {
            let mut script = Self::new();
            script.assign_both(0, "I1", "ws-room:ws://a", None);
            script.assign_both(100, "I1", "ws-room:ws://b", Some("I1"));
            for bot in [SENDER, RECEIVER] {
                script.enter_room(bot, "ws://a", 1, 121);
                script.enter_room(bot, "ws://b", 101, 200);
            }
            script
        }
    }

    /// The messages of twenty seconds without the first and the last second.
    const EXPECTED: u64 = 181;

    #[test]
    fn message_received_in_either_room_is_not_lost() {
        let mut script = Script::move_of_both();
        script.receive(0..110);
        script.receive(105..200);
        let overlapping = LossCount { expected: EXPECTED, lost: 0 };
        assert_eq!(script.count(), MoveLoss { overlapping, ..MoveLoss::default() });
    }

    #[test]
    fn message_received_in_no_room_is_lost_for_its_pair_kind() {
        let mut script = Script::move_of_both();
        script.receive((0..100).chain(104..200));
        let tally = LossCount { expected: EXPECTED, lost: 4 };
        assert_eq!(script.count(), MoveLoss { overlapping: tally, ..MoveLoss::default() });
        script.logs[SENDER].stock = true;
        assert_eq!(script.count(), MoveLoss { from_stock: tally, ..MoveLoss::default() });
        script.logs[RECEIVER].stock = true;
        assert_eq!(script.count(), MoveLoss { to_stock: tally, ..MoveLoss::default() });
    }

    #[test]
    fn lossy_messages_count_apart_once_an_island_was_on_livekit() {
        let mut script = Script::move_of_both();
        script.enter_room(RECEIVER, "wss://l#I1", 150, 200);
        script.receive(0..150);
        let reliable = &mut script.logs[SENDER].sent.reliable;
        reliable.extend((0..20).map(|index| (index, script.start + Duration::from_secs(1) * index)));
        let received = script.logs[RECEIVER].received.entry((SENDER, Delivery::Reliable)).or_default();
        for index in 0..19 {
            received.insert(index);
        }
        let expected = MoveLoss {
            lossy: LossCount { expected: EXPECTED, lost: 41 },
            overlapping: LossCount { expected: 19, lost: 1 },
            ..MoveLoss::default()
        };
        assert_eq!(script.count(), expected);
    }

    #[test]
    fn sender_silent_after_a_move_is_lost_until_the_end() {
        let mut script = Script::move_of_both();
        script.receive(0..100);
        assert_eq!(script.count().overlapping, LossCount { expected: EXPECTED, lost: 91 });
        script.logs[RECEIVER].received.clear();
        assert_eq!(script.count().overlapping.lost, EXPECTED);
    }

    #[test]
    fn interruptions_are_not_counted() {
        let offline = "offline:offline";
        for interruption in ["another island", "a connection that bots cannot enter", "no gateway"] {
            let mut script = Script::new();
            script.assign_both(0, "I1", "ws-room:ws://a", None);
            match interruption {
                "another island" => script.assign(SENDER, 50, "I2", "ws-room:ws://c", Some("I1")),
                "no gateway" => {
                    let at = script.at(50);
                    script.logs[RECEIVER].assignments.disconnected(at);
                }
                _ => script.assign_both(50, "I1", offline, Some("I1")),
            }
            script.assign_both(100, "I1", "ws-room:ws://a", None);
            for bot in [SENDER, RECEIVER] {
                script.enter_room(bot, "ws://a", 1, 60);
                script.enter_room(bot, "ws://a", 101, 200);
            }
            script.receive((0..41).chain(110..200));
            // The expected messages are those from 1 s to 4 s, and from 11 s to 19 s.
            let overlapping = LossCount { expected: 31 + 81, lost: 0 };
            assert_eq!(script.count(), MoveLoss { overlapping, ..MoveLoss::default() }, "{interruption}");
        }
    }

    #[test]
    fn messages_before_the_first_common_room_are_not_counted() {
        let mut script = Script::new();
        script.assign_both(0, "I1", "ws-room:ws://a", None);
        script.enter_room(SENDER, "ws://a", 1, 200);
        script.receive(60..200);
        assert_eq!(script.count(), MoveLoss::default(), "they never shared a room");
        // A room of the island that the sender has left.
        script.enter_room(RECEIVER, "ws://b", 30, 60);
        assert_eq!(script.count(), MoveLoss::default());
        script.enter_room(RECEIVER, "ws://a", 60, 200);
        assert_eq!(script.count().overlapping, LossCount { expected: 131, lost: 0 });
    }
}
