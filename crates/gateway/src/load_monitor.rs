//! Measures the memory and CPU use of the process, and compares it with the limits above which `/about`
//! rejects new users.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant, MissedTickBehavior};

/// Resource use of the process; `None` if the system does not report it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Memory in use (RSS), in bytes.
    pub resident_bytes: Option<u64>,
    /// CPU time since the start of the process, in seconds, summed over all cores.
    pub cpu_seconds: Option<f64>,
}

/// Returns the current use of the process. It is called once a second.
pub type Sampler = Arc<dyn Fn() -> Usage + Send + Sync>;

/// Resource limits above which new users are turned away. `None`: no limit. A value that the system does not
/// report counts as below its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadLimits {
    /// Memory in use (RSS), in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU use in percent of all cores together.
    pub cpu_percent: Option<f64>,
}

/// Interval between samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Number of sample intervals over which CPU use is averaged.
const CPU_WINDOW_SAMPLES: usize = 5;
/// Hysteresis: an exceeded limit counts as exceeded until the value is below this share of it.
const RELEASE_RATIO: f64 = 0.9;

/// The load of the process, measured in the background.
pub(crate) struct LoadMonitor {
    limits: LoadLimits,
    sampler: Sampler,
    overloaded: AtomicBool,
}

impl LoadMonitor {
    pub(crate) fn new(limits: LoadLimits, sampler: Sampler) -> Self {
        Self { limits, sampler, overloaded: AtomicBool::new(false) }
    }

    /// Whether a limit is exceeded.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.overloaded.load(Ordering::Relaxed)
    }

    /// Samples the load once a second. Does not return.
    pub(crate) async fn run(&self) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut meter = LoadMeter::new(self.limits, cores);
        let mut ticks = time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let overloaded = meter.update((self.sampler)(), Instant::now());
            if overloaded != self.overloaded.swap(overloaded, Ordering::Relaxed) {
                match overloaded {
                    true => tracing::warn!("memory or CPU is over its limit: new users are turned away"),
                    false => tracing::info!("memory and CPU are below their limits again"),
                }
            }
        }
    }
}

/// Compares samples with the limits.
#[derive(Debug)]
struct LoadMeter {
    limits: LoadLimits,
    cores: f64,
    /// The last samples of CPU seconds, oldest first.
    cpu_samples: VecDeque<(Instant, f64)>,
    memory_overloaded: bool,
    cpu_overloaded: bool,
}

impl LoadMeter {
    fn new(limits: LoadLimits, cores: usize) -> Self {
        let cpu = VecDeque::with_capacity(CPU_WINDOW_SAMPLES + 1);
        Self {
            limits,
            cores: cores as f64,
            cpu_samples: cpu,
            memory_overloaded: false,
            cpu_overloaded: false,
        }
    }

    /// Adds a sample and returns whether a limit is exceeded.
    fn update(&mut self, usage: Usage, now: Instant) -> bool {
        let memory = usage.resident_bytes.map(|bytes| bytes as f64);
        let limit = self.limits.memory_bytes.map(|bytes| bytes as f64);
        self.memory_overloaded = exceeds_limit(self.memory_overloaded, memory, limit);
        let cpu = usage.cpu_seconds.and_then(|seconds| self.cpu_percent(seconds, now));
        self.cpu_overloaded = exceeds_limit(self.cpu_overloaded, cpu, self.limits.cpu_percent);
        self.memory_overloaded || self.cpu_overloaded
    }

    /// CPU use in percent of all cores, averaged over the window; `None` until the window is full.
    fn cpu_percent(&mut self, seconds: f64, now: Instant) -> Option<f64> {
        self.cpu_samples.push_back((now, seconds));
        if self.cpu_samples.len() <= CPU_WINDOW_SAMPLES {
            return None;
        }
        let (since, before) = self.cpu_samples.pop_front()?;
        let elapsed = (now - since).as_secs_f64();
        (elapsed > 0.0).then(|| 100.0 * (seconds - before) / (elapsed * self.cores))
    }
}

fn exceeds_limit(before: bool, value: Option<f64>, limit: Option<f64>) -> bool {
    match (value, limit) {
        (Some(value), Some(limit)) if before => value >= limit * RELEASE_RATIO,
        (Some(value), Some(limit)) => value >= limit,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn memory_overload_ends_only_well_below_the_limit() {
        let limits = LoadLimits { memory_bytes: Some(100 * MIB), cpu_percent: None };
        let mut meter = LoadMeter::new(limits, 2);
        let now = Instant::now();
        let overloaded =
            |mib: u64| meter.update(Usage { resident_bytes: Some(mib * MIB), cpu_seconds: Some(1e9) }, now);
        let overloaded = [99, 100, 99, 91, 100, 90, 89, 99, 100].map(overloaded);
        assert_eq!(overloaded, [false, true, true, true, true, true, false, false, true]);
    }

    #[test]
    fn cpu_is_averaged_over_the_window_and_all_cores() {
        let limits = LoadLimits { memory_bytes: None, cpu_percent: Some(50.0) };
        let mut meter = LoadMeter::new(limits, 4);
        let start = Instant::now();
        let (mut used, mut second) = (100.0, 0);
        // Uses this many CPU seconds within one second, on four cores.
        let mut overloaded = |seconds: f64| {
            used += seconds;
            second += 1;
            let usage = Usage { resident_bytes: None, cpu_seconds: Some(used) };
            meter.update(usage, start + Duration::from_secs(second))
        };
        let burst = [0.0, 4.0, 0.0, 0.0, 0.0, 0.0].map(&mut overloaded);
        assert_eq!(burst, [false; 6], "one second at 100 % is 20 % of the window of five");
        assert_eq!([2.0; 6].map(&mut overloaded), [false, false, false, false, true, true]);
        assert_eq!([1.9; 5].map(&mut overloaded), [true; 5], "47.5 % is above 90 % of the limit of 50 %");
        assert_eq!([1.0; 5].map(&mut overloaded).last(), Some(&false));
    }

    #[test]
    fn unknown_or_unlimited_usage_is_never_overload() {
        let now = Instant::now();
        let limits = LoadLimits { memory_bytes: Some(1), cpu_percent: Some(1.0) };
        assert!(!LoadMeter::new(limits, 1).update(Usage::default(), now));
        let all = Usage { resident_bytes: Some(u64::MAX), cpu_seconds: Some(1e9) };
        assert!(!LoadMeter::new(LoadLimits::default(), 1).update(all, now));
    }
}
