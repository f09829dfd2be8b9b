//! A TURN server as a child process.

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{free_address::free_ports, namespace::Namespace};

/// `turnserver` of coturn, which accepts users that are derived from [`TurnServer::SECRET`]; killed when dropped.
pub struct TurnServer {
    child: Child,
    address: SocketAddr,
    /// The folder with its log.
    folder: TempDir,
}

/// The longest time for the server to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A STUN binding request (RFC 8489, section 5): its type and length, the magic cookie, a transaction id.
const BINDING_REQUEST: &[u8; 20] = b"\x00\x01\x00\x00\x21\x12\xa4\x42atoll-probes";
/// The type of the response to it.
const BINDING_SUCCESS: &[u8; 2] = b"\x01\x01";

impl TurnServer {
    /// The secret that it shares with the issuer of its users.
    pub const SECRET: &str = "the secret of the TURN server";

    /// Starts a server on the loopback, with more flags.
    pub fn start_with(flags: &[&str]) -> Self {
        Self::spawn(None, Ipv4Addr::LOCALHOST.into(), flags)
    }

    /// Starts a server on the loopback.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server in a namespace that has this address.
    pub fn start_in(namespace: &Namespace, ip: impl Into<IpAddr>) -> Self {
        Self::start_in_with(namespace, ip, &[])
    }

    /// The same, with more flags.
    pub fn start_in_with(namespace: &Namespace, ip: impl Into<IpAddr>, flags: &[&str]) -> Self {
        Self::spawn(Some(namespace), ip.into(), flags)
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("turn:{}?transport=udp", self.address)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether its log has a line with all of these texts.
    pub fn has_logged(&self, texts: &[&str]) -> bool {
        self.log().lines().any(|line| texts.iter().all(|text| line.contains(text)))
    }

    fn spawn(namespace: Option<&Namespace>, ip: IpAddr, flags: &[&str]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let [port] = free_ports(1)[..] else { unreachable!("one port") };
            let folder = tempfile::tempdir().unwrap();
            let mut command = match namespace {
                Some(namespace) => namespace.command("turnserver"),
                None => Command::new("turnserver"),
            };
            let address = SocketAddr::new(ip, port);
            let child = spawn_process(&mut command, address, &folder, flags);
            let mut server = Self { child, address, folder };
            if server.answers(namespace) {
                return server;
            }
            eprintln!("{}", server.log());
        }
        panic!("turnserver does not start: see its log above");
    }

    /// Waits until it answers; `false` if it exits instead.
    fn answers(&mut self, namespace: Option<&Namespace>) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.child.try_wait().unwrap().is_none() {
            let address = self.address;
            let answered = thread::scope(|scope| {
                let probe = scope.spawn(|| {
                    if let Some(namespace) = namespace {
                        namespace.enter();
                    }
                    probe(address)
                });
                probe.join().unwrap()
            });
            if answered {
                return true;
            }
            assert!(Instant::now() < deadline, "turnserver does not answer: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_process(command: &mut Command, address: SocketAddr, folder: &TempDir, flags: &[&str]) -> Child {
    let file = |name: &str| folder.path().join(name).display().to_string();
    let log = File::create(file("log")).unwrap();
    let spawned = command
        // Without a configuration file.
        .args(["-n", "--log-file=stdout", "--simple-log", "--verbose"])
        .args(["--no-tls", "--no-dtls", "--no-cli", "--fingerprint", "--allow-loopback-peers"])
        .args(["--use-auth-secret", "--realm=atoll"])
        .arg(format!("--static-auth-secret={}", TurnServer::SECRET))
        .arg(format!("--listening-ip={}", address.ip()))
        .arg(format!("--relay-ip={}", address.ip()))
        .arg(format!("--listening-port={}", address.port()))
        .arg(format!("--pidfile={}", file("pid")))
        .arg(format!("--userdb={}", file("users")))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("turnserver is not on the PATH: scripts/needs installs the programs that tests need")
        }
        Err(error) => panic!("turnserver: {error}"),
    }
}

/// Whether a STUN server answers there.
fn probe(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut response = [0; 512];
    let received = socket.send_to(BINDING_REQUEST, address).and_then(|_| socket.recv(&mut response));
    received.is_ok() && response.starts_with(BINDING_SUCCESS)
}
