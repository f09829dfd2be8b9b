use std::time::Duration;

use tokio::time::Instant;

/// Keeps questions away from a provider that does not answer them.
///
/// Closed, all pass. After so many failures in a row it opens, and none does. When it has cooled
/// down, one is let through as a trial: its success closes it, its failure opens it again.
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

/// Whether questions pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// All do.
    Closed,
    /// One does, as a trial.
    HalfOpen,
    /// None does.
    Open,
}

/// A question that was let through. Give it back with [`CircuitBreaker::record`], however it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BreakerPermit {
    trial: bool,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The provider answered, whatever it said.
    Success,
    /// It did not, or not so that it could be understood.
    Failure,
    /// Nobody waited for the answer, or it may be the contract's fault: it shows nothing.
    Inconclusive,
}

impl CircuitBreaker {
    /// A closed one.
    pub(crate) fn new(failures_to_open: u32, cool_down: Duration) -> Self {
        Self { failures_to_open, cool_down, state: State::Closed { failures: 0 } }
    }

    /// Where it stands.
    pub(crate) fn breaker_state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// Whether no question would pass now.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until } => now < until,
            State::HalfOpen => true,
        }
    }

    /// Lets a question through, or does not.
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

    /// Takes in how a question ended.
    pub(crate) fn record(&mut self, pass: &BreakerPermit, outcome: Outcome, now: Instant) {
        let open = State::Open { until: now + self.cool_down };
        match (&mut self.state, outcome) {
            (State::HalfOpen, _) if pass.trial => {
                self.state = match outcome {
                    Outcome::Success => State::Closed { failures: 0 },
                    Outcome::Failure => open,
                    // Nothing was learnt: the next one is a trial, too.
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
            // From before it opened.
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

    /// Lets a question through, which ends so.
    fn run_call(breaker: &mut CircuitBreaker, verdict: Outcome, now: Instant) {
        let pass = breaker.try_acquire(now).expect("it passes");
        breaker.record(&pass, verdict, now);
    }

    fn opened() -> (CircuitBreaker, Instant) {
        let (mut breaker, now) = breaker();
        (0..3).for_each(|_| run_call(&mut breaker, Outcome::Failure, now));
        (breaker, now)
    }

    #[test]
    fn consecutive_failures_open_the_breaker() {
        let (mut breaker, now) = breaker();
        for verdict in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure] {
            run_call(&mut breaker, verdict, now);
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
            "one at a time"
        );
        breaker.record(&trial, Outcome::Success, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Closed);
        run_call(&mut breaker, Outcome::Failure, now);
        assert_eq!(breaker.breaker_state(), BreakerState::Closed, "the failures of before are forgotten");
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
