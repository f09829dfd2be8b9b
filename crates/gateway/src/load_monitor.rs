//! How much of the machine the process uses, and whether that leaves room for more people.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant, MissedTickBehavior};

/// What the process uses, as far as the system tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Memory that is resident, in bytes.
    pub resident_bytes: Option<u64>,
    /// CPU time since its start, of all cores together, in seconds.
    pub cpu_seconds: Option<f64>,
}

/// Tells what the process uses now. It is asked every second.
pub type Sampler = Arc<dyn Fn() -> Usage + Send + Sync>;

/// How much of the machine may be in use while more people are asked in. `None`: as much as there
/// is. What the system does not tell counts as little.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadLimits {
    /// Resident memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Percent of all cores together.
    pub cpu_percent: Option<f64>,
}

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Over how many intervals the CPU is measured.
const CPU_WINDOW_SAMPLES: usize = 5;
/// What was too much is too much until it is below this share of its limit.
const RELEASE_RATIO: f64 = 0.9;

/// The load of the process, measured in the background.
#[derive(Debug)]
pub(crate) struct LoadMonitor {
    limits: LoadLimits,
    overloaded: AtomicBool,
}

impl LoadMonitor {
    pub(crate) fn new(limits: LoadLimits) -> Self {
        Self { limits, overloaded: AtomicBool::new(false) }
    }

    /// Whether there is too much of it to ask more people in.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.overloaded.load(Ordering::Relaxed)
    }

    /// Measures. Does not return.
    pub(crate) async fn run(&self, sample: &Sampler) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut meter = LoadMeter::new(self.limits, cores);
        let mut ticks = time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let over = meter.update(sample(), Instant::now());
            if over != self.overloaded.swap(over, Ordering::Relaxed) {
                match over {
                    true => tracing::warn!("memory or CPU is over its limit: nobody is asked in any more"),
                    false => tracing::info!("memory and CPU are below their limits again"),
                }
            }
        }
    }
}

/// Holds samples against the limits.
#[derive(Debug)]
struct LoadMeter {
    limits: LoadLimits,
    cores: f64,
    /// CPU seconds, the oldest first.
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

    /// Whether it is too much, with this sample.
    fn update(&mut self, usage: Usage, now: Instant) -> bool {
        let memory = usage.resident_bytes.map(|bytes| bytes as f64);
        let limit = self.limits.memory_bytes.map(|bytes| bytes as f64);
        self.memory_overloaded = exceeds_limit(self.memory_overloaded, memory, limit);
        let cpu = usage.cpu_seconds.and_then(|seconds| self.cpu_percent(seconds, now));
        self.cpu_overloaded = exceeds_limit(self.cpu_overloaded, cpu, self.limits.cpu_percent);
        self.memory_overloaded || self.cpu_overloaded
    }

    /// Percent of all cores since the beginning of the window, once there is a whole one.
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
        let over =
            |mib: u64| meter.update(Usage { resident_bytes: Some(mib * MIB), cpu_seconds: Some(1e9) }, now);
        let held = [99, 100, 99, 91, 100, 90, 89, 99, 100].map(over);
        assert_eq!(held, [false, true, true, true, true, true, false, false, true]);
    }

    #[test]
    fn cpu_is_averaged_over_the_window_and_all_cores() {
        let limits = LoadLimits { memory_bytes: None, cpu_percent: Some(50.0) };
        let mut meter = LoadMeter::new(limits, 4);
        let start = Instant::now();
        let (mut used, mut second) = (100.0, 0);
        // So many CPU seconds in each second, on four cores.
        let mut over = |seconds: f64| {
            used += seconds;
            second += 1;
            let usage = Usage { resident_bytes: None, cpu_seconds: Some(used) };
            meter.update(usage, start + Duration::from_secs(second))
        };
        let burst = [0.0, 4.0, 0.0, 0.0, 0.0, 0.0].map(&mut over);
        assert_eq!(burst, [false; 6], "a second of everything is 20 % of five");
        assert_eq!([2.0; 6].map(&mut over), [false, false, false, false, true, true]);
        assert_eq!([1.9; 5].map(&mut over), [true; 5], "47 % is not well below 50 %");
        assert_eq!([1.0; 5].map(&mut over).last(), Some(&false));
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
