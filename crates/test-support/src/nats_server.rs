//! A NATS server as a child process.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::free_address;

/// `nats-server` on a free port of the loopback interface; killed when dropped.
pub struct NatsServer {
    /// `None` while it does not run.
    child: Option<Child>,
    port: u16,
    name: String,
    flags: Vec<String>,
    /// Environment variables that its configuration reads.
    environment: Vec<(String, String)>,
    /// The directory of JetStream, if it is enabled.
    store: Option<TempDir>,
}

/// The longest time for the server to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl NatsServer {
    /// Starts a server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more flags.
    pub fn start_with(flags: &[&str]) -> Self {
        Self::start_in(&[], flags)
    }

    /// Starts a server with more flags and these environment variables.
    pub fn start_in(environment: &[(&str, &str)], flags: &[&str]) -> Self {
        let name = next_name();
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let variable = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let environment: Vec<_> = environment.iter().map(variable).collect();
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let port = free_address().port();
            if let Some(child) = spawn_server(port, &name, &flags, &environment) {
                return Self { child: Some(child), port, name, flags, environment, store: None };
            }
        }
        panic!("nats-server does not start: see its log above");
    }

    /// Starts a server with JetStream.
    pub fn start_with_jetstream() -> Self {
        let store = tempfile::tempdir().unwrap();
        let mut server = Self::start_with(&jetstream_flags(&store));
        server.store = Some(store);
        server
    }

    /// A server with JetStream and more flags that does not run yet: [`NatsServer::restart`] starts it.
    pub(crate) fn plan_with_jetstream(port: u16, flags: &[&str]) -> Self {
        let store = tempfile::tempdir().unwrap();
        let flags = jetstream_flags(&store).iter().chain(flags).map(|&flag| flag.to_owned()).collect();
        let environment = Vec::new();
        Self { child: None, port, name: next_name(), flags, environment, store: Some(store) }
    }

    /// Its name in a cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its URL, with `user` and `@` before the host.
    pub fn url_as(&self, user: &str) -> String {
        format!("nats://{user}@127.0.0.1:{}", self.port)
    }

    /// Kills it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Deletes everything that JetStream stored. Only while the server is stopped.
    pub fn wipe_store(&self) {
        let folder = self.store.as_ref().unwrap().path();
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::create_dir(folder).unwrap();
    }

    /// Starts it again on the same port with the same flags.
    pub fn restart(&mut self) {
        self.stop();
        let child = spawn_server(self.port, &self.name, &self.flags, &self.environment);
        self.child = Some(child.expect("its port is still free"));
    }
}

fn jetstream_flags(store: &TempDir) -> [&str; 3] {
    ["--jetstream", "--store_dir", store.path().to_str().unwrap()]
}

fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("atoll-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a server and waits until it listens; `None` if it exits instead.
fn spawn_server(port: u16, name: &str, flags: &[String], environment: &[(String, String)]) -> Option<Child> {
    // Debian installs it in a directory that is not on every PATH.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let spawned = Command::new("nats-server")
        .env("PATH", path)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--name", name])
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("nats-server is not on the PATH: scripts/needs installs the programs that tests need")
        }
        Err(error) => panic!("nats-server: {error}"),
    };
    // It logs little. The pipe has to be read, and a failing test shows the log.
    let log = BufReader::new(child.stderr.take().unwrap());
    thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(info) = info(port) {
            // The server's first line has its name. With another name, another process has taken the port,
            // and ours exits.
            if info.contains(&format!("\"server_name\":\"{name}\"")) {
                return Some(child);
            }
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(Instant::now() < deadline, "nats-server does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first line that a server sends: its INFO.
fn info(port: u16) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}
