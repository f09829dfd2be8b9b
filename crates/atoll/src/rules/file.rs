//! The file of owner rules: read and validated.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use archipelago::rules::Rules;

/// The maximum size of a file of rules.
pub(crate) const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// The text of a file of rules.
pub(super) fn read(file: &Path) -> Result<String> {
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

/// The rules in this text of a file. An error names line and column.
pub(super) fn parse(file: &Path, text: &str) -> Result<Rules> {
    Rules::parse(text).map_err(|error| {
        anyhow::anyhow!("{}:{}:{}: {}", file.display(), error.line, error.column, error.reason)
    })
}
