//! A realm in a process of its own.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The secret with which realms of tests sign tokens (`rooms.token_secrets`).
pub const SECRET: &str = "a secret of sixteen characters and more";

/// `atoll serve` on a free port, or a process of some roles (`--roles`); killed when dropped.
pub struct Realm {
    child: Child,
    log: Option<thread::JoinHandle<String>>,
    /// Its base URL.
    pub http: String,
    /// The same with the scheme `ws`.
    pub ws: String,
    /// The base URL of its metrics.
    pub metrics: String,
    /// The base URL of its admin endpoints; empty if no director runs.
    pub admin: String,
}

impl Realm {
    /// Starts a realm with the default settings, except for these (`SECTION__KEY`, value).
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::launch(&[], settings)
    }

    /// The same, with more flags.
    pub fn launch(flags: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::launch_at("127.0.0.1:0", flags, settings)
    }

    /// The same, at this address and port.
    pub fn launch_at(listen: &str, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        // A benchmark may measure another build.
        let binary = env::var_os("ATOLL_LOAD_BINARY").map_or_else(binary, PathBuf::from);
        Self::spawn(Command::new(binary), listen, flags, settings)
    }

    /// The same, of another build: the binary at this path.
    pub fn launch_build(binary: &Path, listen: &str, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(binary), listen, flags, settings)
    }

    /// Starts a realm with a limit of open files.
    pub fn with_files(files: u32, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary());
        Self::spawn(command, "127.0.0.1:0", &[], settings)
    }

    /// Starts a realm that finds no CA certificates.
    pub fn without_certificates(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command.env("SSL_CERT_FILE", "nowhere/bundle.pem").env("SSL_CERT_DIR", "nowhere");
        Self::spawn(command, "127.0.0.1:0", &[], settings)
    }

    /// Starts a realm with a standard error that nothing reads: [`Realm::take_stderr`] returns the
    /// pipe's other end.
    pub fn with_unread_log(settings: &[(&str, &str)]) -> Self {
        let command = Command::new(binary());
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
    pub fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("nothing reads it yet")
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The URL of the archipelago socket.
    pub fn socket(&self) -> String {
        format!("{}/archipelago/ws", self.ws)
    }

    /// The response to a GET of this path.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.http)).await.unwrap()
    }

    /// The JSON at this path.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        self.get(path).await.json().await.unwrap()
    }

    /// The value of a metric that must exist.
    pub async fn metric(&self, name: &str) -> f64 {
        self.find_metric(name).await.unwrap_or_else(|| panic!("there is no metric {name}"))
    }

    /// The value of a counter; 0 if it has not counted yet.
    pub async fn count(&self, name: &str) -> f64 {
        self.find_metric(name).await.unwrap_or_default()
    }

    async fn find_metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// How many sockets `service` (gateway, rooms) has closed with this code.
    pub async fn closed(&self, service: &str, close: protocol::Close) -> f64 {
        self.count(&format!("atoll_{service}_closed_total{{code=\"{}\"}}", close.code())).await
    }

    /// Makes it drain (SIGINT).
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends a signal: `INT`, `TERM`, `STOP`, `CONT`, …
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the process to end by itself. Returns its status and its log.
    pub fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
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

/// The binary `atoll` of this build. Cargo puts test programs into the folder `deps` beside it, and builds it
/// before the integration tests of its crate; only these know its path when they are compiled.
pub(crate) fn binary() -> PathBuf {
    let test = env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join("atoll");
    assert!(binary.exists(), "{}: only tests of the crate atoll start realms", binary.display());
    binary
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
