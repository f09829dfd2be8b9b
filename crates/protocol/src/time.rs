//! Times on the wire: milliseconds since the Unix epoch, and the limit for times from other processes.

use std::time::{SystemTime, UNIX_EPOCH};

/// The limit by which the clock of one process may be ahead of another's: a day, in milliseconds. A process
/// continues from the highest time that it accepted, so it would keep a wrong later time for as long as it
/// runs.
const MAX_LEAD_MS: u64 = 24 * 60 * 60 * 1_000;

/// Milliseconds from the Unix epoch to `time`; 0 for a time before the epoch.
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a time from another process, in milliseconds since the Unix epoch, is rejected because it is more
/// than a day ahead of `now_ms`. The same limit applies to the time in a session id or another ULID.
pub fn is_far_ahead(unix_ms: u64, now_ms: u64) -> bool {
    unix_ms > now_ms.saturating_add(MAX_LEAD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_more_than_a_day_ahead_is_far_ahead() {
        let now_ms = 1_800_000_000_000;
        for near in [0, now_ms, now_ms + MAX_LEAD_MS] {
            assert!(!is_far_ahead(near, now_ms), "{near}");
        }
        for far in [now_ms + MAX_LEAD_MS + 1, u64::MAX] {
            assert!(is_far_ahead(far, now_ms), "{far}");
        }
        assert!(!is_far_ahead(u64::MAX, u64::MAX));
    }
}
