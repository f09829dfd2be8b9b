//! The problems of a configuration, which are all reported at once.

use std::fmt::{self, Display};

use config::ConfigError;

/// All problems of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn list(&self) -> &[String] {
        &self.0
    }

    pub(super) fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    /// Adds a problem of the setting `key` unless its value follows the rule.
    pub(super) fn check(&mut self, holds: bool, key: impl Display, value: impl Display, rule: impl Display) {
        if !holds {
            self.add(format!("{key} = {value}: {rule}"));
        }
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s)", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}

impl From<ConfigError> for Problems {
    fn from(error: ConfigError) -> Self {
        Self(vec![error.to_string()])
    }
}

/// The text in quotes, so that an empty one is visible.
pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}
