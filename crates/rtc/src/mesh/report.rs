//! The times of link reports.

use std::time::Duration;

use tokio::time::Instant;

/// Changes within this time are reported together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// A report without a change follows the last one after this time.
const INTERVAL: Duration = Duration::from_secs(3);

/// The time of the next report.
#[derive(Debug, Default)]
pub(crate) struct ReportTimer {
    due: Option<Instant>,
    /// The deliveries since the last report.
    pub(crate) sent: u32,
    pub(crate) sent_by_fallback: u32,
}

impl ReportTimer {
    /// The links have changed.
    pub(crate) fn changed(&mut self, now: Instant) {
        let soon = now + DEBOUNCE;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    pub(crate) fn due_time(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a report is due. The counts since the last one are returned, and begin again.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(u32, u32)> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = Some(now + INTERVAL);
        Some((std::mem::take(&mut self.sent), std::mem::take(&mut self.sent_by_fallback)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_reported_together_and_then_every_interval() {
        let (mut timer, start) = (ReportTimer::default(), Instant::now());
        assert_eq!(timer.take(start), None);
        timer.changed(start);
        timer.sent = 5;
        timer.changed(start + DEBOUNCE / 2);
        assert_eq!(timer.take(start), None);
        assert_eq!(timer.take(start + DEBOUNCE), Some((5, 0)));
        assert_eq!(timer.take(start + DEBOUNCE + INTERVAL / 2), None);
        assert_eq!(timer.take(start + DEBOUNCE + INTERVAL), Some((0, 0)));
        timer.changed(start + DEBOUNCE + INTERVAL);
        assert!(
            timer.take(start + DEBOUNCE * 2 + INTERVAL).is_some(),
            "a change is earlier than the interval"
        );
    }
}
