//! A server in a process of its own, with the CPU time and segments that the operating system counts.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context, Result};
use process_usage::Process;

use crate::{options::ServerCommand, pinning::pinned};

/// A running server. Dropping it kills the process.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// TCP segments with data that the open sockets of a server have sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments {
    count: u64,
    at: Instant,
}

impl ServerProcess {
    /// Starts a server on `core` and waits for its address.
    pub(crate) fn start(server: &ServerCommand, core: Option<usize>) -> Result<Self> {
        let mut command = pinned(&server.program, core);
        let child = command.args(&server.arguments).stdout(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot start {}", server.program))?;
        // Constructed first, so that an error below ends the process.
        let mut process = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut address = String::new();
        let stdout = process.child.stdout.take().context("a server without output")?;
        BufReader::new(stdout).read_line(&mut address)?;
        let parsed = address.trim().parse();
        process.address =
            parsed.with_context(|| format!("{} printed {address:?} instead of its address", server.name))?;
        Ok(process)
    }

    /// CPU time of the process in user and system mode, to 10 ms.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        Process::Id(self.child.id()).cpu_seconds().context("no CPU time in /proc")
    }

    /// The time for which threads of the process were runnable but did not run, because others used the core. 0
    /// if the kernel does not count it.
    pub(crate) fn delayed_seconds(&self) -> f64 {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return 0.0 };
        let delay = |thread: fs::DirEntry| {
            let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedstat.split_ascii_whitespace().nth(1)?.parse::<f64>().ok()
        };
        threads.flatten().filter_map(delay).sum::<f64>() / 1e9
    }

    /// Counts the segments that the server has sent, in another thread, because `ss` takes some milliseconds.
    ///
    /// On loopback a write of up to 64 KiB is one segment, so this is the number of writes. If the client reads
    /// too slowly, writes share segments, and the number is a lower bound. The counter of system calls in
    /// `/proc/PID/io` leaves out `send`, which most servers use.
    pub(crate) fn segments(&self) -> JoinHandle<Option<Segments>> {
        let filter = format!("sport = :{}", self.address.port());
        thread::spawn(move || {
            let output = Command::new("ss").args(["-H", "-t", "-i", "-n", &filter]).output().ok()?;
            let at = Instant::now();
            let output = String::from_utf8(output.stdout).ok()?;
            let fields = output.split_ascii_whitespace();
            let counts = fields.filter_map(|field| field.strip_prefix("data_segs_out:")?.parse::<u64>().ok());
            Some(Segments { count: counts.sum(), at }).filter(|segments| segments.count > 0)
        })
    }
}

impl Segments {
    /// Segments a second since `earlier`.
    pub(crate) fn rate_since(self, earlier: Self) -> f64 {
        (self.count - earlier.count) as f64 / (self.at - earlier.at).as_secs_f64()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
