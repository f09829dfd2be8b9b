//! Resource usage of processes, from `/proc`. Elsewhere than on Linux the values are `None`.

use std::fs;

/// The usage that the gateway compares with its limits.
pub(crate) fn usage() -> gateway::Usage {
    gateway::Usage { resident_bytes: resident_bytes_of("self"), cpu_seconds: cpu_seconds() }
}

/// The CPU time of this process to 10 ms (the collector of the standard `process_cpu_seconds_total`
/// rounds to seconds).
pub(crate) fn cpu_seconds() -> Option<f64> {
    cpu_seconds_of("self")
}

/// The CPU time of the process of this id.
pub(crate) fn cpu_seconds_of(process: &str) -> Option<f64> {
    /// The unit of `/proc` (`USER_HZ`), independent of the kernel's own clock.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything; user and system time are the 14th
    // and 15th field of the line.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// The memory (RSS) in bytes of the process of this id.
pub(crate) fn resident_bytes_of(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_are_read_on_linux() {
        let usage = usage();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
        assert!(usage.cpu_seconds.is_some(), "{usage:?}");
    }
}
