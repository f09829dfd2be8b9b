//! `atoll rules`: checks owner rules, or shows their effect on a running realm.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Subcommand;

use super::file;
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

/// Runs a subcommand.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check { file } => {
            let rules = file::load(&file)?;
            println!("{}: {} rules about {} areas", file.display(), rules.rules.len(), rules.areas.len());
            for (never, before) in rules.shadowed_rules() {
                println!(
                    "note: rule `{never}` never applies: `{before}` precedes it and always matches there"
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Diff { file, at } => {
            let text = file::read(&file)?;
            file::parse(&file, &text)?;
            explain::diff(text, at).await
        }
    }
}
