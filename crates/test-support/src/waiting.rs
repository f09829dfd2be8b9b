//! Waiting for conditions, with time limits.

use std::time::{Duration, Instant};

/// The timeout of test steps, long enough for a busy machine.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Polls until the condition holds, for at most ten seconds.
pub async fn eventually(label: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(10), label, holds).await;
}

/// Polls until the condition holds, for at most this long.
pub async fn within(limit: Duration, label: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {label}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
