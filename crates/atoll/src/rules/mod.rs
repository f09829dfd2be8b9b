//! Owner rules: the file, its reload, and the subcommands about it.

pub(crate) mod command;
pub(crate) mod file;
pub(crate) mod watch;
