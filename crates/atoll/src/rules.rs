//! The file of owner rules: loaded, validated, and reloaded when it changes.

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
        /// The file of rules.
        file: PathBuf,
    },
    /// Print the current islands of a running realm that these rules would move.
    Diff {
        /// The file of rules.
        file: PathBuf,
        #[command(flatten)]
        at: AdminTarget,
    },
}

/// The maximum size of a file of rules.
pub(crate) const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// How often the file is checked for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(400);

/// Runs a subcommand.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check { file } => {
            let rules = load(&file)?;
            println!("{}: {} rules about {} areas", file.display(), rules.rules.len(), rules.areas.len());
            for (never, before) in rules.shadowed_rules() {
                println!(
                    "note: rule `{never}` never applies: `{before}` precedes it and always matches there"
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
        bail!("{} has {bytes} bytes, the maximum is {MAX_FILE_BYTES}", file.display());
    }
    fs::read_to_string(file).with_context(cannot_read)
}

/// The rules in a file. An error names line and column.
pub(crate) fn load(file: &Path) -> Result<Rules> {
    parse(file, &read(file)?)
}

fn parse(file: &Path, text: &str) -> Result<Rules> {
    Rules::parse(text).map_err(|error| {
        anyhow::anyhow!("{}:{}:{}: {}", file.display(), error.line, error.column, error.reason)
    })
}

/// The state of a file that is compared without reading it: its modification time and size. `None`: it
/// cannot be read.
type FileStamp = Option<(SystemTime, u64)>;

fn file_stamp(file: &Path) -> FileStamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Reloads the file when it has changed and was the same at two checks in a row, and passes the rules
/// to the director, in which `active_rules` apply now. If the new rules are invalid, or the file is
/// gone, the old rules stay. Returns only when the director is gone.
pub(crate) async fn watch(file: PathBuf, mut active_rules: Rules, director: AdminHandle) {
    metrics::gauge!("atoll_rules_valid").set(1.0);
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
        let loaded = tokio::task::spawn_blocking(move || load(&path)).await;
        match loaded.map_err(anyhow::Error::from).and_then(|rules| rules) {
            Ok(rules) if rules == active_rules => metrics::gauge!("atoll_rules_valid").set(1.0),
            Ok(rules) => {
                active_rules = rules.clone();
                let count = rules.rules.len();
                if director.set_rules(Arc::new(rules)).await.is_err() {
                    return;
                }
                tracing::info!(file = %file.display(), count, "new rules apply");
                metrics::counter!("atoll_rules_loaded_total").increment(1);
                metrics::gauge!("atoll_rules_valid").set(1.0);
            }
            Err(error) => {
                tracing::warn!("the rules are unchanged: {error:#}");
                metrics::counter!("atoll_rules_refused_total").increment(1);
                metrics::gauge!("atoll_rules_valid").set(0.0);
            }
        }
    }
}
