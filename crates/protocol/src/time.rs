use std::time::{SystemTime, UNIX_EPOCH};

/// How far the clock of one process may be ahead of another's: a day, in milliseconds. Whoever
/// continues from a later time would be bound to it for as long as it runs.
const MAX_LEAD_MS: u64 = 24 * 60 * 60 * 1_000;

/// Milliseconds from the Unix epoch to `time`; 0 for what was before it.
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a time that another process sent, in milliseconds since the Unix epoch, is too far ahead of
/// `now_ms` to be believed: more than a day. This holds for the time in a session id or another ULID,
/// too.
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
