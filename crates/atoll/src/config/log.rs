//! `[log]`: format and level of the log.

use super::{
    section::section,
    values::{Choice, OneOf},
};

section! {
    /// `[log]`: the log on the standard error
    pub(crate) struct Log {
        /// `pretty` or `json`.
        format: OneOf<LogFormat> = OneOf(LogFormat::Pretty),
        /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rooms=debug`.
        level: String = "info".to_owned(),
    }
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

impl Choice for LogFormat {
    const CHOICES: &'static [(&'static str, Self)] = &[("pretty", Self::Pretty), ("json", Self::Json)];
}
