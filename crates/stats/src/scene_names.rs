//! The task that keeps the names of scenes up to date.

use std::{collections::BTreeSet, future, time::Duration};

use protocol::Parcel;
use tokio::time;

use crate::{metrics, shared::Shared};

/// The interval in which the task checks whether a request is due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest backoff after a failure; the first is a second, and each doubles.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Keeps the scenes of all occupied parcels up to date, with one request at a time. No HTTP response waits
/// for it: they use the scenes known so far. Does not return.
pub(crate) async fn run(shared: &Shared) {
    let Some(content) = &shared.content else { return future::pending().await };
    let (mut failures, mut last_ok) = (0, None);
    loop {
        // The lock of the presence is released before the parcels are sorted.
        let occupied = shared.presence.lock().parcels();
        let occupied: BTreeSet<Parcel> = occupied.into_iter().collect();
        let due = shared.scenes.lock().due(occupied.into_iter(), std::time::Instant::now());
        if due.is_empty() {
            time::sleep(POLL_INTERVAL).await;
            continue;
        }
        let answer = content.scenes(&due).await;
        // Only a change between success and failure is logged.
        let changed = last_ok.replace(answer.is_ok()) != Some(answer.is_ok());
        match answer {
            Ok(answer) => {
                failures = 0;
                if changed {
                    tracing::info!("the content service answers");
                }
                shared.scenes.lock().update(&due, answer, std::time::Instant::now());
                shared.changes.add();
            }
            Err(error) => {
                metrics::content_errors(error.kind()).increment(1);
                if changed {
                    tracing::warn!(%error, "the content service fails; known scenes are kept");
                }
                time::sleep(backoff(failures)).await;
                failures += 1;
            }
        }
    }
}

/// The delay after a failure that followed `failures` others in a row.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(failures)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_half_a_minute() {
        assert_eq!([0, 1, 4, 5, 99].map(|failures| backoff(failures).as_secs()), [1, 2, 16, 30, 30]);
    }
}
