//! Resource usage of processes, from `/proc`. Elsewhere than on Linux the values are `None`.

use std::{fs, path::PathBuf};

/// A process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// The calling process.
    Own,
    /// The process with this id.
    Id(u32),
}

impl Process {
    /// The CPU time, in user and system mode together, in seconds. To 10 ms (the collector of the standard
    /// `process_cpu_seconds_total` rounds to seconds).
    pub fn cpu_seconds(self) -> Option<f64> {
        /// The unit of `/proc` (`USER_HZ`), independent of the kernel's own clock.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = fs::read_to_string(self.file("stat")).ok()?;
        // The name of the program, in parentheses, may contain anything; user and system time are the 14th
        // and 15th field of the line.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
    }

    /// The memory (RSS) in bytes.
    pub fn resident_bytes(self) -> Option<u64> {
        let status = fs::read_to_string(self.file("status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    fn file(self, name: &str) -> PathBuf {
        let process = match self {
            Self::Own => "self".to_owned(),
            Self::Id(id) => id.to_string(),
        };
        ["/proc", &process, name].iter().collect()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_are_read_on_linux() {
        for process in [Process::Own, Process::Id(std::process::id())] {
            assert!(process.resident_bytes().is_some_and(|bytes| bytes > 100_000), "{process:?}");
            assert!(process.cpu_seconds().is_some(), "{process:?}");
        }
    }
}
