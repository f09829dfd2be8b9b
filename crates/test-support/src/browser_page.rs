//! A page in Chromium.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use crate::workspace;

/// A page in a headless Chromium of its own, and the program that drives it (`tests/browser/drive.mjs`). Both end when
/// it is dropped.
pub struct BrowserPage {
    child: Child,
    results: mpsc::UnboundedReceiver<String>,
    _folder: TempDir,
}

/// The longest time of one call; the first one includes the start of the browser.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time for the browser to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl BrowserPage {
    /// Opens a page with this script of `tests/browser`. It finds the text of these files of `protocol` in the array
    /// `protos`.
    pub fn open(script: &str, protos: &[&str]) -> Self {
        let root = workspace::root();
        let folder = tempfile::tempdir().unwrap();
        for file in ["drive.mjs", script] {
            fs::copy(root.join("tests/browser").join(file), folder.path().join(file)).unwrap();
        }
        let modules = fs::canonicalize(root.join("target/tools/browser/node_modules"));
        let modules =
            modules.unwrap_or_else(|error| panic!("run scripts/needs: no packages for Chromium: {error}"));
        symlink(modules, folder.path().join("node_modules")).unwrap();
        let protos = protos.iter().map(|proto| fs::canonicalize(root.join("protocol").join(proto)).unwrap());
        let mut command = Command::new("node");
        command.arg("drive.mjs").arg(script).args(protos).current_dir(folder.path());
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("node: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, results) = mpsc::unbounded_channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, results, _folder: folder }
    }

    /// Calls a function of the page, and returns its result once it is there.
    ///
    /// # Panics
    /// If it throws, or does not return within a minute.
    pub async fn call(&mut self, function: &str, arguments: &[Value]) -> Value {
        let call: Vec<Value> = [function.into()].into_iter().chain(arguments.iter().cloned()).collect();
        writeln!(self.child.stdin.as_mut().unwrap(), "{}", Value::from(call)).unwrap();
        let result = timeout(CALL_TIMEOUT, self.results.recv()).await;
        let result = result.unwrap_or_else(|_| panic!("{function} does not return"));
        let result: Value =
            serde_json::from_str(&result.expect("the browser has ended: see its error above")).unwrap();
        assert!(result.get("error").is_none(), "{function}: {result}");
        result
    }
}

impl Drop for BrowserPage {
    fn drop(&mut self) {
        // Without input the program closes the browser, unless a function of the page still runs.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
