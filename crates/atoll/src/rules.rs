//! The file of owner rules: read, checked, and read again when it changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use archipelago::rules::Rules;
use clap::Subcommand;
use director::AdminHandle;
use tokio::time::{self, MissedTickBehavior};

use crate::explain::{self, AdminTarget};

/// The subcommands of `atoll rules`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a file of rules.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Say which of the present islands of a running realm would move under these rules.
    Diff {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        at: AdminTarget,
    },
}

/// A file of rules is not larger than this.
pub(crate) const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// How often it is seen whether the file has changed.
const POLL_INTERVAL: Duration = Duration::from_millis(400);

/// Runs a subcommand.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check { file } => {
            let rules = load(&file)?;
            println!("{}: {} rules about {} areas", file.display(), rules.rules.len(), rules.areas.len());
            for (never, before) in rules.shadowed_rules() {
                println!(
                    "note: rule `{never}` never decides: `{before}` comes before it and always matches there"
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Diff { file, at } => {
            let text = read(&file)?;
            parse(&file, &text)?;
            explain::diff(text, at).await
        }
    }
}

/// The text of a file of rules.
pub(crate) fn read(file: &Path) -> Result<String> {
    let cannot_read = || format!("cannot read {}", file.display());
    let bytes = fs::metadata(file).with_context(cannot_read)?.len();
    if bytes > MAX_FILE_BYTES as u64 {
        bail!("{} has {bytes} bytes, and {MAX_FILE_BYTES} are the most", file.display());
    }
    fs::read_to_string(file).with_context(cannot_read)
}

/// The rules in a file; what is wrong is named with its place.
pub(crate) fn load(file: &Path) -> Result<Rules> {
    parse(file, &read(file)?)
}

fn parse(file: &Path, text: &str) -> Result<Rules> {
    Rules::parse(text).map_err(|error| {
        anyhow::anyhow!("{}:{}:{}: {}", file.display(), error.line, error.column, error.reason)
    })
}

/// What tells one state of a file from another without reading it.
type FileStamp = Option<(SystemTime, u64)>;

fn file_stamp(file: &Path) -> FileStamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Reads the file again when it has changed, and not changed further between two looks, and tells the
/// director that has the rules in `force`. Rules that are wrong, or gone, leave those of before. Does
/// not return while the director is there.
pub(crate) async fn watch(file: PathBuf, mut active_rules: Rules, console: AdminHandle) {
    metrics::gauge!("atoll_rules_valid").set(1.0);
    let mut ticks = time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // It may have changed since it was read.
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
        let loaded = tokio::task::spawn_blocking(move || load(&path)).await;
        match loaded.map_err(anyhow::Error::from).and_then(|rules| rules) {
            Ok(rules) if rules == active_rules => metrics::gauge!("atoll_rules_valid").set(1.0),
            Ok(rules) => {
                active_rules = rules.clone();
                let count = rules.rules.len();
                if console.set_rules(Arc::new(rules)).await.is_err() {
                    return;
                }
                tracing::info!(file = %file.display(), count, "other rules hold");
                metrics::counter!("atoll_rules_loaded_total").increment(1);
                metrics::gauge!("atoll_rules_valid").set(1.0);
            }
            Err(error) => {
                tracing::warn!("the rules stay as they were: {error:#}");
                metrics::counter!("atoll_rules_refused_total").increment(1);
                metrics::gauge!("atoll_rules_valid").set(0.0);
            }
        }
    }
}
