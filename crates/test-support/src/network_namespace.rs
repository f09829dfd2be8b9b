//! Tests in a network namespace of their own, in which only the loopback interface is up.
//!
//! WebRTC gathers the addresses of every interface and may send to any of them. In a namespace it finds only
//! the loopback, ports never collide with those of another test, and no packet leaves the machine.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Marks the process that runs inside the namespace.
const MARKER: &str = "ATOLL_TEST_NAMESPACE";
/// The longest run of a test inside a namespace.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// Runs the calling test again, in a process in a network namespace of its own. Returns `true` there, and `false`
/// in the calling process once that run has passed. `test` is the full path of the test as its test program
/// lists it.
///
/// ```ignore
/// #[tokio::test]
/// async fn message_arrives() {
///     if !network_namespace::enter("delivery::message_arrives") {
///         return;
///     }
///     // The test, on the loopback of the namespace.
/// }
/// ```
///
/// The namespace also has process ids of its own, so that all processes of the test end with it.
///
/// # Panics
/// If the run fails, takes longer than three minutes, or runs no test, which is so when `test` is not its name.
/// Also where namespaces are not available: they need Linux, and either root or unprivileged user namespaces.
#[must_use]
pub fn enter(test: &str) -> bool {
    enter_within(TIME_LIMIT, test)
}

/// The same, for a test that may take this long.
#[must_use]
pub fn enter_within(limit: Duration, test: &str) -> bool {
    if env::var_os(MARKER).is_some() {
        return true;
    }
    let (mut child, output) = spawn(test);
    let deadline = Instant::now() + limit;
    let mut passed = false;
    loop {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                passed |= line.starts_with("test result: ok. 1 passed");
                println!("{line}");
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // Every process of the namespace ends with this one (`--kill-child`).
                let _ = child.kill();
                let _ = child.wait();
                panic!("{test} did not end within {limit:?} in its network namespace");
            }
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{test} failed in its network namespace ({status}): see above");
    assert!(passed, "no test ran in the network namespace: {test} is not the full path of the calling test");
    false
}

/// Starts the test in a namespace. The channel closes when both of its output streams have ended.
fn spawn(test: &str) -> (Child, mpsc::Receiver<String>) {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--net", "--pid", "--mount-proc", "--fork", "--kill-child"])
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(MARKER, "1")
        // `ip` is in a directory that is not on every PATH.
        .env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("there is no unshare: scripts/needs installs the programs that tests need (Linux only)")
        }
        Err(error) => panic!("unshare: {error}"),
    };
    let (lines, output) = mpsc::channel();
    forward(child.stdout.take().unwrap(), lines.clone());
    forward(child.stderr.take().unwrap(), lines);
    (child, output)
}

fn forward(stream: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        let read = BufReader::new(stream).lines().map_while(Result::ok);
        read.map(|line| lines.send(line)).find(Result::is_err)
    });
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
