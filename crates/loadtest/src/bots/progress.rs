//! The progress line.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use indicatif::ProgressBar;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    convergence::Convergence,
    log::{BotLog, count_deliveries},
    pool::BotPool,
    proximity_check::ProximityCheck,
    summary::{Counts, Summary},
};
use crate::percentiles::Percentiles;

/// Shows the progress: one line that is rewritten on a terminal, plain lines elsewhere.
pub(crate) struct ProgressDisplay {
    json: bool,
    bar: Option<ProgressBar>,
    last: Mutex<(Instant, u64, u64)>,
    lines: AtomicU64,
}

impl ProgressDisplay {
    pub(crate) fn new(json: bool) -> Self {
        // With `--json` the standard output has JSON lines only.
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        let (last, lines) = (Mutex::new((Instant::now(), 0, 0)), AtomicU64::default());
        Self { json, bar, last, lines }
    }

    pub(crate) fn line(&self, pool: &BotPool, proximity: &ProximityCheck) {
        let number = self.lines.fetch_add(1, Relaxed);
        // Plain lines are for a log: one in five is enough.
        if number == 0 || self.bar.is_none() && !number.is_multiple_of(5) {
            return;
        }
        let (sent, received) = (pool.sent.load(Relaxed), pool.received.load(Relaxed));
        let now = Instant::now();
        let (sent_rate, received_rate) = {
            let mut last = self.last.lock();
            let seconds = (now - last.0).as_secs_f64();
            let rates = ((sent - last.1) as f64 / seconds, (received - last.2) as f64 / seconds);
            *last = (now, sent, received);
            rates
        };
        let (latency, assignment) =
            (Percentiles::of(&pool.latency()), Percentiles::of(&pool.assignment_latency()));
        let logs: Vec<_> = pool.logs().collect();
        let logs: Vec<&BotLog> = logs.iter().map(|log| &**log).collect();
        let room_logs = logs.iter().flat_map(|log| log.room_logs.values());
        let (counts, verdict) =
            (Counts::of(&logs, pool), count_deliveries(room_logs, Instant::now()).required());
        let line = format!(
            "{} peers, {} islands, {} rooms | {sent_rate:.0} sent/s, {received_rate:.0} received/s | lost {}, \
             unheard {} | latency {latency} ms | heartbeat to island {assignment} ms",
            counts.people,
            counts.islands,
            counts.rooms,
            verdict.lost + verdict.disordered,
            proximity.unheard_pairs(),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }

    /// Prints the result of a comparison that SIGUSR1 requested.
    pub(crate) fn convergence(&self, convergence: &Convergence) {
        if self.json {
            println!("{}", serde_json::to_string(convergence).unwrap_or_default());
        } else {
            println!("{convergence}");
        }
    }

    pub(crate) fn summary(&self, summary: &Summary) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.json {
            println!("{}", serde_json::to_string(summary).unwrap_or_default());
        } else {
            summary.print();
        }
    }
}
