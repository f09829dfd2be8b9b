use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds from the Unix epoch to `time`; 0 for what was before it.
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
