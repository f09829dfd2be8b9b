//! Pins processes to cores, with `taskset` of util-linux.

use std::{
    process::{Command, Stdio},
    thread,
};

/// Pins this process to `loader_core`. Returns the core for servers, or `None` if nothing can be pinned.
pub(crate) fn pin_loader(server_core: usize, loader_core: usize) -> Option<usize> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        println!("not pinned: the process may use one core only, so the loader competes with the servers");
        return None;
    }
    let process = std::process::id().to_string();
    let mut taskset = Command::new("taskset");
    taskset.args(["--cpu-list", "--pid", &loader_core.to_string(), &process]).stdout(Stdio::null());
    if taskset.status().is_ok_and(|status| status.success()) {
        return Some(server_core);
    }
    println!("not pinned: taskset of util-linux is missing, or core {loader_core} cannot be used");
    None
}

/// A command that runs `program` on `core`.
pub(crate) fn pinned(program: &str, core: Option<usize>) -> Command {
    match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string(), program]);
            command
        }
        None => Command::new(program),
    }
}
