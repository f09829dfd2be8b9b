//! The public names of this build, compared with golden files in `tests/golden/`.
//!
//! The tests take each name from the binary or from the code that uses it: they run processes and record their output,
//! answers and messages. `make golden` rewrites the files. [`changes`] requires a CHANGELOG entry for each change.

mod bus;
mod changes;
mod command_line;
mod http;
mod json_outputs;
mod metrics;
mod metrics_source;
mod shape;
mod words;

use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

use test_support::golden;
use tokio::time::sleep;

/// How long a text may take to become equal to the golden file, and how often the test reads it.
const DEADLINE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a text is given to become complete before it is written to a golden file.
const BEFORE_WRITE: Duration = Duration::from_secs(4);

/// Runs the binary without settings from the environment, in a folder without a configuration file.
fn atoll(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ATOLL") || name == "COLUMNS" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(std::env::temp_dir()).output().unwrap()
}

/// The standard output of a command that succeeds.
fn printed(arguments: &[&str]) -> String {
    let output = atoll(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares a golden file with a text that becomes complete after a while.
async fn check_eventually(file: &str, mut actual: impl AsyncFnMut() -> String) {
    if golden::rewrites() {
        sleep(BEFORE_WRITE).await;
    }
    let expected = fs::read_to_string(golden::path(file)).unwrap_or_default();
    let mut text = actual().await;
    for _ in 0..DEADLINE.as_millis() / LOOK_INTERVAL.as_millis() {
        if text == expected || golden::rewrites() {
            break;
        }
        sleep(LOOK_INTERVAL).await;
        text = actual().await;
    }
    golden::check(file, &text);
}
