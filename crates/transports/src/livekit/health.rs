//! Decides from probe results whether a LiveKit server is healthy.

/// The health of a server, from the results of its probes alone.
///
/// A server with a slow API still serves media, and each change of its health moves islands: so both
/// directions are damped. Two failures in a row make a server unhealthy; the second probe follows the first
/// at once. Three successes in a row, a second apart, make it healthy again. If the state is unknown, the
/// first success makes it healthy.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    successes: u32,
    /// `None`: not known yet.
    healthy: Option<bool>,
}

/// The consequence of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthUpdate {
    /// One failure proves nothing: probe again, at once.
    ProbeAgain,
    /// The state of the server is known.
    Known {
        healthy: bool,
        /// Whether the state was unknown or different before.
        changed: bool,
    },
}

const FAILURES_TO_UNHEALTHY: u32 = 2;
const SUCCESSES_TO_HEALTHY: u32 = 3;

impl Health {
    /// Takes the result of a probe.
    pub(crate) fn observe(&mut self, answered: bool) -> HealthUpdate {
        if answered {
            (self.failures, self.successes) = (0, self.successes.saturating_add(1));
        } else {
            (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
        }
        let healthy = match (self.healthy, answered) {
            (Some(false), true) => self.successes >= SUCCESSES_TO_HEALTHY,
            (_, false) if self.failures < FAILURES_TO_UNHEALTHY => return HealthUpdate::ProbeAgain,
            (_, answered) => answered,
        };
        let before = self.healthy.replace(healthy);
        HealthUpdate::Known { healthy, changed: before != Some(healthy) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(healthy: bool, changed: bool) -> HealthUpdate {
        HealthUpdate::Known { healthy, changed }
    }

    #[test]
    fn health_changes_after_two_failures_or_three_successes() {
        let mut health = Health::default();
        for (answered, verdict) in [
            (true, known(true, true)),
            (true, known(true, false)),
            (false, HealthUpdate::ProbeAgain),
            (true, known(true, false)),
            (false, HealthUpdate::ProbeAgain),
            (false, known(false, true)),
            (true, known(false, false)),
            (true, known(false, false)),
            (false, HealthUpdate::ProbeAgain),
            (false, known(false, false)),
            (false, known(false, false)),
            (true, known(false, false)),
            (true, known(false, false)),
            (true, known(true, true)),
            (false, HealthUpdate::ProbeAgain),
            (false, known(false, true)),
        ] {
            assert_eq!(health.observe(answered), verdict);
        }
    }

    #[test]
    fn server_that_never_answered_is_unhealthy_after_two_probes() {
        let mut health = Health::default();
        assert_eq!(health.observe(false), HealthUpdate::ProbeAgain);
        assert_eq!(health.observe(false), known(false, true));
    }
}
