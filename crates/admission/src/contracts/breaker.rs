use std::time::Duration;

use tokio::time::Instant;

/// Keeps questions away from a provider that does not answer them.
///
/// Closed, all pass. After so many failures in a row it opens, and none does. When it has cooled
/// down, one is let through as a trial: its success closes it, its failure opens it again.
#[derive(Debug)]
pub(crate) struct Breaker {
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
pub(crate) enum Stand {
    /// All do.
    Closed,
    /// One does, as a trial.
    HalfOpen,
    /// None does.
    Open,
}

/// A question that was let through. Give it back with [`Breaker::settle`], however it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    trial: bool,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The provider answered, whatever it said.
    Answered,
    /// It did not, or not so that it could be understood.
    Failed,
    /// Nobody waited for the answer, or it may be the contract's fault: it shows nothing.
    Abandoned,
}

impl Breaker {
    /// A closed one.
    pub(crate) fn new(failures_to_open: u32, cool_down: Duration) -> Self {
        Self { failures_to_open, cool_down, state: State::Closed { failures: 0 } }
    }

    /// Where it stands.
    pub(crate) fn stand(&self) -> Stand {
        match self.state {
            State::Closed { .. } => Stand::Closed,
            State::HalfOpen => Stand::HalfOpen,
            State::Open { .. } => Stand::Open,
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
    pub(crate) fn pass(&mut self, now: Instant) -> Option<Pass> {
        match self.state {
            State::Closed { .. } => Some(Pass { trial: false }),
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen;
                Some(Pass { trial: true })
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    /// Takes in how a question ended.
    pub(crate) fn settle(&mut self, pass: &Pass, verdict: Verdict, now: Instant) {
        let open = State::Open { until: now + self.cool_down };
        match (&mut self.state, verdict) {
            (State::HalfOpen, _) if pass.trial => {
                self.state = match verdict {
                    Verdict::Answered => State::Closed { failures: 0 },
                    Verdict::Failed => open,
                    // Nothing was learnt: the next one is a trial, too.
                    Verdict::Abandoned => State::Open { until: now },
                };
            }
            (State::Closed { failures }, Verdict::Answered) => *failures = 0,
            (State::Closed { failures }, Verdict::Failed) => {
                *failures += 1;
                if *failures >= self.failures_to_open {
                    self.state = open;
                }
            }
            // From before it opened.
            (State::Open { .. } | State::HalfOpen, _) | (State::Closed { .. }, Verdict::Abandoned) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(10);

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(3, COOL_DOWN), Instant::now())
    }

    /// Lets a question through, which ends so.
    fn ask(breaker: &mut Breaker, verdict: Verdict, now: Instant) {
        let pass = breaker.pass(now).expect("it passes");
        breaker.settle(&pass, verdict, now);
    }

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        (0..3).for_each(|_| ask(&mut breaker, Verdict::Failed, now));
        (breaker, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_starts_anew() {
        let (mut breaker, now) = breaker();
        for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Answered, Verdict::Failed] {
            ask(&mut breaker, verdict, now);
        }
        ask(&mut breaker, Verdict::Abandoned, now);
        ask(&mut breaker, Verdict::Failed, now);
        assert_eq!(breaker.stand(), Stand::Closed);
        ask(&mut breaker, Verdict::Failed, now);
        assert_eq!(breaker.stand(), Stand::Open);
        assert_eq!(breaker.pass(now), None);
    }

    #[test]
    fn after_the_cool_down_one_passes_and_its_answer_closes_it() {
        let (mut breaker, now) = opened();
        let early = now + COOL_DOWN - Duration::from_millis(1);
        assert_eq!((breaker.pass(early), breaker.is_open(early)), (None, true));
        let now = now + COOL_DOWN;
        assert!(!breaker.is_open(now));
        let trial = breaker.pass(now).unwrap();
        assert!(breaker.is_open(now));
        assert_eq!((breaker.stand(), breaker.pass(now)), (Stand::HalfOpen, None), "one at a time");
        breaker.settle(&trial, Verdict::Answered, now);
        assert_eq!(breaker.stand(), Stand::Closed);
        ask(&mut breaker, Verdict::Failed, now);
        assert_eq!(breaker.stand(), Stand::Closed, "the failures of before are forgotten");
    }

    #[test]
    fn a_trial_that_fails_opens_it_again_and_one_that_is_abandoned_makes_place_for_another() {
        let (mut breaker, now) = opened();
        let now = now + COOL_DOWN;
        ask(&mut breaker, Verdict::Abandoned, now);
        ask(&mut breaker, Verdict::Failed, now);
        assert_eq!(breaker.stand(), Stand::Open);
        assert_eq!(breaker.pass(now + COOL_DOWN - Duration::from_millis(1)), None);
        assert!(breaker.pass(now + COOL_DOWN).is_some());
    }

    #[test]
    fn what_was_asked_before_it_opened_changes_nothing_any_more() {
        let (mut breaker, now) = breaker();
        let [early, late] = [breaker.pass(now).unwrap(), breaker.pass(now).unwrap()];
        (0..3).for_each(|_| ask(&mut breaker, Verdict::Failed, now));
        breaker.settle(&early, Verdict::Answered, now);
        assert_eq!(breaker.stand(), Stand::Open);
        let now = now + COOL_DOWN;
        let trial = breaker.pass(now).unwrap();
        breaker.settle(&late, Verdict::Failed, now);
        assert_eq!(breaker.stand(), Stand::HalfOpen);
        breaker.settle(&trial, Verdict::Answered, now);
        assert_eq!(breaker.stand(), Stand::Closed);
    }
}
