//! `atoll bots` as a child process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::{Realm, TEST_TIMEOUT, realm::binary};

/// The bots end by themselves after so many seconds if the test run is killed.
const MAX_RUN_SECONDS: &str = "3600";

/// `atoll bots`, killed when dropped.
pub struct Bots {
    child: Child,
    lines: mpsc::UnboundedReceiver<Value>,
}

impl Bots {
    /// Starts so many bots with these flags. They spread over these gateways, and can compare with these
    /// directors.
    pub fn start(gateways: &[&Realm], directors: &[&Realm], count: usize, flags: &[&str]) -> Self {
        let urls = |realms: &[&Realm], url: fn(&Realm) -> &str| {
            realms.iter().map(|realm| url(realm)).collect::<Vec<_>>().join(",")
        };
        let (gateways, admins) = (urls(gateways, |realm| &realm.http), urls(directors, |realm| &realm.admin));
        let mut command = Command::new(binary());
        command
            .args(["bots", "--json", "--seconds", MAX_RUN_SECONDS, "--count", &count.to_string()])
            .args(["--url", &gateways, "--admin", &admins])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            let output = stdout.lines().map_while(Result::ok);
            output.filter_map(|text| serde_json::from_str(&text).ok()).try_for_each(|value| line.send(value))
        });
        Self { child, lines }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Makes the bots compare their assignments with the director's (SIGUSR1).
    pub async fn compare(&mut self) -> Value {
        self.signal("USR1");
        self.next().await
    }

    /// Ends the bots (SIGINT), and returns their summary.
    pub async fn end(&mut self) -> Value {
        self.signal("INT");
        self.next().await
    }

    async fn next(&mut self) -> Value {
        timeout(TEST_TIMEOUT, self.lines.recv()).await.expect("a line in time").expect("running bots")
    }
}

impl Drop for Bots {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
