//! Network namespaces of the machines of a test, and the cables between them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The network of one machine: a namespace in which only the loopback is up at first. Removed when dropped, once the
/// threads and processes in it have ended.
///
/// Tests create it inside [`crate::network_namespace::enter`], which grants the permission and ends all processes.
pub struct Namespace {
    /// A process in the namespace.
    pid: u32,
    /// The process that keeps the namespace, unless it existed before.
    keeper: Option<Child>,
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
        Self { pid: keeper.id(), keeper: Some(keeper) }
    }

    /// The namespace of the test process itself: that of [`crate::network_namespace::enter`].
    pub fn current() -> Self {
        Self { pid: std::process::id(), keeper: None }
    }

    /// Connects this machine to another. `own` and `other` are the addresses of the two ends, with the length of
    /// their prefix. Both ends have this name, at most 15 characters.
    pub fn connect(&self, name: &str, own: &str, to: &Self, other: &str) {
        let pid = to.pid.to_string();
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

    /// Makes this machine forward packets between its cables.
    pub fn forward_packets(&self) {
        self.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    }

    /// Counts the UDP datagrams of at least so many bytes, IP header included, that processes of this machine send from
    /// now on.
    pub fn count_datagrams(&self, min_bytes: u16) {
        self.run(&[
            "nft",
            &format!(
                "table ip counted {{
                set sent {{ type ipv4_addr; size 256; flags dynamic; counter; }}
                chain sending {{
                    type filter hook output priority filter;
                    meta l4proto udp meta length >= {min_bytes} update @sent {{ ip daddr }}
                }}
            }}"
            ),
        ]);
    }

    /// The datagrams counted so far, by destination address.
    pub fn datagrams_sent(&self) -> BTreeMap<Ipv4Addr, u64> {
        let output = self.command("nft").args(["list", "set", "ip", "counted", "sent"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let tokens: Vec<&str> = text.split_whitespace().collect();
        let count = |element: &[&str]| match *element {
            [address, "counter", "packets", count] => Some((address.parse().ok()?, count.parse().ok()?)),
            _ => None,
        };
        tokens.windows(4).filter_map(count).collect()
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
        format!("/proc/{}/ns/net", self.pid).into()
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
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
