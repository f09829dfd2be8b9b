//! The resource usage of this process.

use process_usage::Process;

/// The usage that the gateway compares with its limits.
pub(crate) fn usage() -> gateway::Usage {
    gateway::Usage { resident_bytes: Process::Own.resident_bytes(), cpu_seconds: Process::Own.cpu_seconds() }
}
