/// Whether a server is healthy, by the outcomes of its probes alone.
///
/// A failed probe is repeated at once; two failures in a row mean unhealthy, one success healthy.
/// With a probe every second that is given up after 750 ms, a server that hangs or refuses is known
/// to be unhealthy within 2.5 s.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    /// `None`: nothing is known yet.
    healthy: Option<bool>,
}

/// What follows from a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One failure says nothing yet: probe again, at once.
    Repeat,
    /// It is known how the server is.
    Known {
        /// Whether it was not known, or not so, before.
        changed: bool,
    },
}

const FAILURES_TO_UNHEALTHY: u32 = 2;

impl Health {
    /// Takes the outcome of a probe.
    pub(crate) fn judge(&mut self, answered: bool) -> Verdict {
        self.failures = if answered { 0 } else { self.failures.saturating_add(1) };
        if (1..FAILURES_TO_UNHEALTHY).contains(&self.failures) {
            return Verdict::Repeat;
        }
        let before = self.healthy.replace(answered);
        Verdict::Known { changed: before != Some(answered) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: Verdict = Verdict::Known { changed: true };
    const SAME: Verdict = Verdict::Known { changed: false };

    #[test]
    fn two_failures_in_a_row_mean_unhealthy_and_one_success_healthy() {
        let mut health = Health::default();
        for (answered, verdict) in [
            (true, CHANGED),
            (true, SAME),
            (false, Verdict::Repeat),
            (true, SAME),
            (false, Verdict::Repeat),
            (false, CHANGED),
            // From now on the clock is soon enough.
            (false, SAME),
            (false, SAME),
            (true, CHANGED),
            (false, Verdict::Repeat),
            (false, CHANGED),
        ] {
            assert_eq!(health.judge(answered), verdict);
        }
    }

    #[test]
    fn a_server_that_never_answered_is_unhealthy_after_two_probes() {
        let mut health = Health::default();
        assert_eq!(health.judge(false), Verdict::Repeat);
        assert_eq!(health.judge(false), CHANGED);
    }
}
