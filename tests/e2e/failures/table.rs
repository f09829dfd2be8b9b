//! The table of measurements of all trials.

use std::{fmt::Write, io::Write as _, time::Duration};

use super::Repetition;

/// The measurements of one kind of failure.
pub(crate) struct Table {
    failure: &'static str,
    columns: Vec<(&'static str, Repetition, Vec<f64>)>,
}

impl Table {
    pub(crate) fn new(failure: &'static str) -> Self {
        Self { failure, columns: Vec::new() }
    }

    /// Adds a duration.
    pub(crate) fn add(&mut self, label: &'static str, times: Repetition, measured: Duration) {
        self.count(label, times, measured.as_secs_f64());
    }

    /// Adds a count.
    pub(crate) fn count(&mut self, label: &'static str, times: Repetition, value: f64) {
        let column = self.columns.iter_mut().find(|(name, when, _)| (*name, *when) == (label, times));
        match column {
            Some((_, _, values)) => values.push(value),
            None => self.columns.push((label, times, vec![value])),
        }
    }

    /// Prints the table, and appends it to the file that `ATOLL_FAILURE_TABLE` names.
    pub(crate) fn print(mut self) {
        let mut text = String::new();
        for (label, times, values) in &mut self.columns {
            values.sort_by(f64::total_cmp);
            let (p50, max) = (values[(values.len() - 1) / 2], values[values.len() - 1]);
            let failure = match times {
                Repetition::Once => self.failure.to_owned(),
                Repetition::Twice => format!("{}, twice", self.failure),
            };
            let _ = writeln!(
                text,
                "{failure:<32} {label:<44} p50 {p50:>6.2}  max {max:>6.2}  of {}",
                values.len()
            );
        }
        print!("{text}");
        if let Ok(path) = std::env::var("ATOLL_FAILURE_TABLE") {
            let file = std::fs::File::options().create(true).append(true).open(path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }
}
