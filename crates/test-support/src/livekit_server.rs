//! A LiveKit server as a child process.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{free_address::free_ports, workspace};

/// `livekit-server` on free ports of the loopback interface; killed when dropped.
///
/// Its ICE candidates are on the loopback, and it names no STUN server. Tests with it run in a network
/// namespace ([`crate::network_namespace`]), because one of its media ports listens on all interfaces.
pub struct LiveKitServer {
    /// `None` while it does not run.
    child: Option<Child>,
    ports: Ports,
    options: LiveKitOptions,
    /// The folder with its configuration and its log.
    folder: TempDir,
}

/// The settings of a LiveKit server.
#[derive(Debug, Clone, Default)]
pub struct LiveKitOptions {
    /// Whether a participant creates the room that it joins, if there is none.
    pub auto_create: bool,
    /// The URLs that receive the server's events, signed with [`LiveKitServer::API_KEY`].
    pub webhooks: Vec<String>,
    /// Seconds after which a room that no participant has joined is closed; `None`: the default of the server.
    pub empty_timeout_s: Option<u32>,
    /// Seconds after which a room that its last participant has left is closed; `None`: the default of the
    /// server.
    pub departure_timeout_s: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    signalling: u16,
    udp: u16,
    tcp: u16,
}

/// The longest time for the server to start: it needs 1.2 s on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time for a graceful shutdown.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

impl LiveKitServer {
    /// The name of its API key.
    pub const API_KEY: &str = "devkey";
    /// The secret of that key, which signs tokens.
    pub const API_SECRET: &str = "a secret of at least thirty-two characters";

    /// Starts a server on which participants create the rooms that they join.
    pub fn start() -> Self {
        Self::start_with(LiveKitOptions { auto_create: true, ..LiveKitOptions::default() })
    }

    /// Starts a server with these settings.
    pub fn start_with(options: LiveKitOptions) -> Self {
        // Another process may take a port before the server does.
        for _ in 0..5 {
            let [signalling, udp, tcp] = free_ports(3)[..] else { unreachable!("three ports") };
            let (ports, folder) = (Ports { signalling, udp, tcp }, tempfile::tempdir().unwrap());
            let mut server = Self { child: None, ports, options: options.clone(), folder };
            if server.spawn() {
                return server;
            }
            eprintln!("{}", server.log());
        }
        panic!("livekit-server does not start: see its log above");
    }

    /// The URL that clients connect to.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address())
    }

    /// The URL of its API.
    pub fn http(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The address of its signalling and of its API.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.signalling).into()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Kills it at once: no participant is sent a message.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Shuts it down (SIGTERM), and waits until it has ended. It may wait for its participants to leave: a second
    /// signal makes it disconnect them.
    pub fn shut_down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let deadline = Instant::now() + STOP_TIMEOUT;
        for _ in 0..2 {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
            thread::sleep(Duration::from_millis(100));
        }
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("livekit-server did not end in time: {}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again, on the same ports and with the same settings. It has no rooms then.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.spawn(), "its ports are still free: {}", self.log());
    }

    /// Starts the process, and waits until it answers; `false` if it exits instead.
    fn spawn(&mut self) -> bool {
        let configuration = self.folder.path().join("livekit.yaml");
        fs::write(&configuration, self.configuration()).unwrap();
        let log = File::create(self.folder.path().join("log")).unwrap();
        let spawned = Command::new(binary())
            .arg("--config")
            .arg(configuration)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        let child = self.child.insert(spawned.unwrap_or_else(|error| panic!("livekit-server: {error}")));
        let deadline = Instant::now() + START_TIMEOUT;
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.signalling));
        loop {
            if child.try_wait().unwrap().is_some() {
                self.child = None;
                return false;
            }
            if answers(address) {
                return true;
            }
            assert!(Instant::now() < deadline, "livekit-server does not answer: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn configuration(&self) -> String {
        let Ports { signalling, udp, tcp } = self.ports;
        let (key, secret) = (Self::API_KEY, Self::API_SECRET);
        let LiveKitOptions { auto_create, webhooks, empty_timeout_s, departure_timeout_s } = &self.options;
        let mut text = format!(
            "port: {signalling}\n\
             bind_addresses: [127.0.0.1]\n\
             rtc:\n  udp_port: {udp}\n  tcp_port: {tcp}\n  node_ip: 127.0.0.1\n  use_external_ip: false\n  \
             enable_loopback_candidate: true\n  interfaces: {{ includes: [lo] }}\n\
             keys:\n  {key}: {secret}\n\
             logging: {{ level: info, json: false }}\n\
             room:\n  auto_create: {auto_create}\n"
        );
        let seconds = [("empty_timeout", empty_timeout_s), ("departure_timeout", departure_timeout_s)];
        for (name, value) in seconds {
            if let Some(value) = value {
                writeln!(text, "  {name}: {value}").unwrap();
            }
        }
        if !webhooks.is_empty() {
            // The list has the same form in YAML.
            writeln!(text, "webhook: {{ api_key: {key}, urls: {webhooks:?} }}").unwrap();
        }
        text
    }
}

impl Drop for LiveKitServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The installed binary.
fn binary() -> PathBuf {
    let binary = workspace::root().join("target/tools/bin/livekit-server");
    assert!(binary.exists(), "there is no {}: scripts/needs installs it", binary.display());
    binary
}

/// Whether a LiveKit server answers there: its response to a request of `/` is the text `OK`.
fn answers(address: SocketAddr) -> bool {
    let response = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: livekit\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    response().is_ok_and(|text| text.starts_with("HTTP/1.1 200") && text.ends_with("OK"))
}
