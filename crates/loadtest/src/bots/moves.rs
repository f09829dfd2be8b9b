//! Counts moves between nodes, and the connections of the bots by transport.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::log::BotLog;

/// The moves of a run: changes of the connection while the island stays the same. The field names are
/// JSON keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Moves {
    pub(crate) moves: u64,
    /// By bots that enter the new room before they leave the old one.
    pub(crate) moves_overlapping: u64,
    /// By bots that leave the old room first, as stock clients do.
    pub(crate) moves_stock: u64,
    pub(crate) moves_per_person: f64,
    /// The maximum of one bot.
    pub(crate) most_moves_of_one: u64,
    /// The least time between two moves of one bot.
    pub(crate) least_seconds_between_moves: Option<f64>,
    /// Counts by the protocol of the connection.
    pub(crate) connections: BTreeMap<String, Connections>,
}

/// The counts of one kind of connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Connections {
    /// Bots with this kind as their last connection.
    pub(crate) bots: u64,
    /// Assignments of this kind: moves and changes of island.
    pub(crate) changes: u64,
    /// Moves to this kind.
    pub(crate) moves: u64,
}

impl Moves {
    pub(crate) fn of(logs: &[&BotLog]) -> Self {
        let mut all = Self::default();
        let mut least: Option<Duration> = None;
        for log in logs {
            let mut moves = 0;
            let mut last_move = None;
            for (at, assignment) in log.assignments.assignments() {
                let connections = all.connections.entry(assignment.kind.clone()).or_default();
                connections.changes += 1;
                if !assignment.is_move {
                    continue;
                }
                connections.moves += 1;
                moves += 1;
                let since = last_move.replace(at).map(|last| at - last);
                least = least.into_iter().chain(since).min();
            }
            if let Some((_, assignment)) = log.assignments.assignments().next_back() {
                all.connections.entry(assignment.kind.clone()).or_default().bots += 1;
            }
            let of_kind = if log.stock { &mut all.moves_stock } else { &mut all.moves_overlapping };
            *of_kind += moves;
            all.most_moves_of_one = all.most_moves_of_one.max(moves);
        }
        all.moves = all.moves_overlapping + all.moves_stock;
        all.moves_per_person = all.moves as f64 / logs.len().max(1) as f64;
        all.least_seconds_between_moves = least.map(|least| least.as_secs_f64());
        all
    }

    /// One count of each kind of connection: `ws-room 12, livekit 5`, the largest first.
    pub(crate) fn counts_by_kind(&self, figure: impl Fn(&Connections) -> u64) -> String {
        let mut figures: Vec<(&str, u64)> =
            self.connections.iter().map(|(kind, connections)| (&**kind, figure(connections))).collect();
        figures.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let figures: Vec<String> = figures.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        if figures.is_empty() { "none".to_owned() } else { figures.join(", ") }
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moves_overlapping, moves_stock, moves_per_person, most_moves_of_one, .. } = self;
        write!(f, "{moves_overlapping} by overlapping and {moves_stock} by stock clients")?;
        if self.moves > 0 {
            write!(f, " (to {})", self.counts_by_kind(|connections| connections.moves))?;
        }
        write!(f, ", {moves_per_person:.2} a peer, at most {most_moves_of_one}")?;
        match self.least_seconds_between_moves {
            Some(least) => write!(f, ", at least {least:.1} s apart"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn moves_are_counted_separately_from_other_changes() {
        let start = Instant::now();
        let log = |stock, assignments: &[(u64, &str, &str, Option<&str>)]| {
            let mut log = BotLog { stock, ..BotLog::default() };
            for &(seconds, island, connection, from) in assignments {
                let at = start + Duration::from_secs(seconds);
                log.assignments.assigned(at, island.parse().unwrap(), &connection.parse().unwrap(), from);
            }
            log
        };
        let (rooms, livekit) = ("ws-room:ws://a/rooms/I1", "livekit:wss://l?access_token=t");
        let walker = log(
            false,
            &[
                (0, "I1", rooms, None),
                (10, "I1", livekit, Some("I1")),
                (14, "I2", rooms, Some("I1")),
                (17, "I2", livekit, Some("I2")),
                // It reconnected, and was assigned the same endpoint again.
                (20, "I2", "livekit:wss://l?access_token=u", Some("I2")),
                (27, "I2", rooms, Some("I2")),
            ],
        );
        let stock = log(true, &[(0, "I3", rooms, None), (1, "I3", livekit, Some("I3"))]);
        let moves = Moves::of(&[&walker, &stock, &BotLog::default()]);
        let connections = BTreeMap::from([
            ("livekit".to_owned(), Connections { bots: 1, changes: 4, moves: 3 }),
            ("ws-room".to_owned(), Connections { bots: 1, changes: 4, moves: 1 }),
        ]);
        let expected = Moves {
            moves: 4,
            moves_overlapping: 3,
            moves_stock: 1,
            moves_per_person: 4.0 / 3.0,
            most_moves_of_one: 3,
            least_seconds_between_moves: Some(7.0),
            connections,
        };
        assert_eq!(moves, expected);
        assert_eq!(moves.counts_by_kind(|connections| connections.changes), "livekit 4, ws-room 4");
    }
}
