//! `[rules]`: the file of owner rules.

use std::path::PathBuf;

use super::{problems::Problems, section::section};
use crate::rules::file;

section! {
    /// `[rules]`: the owners' rules
    pub(crate) struct Rules {
        /// File of owner rules, see [rules](rules.md). The director reloads it when it changes. Empty: no
        /// rules.
        file: String = String::new(),
    }
}

impl Rules {
    /// The file and the rules in it, if there is one. Adds its problems to `problems`.
    pub(super) fn load(&self, problems: &mut Problems) -> Option<(PathBuf, archipelago::rules::Rules)> {
        if self.file.is_empty() {
            return None;
        }
        let path = PathBuf::from(&self.file);
        match file::load(&path) {
            Ok(rules) => Some((path, rules)),
            Err(error) => {
                problems.check(false, "rules.file", &self.file, format_args!("{error:#}"));
                None
            }
        }
    }
}
