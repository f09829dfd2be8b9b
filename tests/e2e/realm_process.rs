//! A realm in a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use identity::Wallet;

pub(crate) const SECRET: &str = "a secret of sixteen characters and more";

/// `atoll serve` on a free port, or a process of some roles (`--roles`); killed when dropped.
pub(crate) struct Realm {
    child: Child,
    log: Option<thread::JoinHandle<String>>,
    pub(crate) http: String,
    pub(crate) ws: String,
    /// The base URL of its metrics.
    pub(crate) metrics: String,
    /// The base URL of its admin endpoints; empty if no director runs.
    pub(crate) admin: String,
}

impl Realm {
    /// Starts a realm with the default settings, except for these (`SECTION__KEY`, value).
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::launch(&[], settings)
    }

    /// The same, with more flags.
    pub(crate) fn launch(flags: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::launch_at("127.0.0.1:0", flags, settings)
    }

    /// The same, at this address and port.
    pub(crate) fn launch_at(listen: &str, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        // A benchmark may measure another build.
        let binary = std::env::var("ATOLL_LOAD_BINARY");
        let binary = binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_atoll"));
        Self::spawn(Command::new(binary), listen, flags, settings)
    }

    /// The same, of another build: the binary at this path.
    pub(crate) fn launch_build(
        binary: &Path,
        listen: &str,
        flags: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        Self::spawn(Command::new(binary), listen, flags, settings)
    }

    /// Starts a realm with a limit of open files.
    pub(crate) fn with_files(files: u32, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_atoll")]);
        Self::spawn(command, "127.0.0.1:0", &[], settings)
    }

    /// Starts a realm that finds no CA certificates.
    pub(crate) fn without_certificates(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.env("SSL_CERT_FILE", "nowhere/bundle.pem").env("SSL_CERT_DIR", "nowhere");
        Self::spawn(command, "127.0.0.1:0", &[], settings)
    }

    /// Starts a realm with a standard error that nothing reads: [`Realm::take_stderr`] returns the
    /// pipe's other end.
    pub(crate) fn with_unread_log(settings: &[(&str, &str)]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        Self::spawn_unread(command, "127.0.0.1:0", &[], settings)
    }

    fn spawn(command: Command, listen: &str, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut realm = Self::spawn_unread(command, listen, flags, settings);
        realm.log = Some(read_all(realm.take_stderr()));
        realm
    }

    fn spawn_unread(mut command: Command, listen: &str, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        // The tests' HTTP client needs a provider, although it uses no TLS; only the first test can set
        // it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        command
            .args(["serve", "--listen", listen, "--log-format", "json"])
            .args(flags)
            .env("ATOLL__ROOMS__TOKEN_SECRETS", SECRET)
            .env("ATOLL__SERVER__ADMIN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (key, value) in settings {
            command.env(format!("ATOLL__{key}"), value);
        }
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let [http, ws, metrics, admin] = [const { String::new() }; 4];
        let mut realm = Self { child, log: None, http, ws, metrics, admin };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        // The banner lines of every process.
        realm.http = realm.banner_value("its URL", &mut lines, |line| {
            Some(line.split_once(" health ")?.1.trim().strip_suffix("/health/ready")?.to_owned())
        });
        realm.ws = realm.http.replacen("http", "ws", 1);
        realm.metrics = realm.banner_value("the URL of its metrics", &mut lines, |line| {
            Some(line.split_once(" metrics ")?.1.trim().strip_suffix("/metrics")?.to_owned())
        });
        let roles = flags.iter().skip_while(|&&flag| flag != "--roles").nth(1);
        if roles.is_none_or(|roles| roles.contains("director")) {
            realm.admin = realm.banner_value("the URL of its admin endpoints", &mut lines, |line| {
                Some(line.split_once("--admin ")?.1.to_owned())
            });
        }
        realm
    }

    /// The part of the banner that `pick` returns. If the process ends first, it panics with the
    /// process's log.
    fn banner_value(
        &mut self,
        label: &str,
        lines: &mut impl Iterator<Item = String>,
        pick: impl Fn(String) -> Option<String>,
    ) -> String {
        lines.find_map(pick).unwrap_or_else(|| {
            self.log = self.log.take().or_else(|| Some(read_all(self.take_stderr())));
            let (status, log) = self.wait(Duration::from_secs(10));
            panic!("the process did not print {label}, and ended with {status}: {log}")
        })
    }

    /// The reading end of the standard error, which no other reader has yet.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("nothing reads it yet")
    }

    /// The URL of the archipelago socket.
    pub(crate) fn socket(&self) -> String {
        format!("{}/archipelago/ws", self.ws)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.http)).await.unwrap()
    }

    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        self.get(path).await.json().await.unwrap()
    }

    /// The value of a metric that must exist.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.find_metric(name).await.unwrap_or_else(|| panic!("there is no metric {name}"))
    }

    /// The value of a counter; 0 if it has not counted yet.
    pub(crate) async fn count(&self, name: &str) -> f64 {
        self.find_metric(name).await.unwrap_or_default()
    }

    async fn find_metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// How many sockets `service` (gateway, rooms) has closed with this code.
    pub(crate) async fn closed(&self, service: &str, close: protocol::Close) -> f64 {
        self.count(&format!("atoll_{service}_closed_total{{code=\"{}\"}}", close.code())).await
    }

    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends a signal: `INT`, `TERM`, `STOP`, `CONT`, …
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the process to end by itself. Returns its status and its log.
    pub(crate) fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the process did not end in time"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        (status, self.log.take().map(|log| log.join().unwrap()).unwrap_or_default())
    }
}

fn read_all(mut stderr: ChildStderr) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    })
}

impl Drop for Realm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A wallet that no other test has.
pub(crate) fn wallet() -> Wallet {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Wallet::from_secret(secret).unwrap()
}

/// Polls until the condition holds, for at most ten seconds.
pub(crate) async fn eventually(label: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(10), label, holds).await;
}

/// Polls until the condition holds, for at most this long.
pub(crate) async fn within(limit: Duration, label: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {label}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
