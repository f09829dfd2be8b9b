//! The table of medians, and the ratios to the yardstick.

use std::fmt;

use crate::run::Run;

/// All runs so far.
pub(crate) struct Report {
    yardstick: String,
    runs: Vec<Run>,
}

impl Report {
    pub(crate) fn new(yardstick: &str) -> Self {
        Self { yardstick: yardstick.to_owned(), runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// The runs of each workload and server, in the order of their first run.
    fn groups(&self) -> Vec<Vec<&Run>> {
        let mut groups: Vec<Vec<&Run>> = Vec::new();
        for run in &self.runs {
            let same = |first: &Run| is_same_workload(first, run) && first.server == run.server;
            match groups.iter_mut().find(|group| same(group[0])) {
                Some(group) => group.push(run),
                None => groups.push(vec![run]),
            }
        }
        groups
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups();
        writeln!(
            formatter,
            "\nMedians. Ratio: CPU time of the yardstick for each delivery, divided by the server's.\n"
        )?;
        writeln!(
            formatter,
            "| load | order | server | runs | deliveries/s | offered | lost | µs each | segments/s \
             | p50, p99 ms | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for group in &groups {
            let first = group[0];
            let mut same_workload = groups.iter().filter(|other| is_same_workload(other[0], first));
            let fallback = same_workload.clone().next();
            let yardstick = same_workload.find(|other| other[0].server == self.yardstick).or(fallback);
            let cpu_each = median(group, |run| run.cpu_each);
            let yardstick_each = yardstick.map_or(cpu_each, |group| median(group, |run| run.cpu_each));
            let invalid = group.iter().filter(|run| run.problem().is_some()).count();
            let note = if invalid > 0 { format!(" ({invalid} not valid)") } else { String::new() };
            writeln!(
                formatter,
                "| {} | {} | {} | {}{note} | {:.0} | {:.0} | {:.0} | {cpu_each:.3} | {} \
                 | {:.2}, {:.2} | {:.2} |",
                first.load,
                first.order,
                first.server,
                group.len(),
                median(group, |run| run.deliveries),
                first.load.offered(),
                median(group, |run| run.lost as f64),
                segments(group),
                median(group, |run| run.p50_ms),
                median(group, |run| run.p99_ms),
                yardstick_each / cpu_each,
            )?;
        }
        Ok(())
    }
}

fn is_same_workload(one: &Run, other: &Run) -> bool {
    one.load == other.load && one.order == other.order
}

/// The median of the segments a second, if they could be counted.
fn segments(runs: &[&Run]) -> String {
    let is_known = runs.iter().all(|run| run.segments.is_some());
    if is_known {
        format!("{:.0}", median(runs, |run| run.segments.unwrap_or_default()))
    } else {
        "-".to_owned()
    }
}

fn median(runs: &[&Run], value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| value(run)).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
