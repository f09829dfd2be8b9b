//! The phases of a participant, and the timing of its reconnection.

use std::time::Duration;

use rand::RngExt as _;
use tokio::{sync::oneshot, time::Instant};

use super::error::JoinError;

/// The phase of a participant.
pub(crate) enum Phase {
    /// It joins for the first time, until this time.
    Joining {
        deadline: Instant,
        reply: oneshot::Sender<Result<(), JoinError>>,
    },
    Connected,
    Reconnecting(Reconnection),
}

/// The attempts to restore a connection.
pub(crate) struct Reconnection {
    mode: ReconnectMode,
    /// The time after which the participant leaves.
    deadline: Instant,
    /// The time after which the current attempt has failed.
    attempt_deadline: Instant,
    attempts: u32,
    /// Whether the server has accepted the session of the current attempt.
    pub(crate) accepted: bool,
    /// Reliable messages that may be lost.
    pub(crate) unconfirmed: usize,
    pub(crate) last_error: String,
}

/// How a connection is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReconnectMode {
    /// The session continues: a new signalling socket, and new paths of the same connections.
    Resume,
    /// A new session.
    Rejoin,
}

/// The longest attempt, from the opening of the signalling socket until the data channels are usable.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(6);
/// The delay before the second attempt. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(2);

impl Reconnection {
    /// Begins now, and ends after `timeout` at the latest.
    pub(crate) fn new(mode: ReconnectMode, timeout: Duration, error: String, now: Instant) -> Self {
        Self {
            mode,
            deadline: now + timeout,
            attempt_deadline: now + ATTEMPT_TIMEOUT,
            attempts: 0,
            accepted: false,
            unconfirmed: 0,
            last_error: error,
        }
    }

    pub(crate) fn mode(&self) -> ReconnectMode {
        self.mode
    }

    /// The session cannot be resumed.
    pub(crate) fn rejoin(&mut self) {
        self.mode = ReconnectMode::Rejoin;
    }

    /// An attempt has failed. Returns the time of the next one; `None`: the time is over.
    pub(crate) fn next_attempt(&mut self, error: String, now: Instant) -> Option<Instant> {
        self.last_error = error;
        self.accepted = false;
        let delay = FIRST_DELAY.saturating_mul(1 << self.attempts.min(8)).min(MAX_DELAY);
        self.attempts += 1;
        // All participants of a server lose it at the same time.
        let at = now + delay.mul_f64(rand::rng().random_range(0.5..1.0));
        self.attempt_deadline = at + ATTEMPT_TIMEOUT;
        (at < self.deadline).then_some(at)
    }

    /// The time at which the current attempt has failed.
    pub(crate) fn attempt_deadline(&self) -> Instant {
        self.attempt_deadline.min(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_delayed_and_end_at_the_deadline() {
        let start = Instant::now();
        let mut reconnection =
            Reconnection::new(ReconnectMode::Resume, Duration::from_secs(7), "first".to_owned(), start);
        let (mut now, mut delays) = (start, Vec::new());
        while let Some(at) = reconnection.next_attempt("later".to_owned(), now) {
            delays.push(at - now);
            assert!(reconnection.attempt_deadline() <= start + Duration::from_secs(7));
            now = at;
        }
        assert!(delays[0] <= FIRST_DELAY && delays[0] >= FIRST_DELAY / 2);
        assert!(delays.iter().all(|delay| *delay <= MAX_DELAY));
        assert!((5..=12).contains(&delays.len()), "{delays:?}");
        assert_eq!(reconnection.last_error, "later");
    }
}
