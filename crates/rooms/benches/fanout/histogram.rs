//! A histogram of durations in equal steps.

const STEP_MICROSECONDS: u64 = 50;
/// Durations of 10 s and more are counted in the last step.
const STEPS: usize = 200_000;

pub(crate) struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; STEPS] }
    }

    pub(crate) fn record(&mut self, microseconds: u64) {
        let step = (microseconds / STEP_MICROSECONDS) as usize;
        self.counts[step.min(STEPS - 1)] += 1;
    }

    /// The duration in milliseconds that `share` of the recorded ones do not exceed, rounded up to a step.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let wanted = (self.counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let steps_below = self.counts.iter().take_while(|&&count| {
            seen += count;
            seen < wanted
        });
        (steps_below.count() as u64 + 1) as f64 * STEP_MICROSECONDS as f64 / 1_000.0
    }
}
