//! Detection of dead clients by pings that only silent clients receive.

use std::time::Duration;

use tokio::time::Instant;

/// Unanswered pings after which the next interval of silence marks a client as dead.
const MAX_MISSED_PINGS: u32 = 2;

/// Detects a dead client by pinging it, but only while it is silent.
///
/// A ping is due when nothing arrived for one interval. The client counts as dead when nothing arrived for
/// three intervals: two pings stayed unanswered. Some clients pass pings to their message decoder, so a
/// client that sends by itself must not receive any.
///
/// It has no timer: the caller checks when [`KeepAlive::due_at`] has passed.
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    /// When the next check is due. Arrivals do not change it, so there is at most one check an interval.
    due_at: Instant,
    /// Pings sent since the last arrival.
    missed_pings: u32,
}

/// The state of a client, judged by the time of the last arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Something arrived within the last interval.
    Alive,
    /// Nothing arrived for an interval: the caller must send a ping.
    Silent,
    /// Nothing arrived for three intervals.
    Dead,
}

impl KeepAlive {
    /// Schedules the first check one interval after `now`.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due_at: now + interval, missed_pings: 0 }
    }

    /// When the next check is due.
    pub fn due_at(&self) -> Instant {
        self.due_at
    }

    /// Checks a client that last sent something at `last_read`, and schedules the next check. `last_read` may
    /// be after `now` while the server delays its next read.
    ///
    /// Each check counts at most one missed ping, so that a process that was suspended does not close clients
    /// that had no chance to answer.
    pub fn check(&mut self, last_read: Instant, now: Instant) -> Liveness {
        let due = last_read + self.interval;
        if due > now {
            self.missed_pings = 0;
            self.due_at = due;
            return Liveness::Alive;
        }
        if self.missed_pings == MAX_MISSED_PINGS {
            return Liveness::Dead;
        }
        self.missed_pings += 1;
        self.due_at = now + self.interval;
        Liveness::Silent
    }

    /// Records that something arrived: earlier pings count as answered. The next check stays due at
    /// the same time, and is given the time of the arrival.
    pub fn record_activity(&mut self) {
        self.missed_pings = 0;
    }

    /// Whether all allowed pings are unanswered: another interval of silence marks the client as dead.
    pub fn is_unresponsive(&self) -> bool {
        self.missed_pings == MAX_MISSED_PINGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// A keep-alive that started at second 0.
    struct Client {
        start: Instant,
        keep_alive: KeepAlive,
    }

    impl Client {
        fn new() -> Self {
            let start = Instant::now();
            Self { start, keep_alive: KeepAlive::new(INTERVAL, start) }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        /// Checks when the check is due, at the expected second.
        fn check_at(&mut self, second: u64, last_read: u64) -> Liveness {
            assert_eq!(self.keep_alive.due_at(), self.at(second));
            self.keep_alive.check(self.at(last_read), self.at(second))
        }
    }

    #[test]
    fn silent_client_is_dead_after_three_intervals() {
        let mut client = Client::new();
        assert_eq!(client.check_at(10, 0), Liveness::Silent);
        assert_eq!(client.check_at(20, 0), Liveness::Silent);
        assert_eq!(client.check_at(30, 0), Liveness::Dead);
        assert_eq!(client.check_at(30, 0), Liveness::Dead);
    }

    #[test]
    fn activity_moves_the_next_check() {
        let mut client = Client::new();
        assert_eq!(client.check_at(10, 9), Liveness::Alive);
        assert_eq!(client.check_at(19, 9), Liveness::Silent);
        assert_eq!(client.check_at(29, 9), Liveness::Silent);
        assert!(client.keep_alive.is_unresponsive());
        client.keep_alive.record_activity();
        assert!(!client.keep_alive.is_unresponsive());
        assert_eq!(client.check_at(39, 30), Liveness::Alive);
        assert_eq!((client.keep_alive.due_at(), client.keep_alive.missed_pings), (client.at(40), 0));
    }

    #[test]
    fn suspended_process_pings_before_it_closes() {
        let mut client = Client::new();
        let (start, now) = (client.start, client.at(1_000));
        assert_eq!(client.keep_alive.check(start, now), Liveness::Silent);
        assert_eq!(client.keep_alive.due_at(), client.at(1_010));
    }

    #[test]
    fn delayed_read_does_not_count_as_silence() {
        let mut client = Client::new();
        assert_eq!(client.check_at(10, 100), Liveness::Alive);
        assert_eq!(client.keep_alive.due_at(), client.at(110));
    }
}
