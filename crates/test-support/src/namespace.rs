//! Network namespaces of the machines of a test, and the cables between them.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The network of one machine: a namespace in which only the loopback is up at first. Removed when dropped, once the
/// threads and processes in it have ended.
///
/// Tests create it inside [`crate::network_namespace::enter`], which grants the permission and ends all processes.
pub struct Namespace {
    /// A process that keeps the namespace.
    keeper: Child,
}

impl Namespace {
    /// A namespace without a connection to others.
    pub fn new() -> Self {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("unshare: {error}"));
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "no namespace: see the error above");
        Self { keeper }
    }

    /// Connects this machine to another. `own` and `other` are the addresses of the two ends, with the length of
    /// their prefix. Both ends have this name, at most 15 characters.
    pub fn connect(&self, name: &str, own: &str, to: &Self, other: &str) {
        let pid = to.keeper.id().to_string();
        self.run(&["ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", &pid]);
        for (namespace, address) in [(self, own), (to, other)] {
            namespace.run(&["ip", "address", "add", address, "dev", name]);
            namespace.run(&["ip", "link", "set", name, "up"]);
        }
    }

    /// Runs a command in the namespace to its end.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, command: &[&str]) {
        let [program, arguments @ ..] = command else { panic!("no command") };
        let status = self.command(program).args(arguments).status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }

    /// A command that runs in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Moves the calling thread into the namespace: it opens sockets there from then on, and so do the threads that it
    /// starts.
    pub fn enter(&self) {
        enter(&self.path());
    }

    /// A function that does the same as [`Self::enter`], for the threads of a runtime.
    pub fn entrance(&self) -> impl Fn() + Send + Sync + 'static {
        let path = self.path();
        move || enter(&path)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.keeper.id()).into()
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[cfg(target_os = "linux")]
fn enter(path: &std::path::Path) {
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    let file = std::fs::File::open(path).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn enter(path: &std::path::Path) {
    panic!("{}: only Linux has network namespaces", path.display());
}
