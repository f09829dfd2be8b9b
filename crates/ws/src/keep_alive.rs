//! Detection of dead clients by pings that only silent clients receive.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// Unanswered pings after which the next interval of silence marks a client as dead.
const MAX_MISSED_PINGS: u32 = 2;

/// Detects a dead client by pinging it, but only while it is silent.
///
/// A ping is due when nothing arrived for one interval. The client counts as dead when nothing arrived for
/// three intervals: two pings stayed unanswered. Some clients pass pings to their message decoder, so a
/// client that sends by itself must not receive any.
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    /// When the next check is due. Arrivals do not reset the timer, so it fires at most once an interval.
    timer: Pin<Box<Sleep>>,
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
        Self { interval, timer: Box::pin(sleep_until(now + interval)), missed_pings: 0 }
    }

    /// Waits until a check is due. Cancel-safe.
    pub async fn due(&mut self) {
        self.timer.as_mut().await;
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
            self.timer.as_mut().reset(due);
            return Liveness::Alive;
        }
        if self.missed_pings == MAX_MISSED_PINGS {
            return Liveness::Dead;
        }
        self.missed_pings += 1;
        self.timer.as_mut().reset(now + self.interval);
        Liveness::Silent
    }

    /// Records that something arrived: earlier pings count as answered. The timer does not change; the next
    /// check is given the time of the arrival.
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

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn silent_client_is_dead_after_three_intervals() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, start);
        for (second, expected) in
            [(10, Liveness::Silent), (20, Liveness::Silent), (30, Liveness::Dead), (30, Liveness::Dead)]
        {
            keep_alive.due().await;
            assert_eq!(
                (start.elapsed(), keep_alive.check(start, Instant::now())),
                (seconds(second), expected)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn activity_moves_the_next_check() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, start);
        keep_alive.due().await;
        assert_eq!(keep_alive.check(start + seconds(9), Instant::now()), Liveness::Alive);
        keep_alive.due().await;
        assert_eq!(start.elapsed(), seconds(19));
        assert_eq!(keep_alive.check(start + seconds(9), Instant::now()), Liveness::Silent);
        keep_alive.due().await;
        assert_eq!(keep_alive.check(start + seconds(9), Instant::now()), Liveness::Silent);
        assert!(keep_alive.is_unresponsive());
        keep_alive.record_activity();
        assert!(!keep_alive.is_unresponsive());
        keep_alive.due().await;
        assert_eq!(start.elapsed(), seconds(39));
        assert_eq!(keep_alive.check(start + seconds(30), Instant::now()), Liveness::Alive);
        keep_alive.due().await;
        assert_eq!((start.elapsed(), keep_alive.missed_pings), (seconds(40), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn suspended_process_pings_before_it_closes() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, start);
        tokio::time::advance(seconds(1_000)).await;
        keep_alive.due().await;
        assert_eq!(keep_alive.check(start, Instant::now()), Liveness::Silent);
        keep_alive.due().await;
        assert_eq!(start.elapsed(), seconds(1_010));
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_read_does_not_count_as_silence() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, start);
        keep_alive.due().await;
        assert_eq!(keep_alive.check(start + seconds(100), Instant::now()), Liveness::Alive);
        keep_alive.due().await;
        assert_eq!(start.elapsed(), seconds(110));
    }
}
