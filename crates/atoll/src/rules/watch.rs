//! Reloads the file of owner rules when it changes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use director::AdminHandle;
use tokio::time::{self, MissedTickBehavior};

use super::file;
use crate::metrics;

/// How often the file is checked for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(400);

/// The state of a file that is compared without reading it: its modification time and size. `None`: it
/// cannot be read.
type FileStamp = Option<(SystemTime, u64)>;

fn file_stamp(file: &Path) -> FileStamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Reloads the file when it has changed and was the same at two checks in a row, and passes the rules
/// to the director, which holds the rules that apply. If the new rules are invalid, or the file is
/// gone, the old rules stay. Returns only when the director is gone.
pub(crate) async fn watch(file: PathBuf, director: AdminHandle) {
    metrics::rules_valid().set(1.0);
    let mut ticks = time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The file may have changed since it was loaded at start, so it is reloaded once.
    let (mut read, mut before) = (None, file_stamp(&file));
    loop {
        ticks.tick().await;
        let now = file_stamp(&file);
        let still = std::mem::replace(&mut before, now) == now;
        if !still || read == Some(now) {
            continue;
        }
        read = Some(now);
        let path = file.clone();
        let loaded = tokio::task::spawn_blocking(move || file::load(&path)).await;
        match loaded.map_err(anyhow::Error::from).and_then(|rules| rules) {
            Ok(rules) => {
                let count = rules.rules.len();
                let Ok(changed) = director.set_rules(rules).await else { return };
                if changed {
                    tracing::info!(file = %file.display(), count, "new rules apply");
                    metrics::rules_loaded().increment(1);
                }
                metrics::rules_valid().set(1.0);
            }
            Err(error) => {
                tracing::warn!("the rules are unchanged: {error:#}");
                metrics::rules_refused().increment(1);
                metrics::rules_valid().set(0.0);
            }
        }
    }
}
