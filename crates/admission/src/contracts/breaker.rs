//! A circuit breaker for the calls to the provider.

use std::time::Duration;

use tokio::time::Instant;

/// A circuit breaker: stops calls to a provider that does not answer them.
///
/// While it is closed, all calls pass. After `failures_to_open` consecutive failures it opens, and no call
/// passes. After the cool-down one call passes as a trial: its success closes the breaker, its failure opens
/// it again.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    failures_to_open: u32,
    cool_down: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// The state of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// All calls pass.
    Closed,
    /// One call has passed as a trial; no others pass.
    HalfOpen,
    /// No call passes before the cool-down has ended.
    Open,
}

/// Permission for one call. The caller must give it back to [`CircuitBreaker::record`] with every outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BreakerPermit {
    trial: bool,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The provider answered; the content does not matter.
    Success,
    /// The provider did not answer, or its answer could not be parsed.
    Failure,
    /// The outcome shows nothing about the provider: the call was cancelled, rate limited or begun shortly
    /// before its deadline, or the contract may have caused the error.
    Inconclusive,
}

impl CircuitBreaker {
    /// Creates a closed breaker.
    pub(crate) fn new(failures_to_open: u32, cool_down: Duration) -> Self {
        Self { failures_to_open, cool_down, state: State::Closed { failures: 0 } }
    }

    /// The current state.
    pub(crate) fn breaker_state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// Whether no call would pass now.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until } => now < until,
            State::HalfOpen => true,
        }
    }

    /// Acquires permission for a call; `None` if no call may pass.
    pub(crate) fn try_acquire(&mut self, now: Instant) -> Option<BreakerPermit> {
        match self.state {
            State::Closed { .. } => Some(BreakerPermit { trial: false }),
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen;
                Some(BreakerPermit { trial: true })
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    /// Records the outcome of a call.
    pub(crate) fn record(&mut self, permit: &BreakerPermit, outcome: Outcome, now: Instant) {
        let open = State::Open { until: now + self.cool_down };
        match (&mut self.state, outcome) {
            (State::HalfOpen, _) if permit.trial => {
                self.state = match outcome {
                    Outcome::Success => State::Closed { failures: 0 },
                    Outcome::Failure => open,
                    // The trial showed nothing: the next call is a trial, too.
                    Outcome::Inconclusive => State::Open { until: now },
                };
            }
            (State::Closed { failures }, Outcome::Success) => *failures = 0,
            (State::Closed { failures }, Outcome::Failure) => {
                *failures += 1;
                if *failures >= self.failures_to_open {
                    self.state = open;
                }
            }
            // The call began before the breaker opened, or had no conclusive outcome.
            (State::Open { .. } | State::HalfOpen, _) | (State::Closed { .. }, Outcome::Inconclusive) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(10);

    fn breaker() -> (CircuitBreaker, Instant) {
        (CircuitBreaker::new(3, COOL_DOWN), Instant::now())
    }

    /// Runs a call with this outcome.
    fn run_call(breaker: &mut CircuitBreaker, outcome: Outcome, now: Instant) {
        let permit = breaker.try_acquire(now).expect("the call passes");
        breaker.record(&permit, outcome, now);
    }

    fn opened() -> (CircuitBreaker, Instant) {
        let (mut breaker, now) = breaker();
        (0..3).for_each(|_| run_call(&mut breaker, Outcome::Failure, now));
        (breaker, now)
    }

    #[test]
    fn consecutive_failures_open_the_breaker() {
        let (mut breaker, now) = breaker();
        for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure] {
            run_call(&mut breaker, outcome, now);
        }
        run_call(&mut breaker, Outcome::Inconclusive, now);
        run_call(&mut breaker, Outcome::Failure, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Closed);
        run_call(&mut breaker, Outcome::Failure, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Open);
        assert_eq!(breaker.try_acquire(now), None);
    }

    #[test]
    fn successful_trial_after_the_cool_down_closes() {
        let (mut breaker, now) = opened();
        let early = now + COOL_DOWN - Duration::from_millis(1);
        assert_eq!((breaker.try_acquire(early), breaker.is_open(early)), (None, true));
        let now = now + COOL_DOWN;
        assert!(!breaker.is_open(now));
        let trial = breaker.try_acquire(now).unwrap();
        assert!(breaker.is_open(now));
        assert_eq!(
            (breaker.breaker_state(), breaker.try_acquire(now)),
            (BreakerState::HalfOpen, None),
            "one trial at a time"
        );
        breaker.record(&trial, Outcome::Success, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Closed);
        run_call(&mut breaker, Outcome::Failure, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Closed, "earlier failures are forgotten");
    }

    #[test]
    fn failed_trial_reopens_and_inconclusive_trial_is_repeated() {
        let (mut breaker, now) = opened();
        let now = now + COOL_DOWN;
        run_call(&mut breaker, Outcome::Inconclusive, now);
        run_call(&mut breaker, Outcome::Failure, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Open);
        assert_eq!(breaker.try_acquire(now + COOL_DOWN - Duration::from_millis(1)), None);
        assert!(breaker.try_acquire(now + COOL_DOWN).is_some());
    }

    #[test]
    fn outcomes_from_before_the_opening_change_nothing() {
        let (mut breaker, now) = breaker();
        let [early, late] = [breaker.try_acquire(now).unwrap(), breaker.try_acquire(now).unwrap()];
        (0..3).for_each(|_| run_call(&mut breaker, Outcome::Failure, now));
        breaker.record(&early, Outcome::Success, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Open);
        let now = now + COOL_DOWN;
        let trial = breaker.try_acquire(now).unwrap();
        breaker.record(&late, Outcome::Failure, now);
        assert_eq!(breaker.breaker_state(), BreakerState::HalfOpen);
        breaker.record(&trial, Outcome::Success, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Closed);
    }
}
