//! The last status of the director, as the bus reports it.

use protocol::{timing::DIRECTOR_TIMEOUT, v3::ServiceDiscoveryMessage};
use tokio::time::Instant;

/// The last status that a director published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DirectorStatus {
    last: Option<(Instant, u32)>,
}

impl DirectorStatus {
    pub(crate) fn record(&mut self, discovery: &ServiceDiscoveryMessage) {
        let users = discovery.status.as_ref().map_or(0, |status| status.user_count);
        self.last = Some((Instant::now(), users));
    }

    /// Whether a director published its status recently.
    pub(crate) fn is_healthy(&self) -> bool {
        self.last.is_some_and(|(at, _)| at.elapsed() < DIRECTOR_TIMEOUT)
    }

    /// The number of users that the director reported.
    pub(crate) fn user_count(&self) -> u32 {
        self.last.map_or(0, |(_, users)| users)
    }
}
