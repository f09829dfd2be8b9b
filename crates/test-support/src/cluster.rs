//! A realm with each role in a process of its own, on a NATS server of its own.
//!
//! ```ignore
//! let mut cluster = Cluster::start(&[("ISLANDS__FLUSH_INTERVAL_MS", "100")]);
//! for (name, roles) in [("gateway", "gateway"), ("rooms-1", "rooms"), ("one", "director"), ("two", "director")] {
//!     cluster.run(name, roles, &[]);
//! }
//! cluster.ready().await;
//! let wire = sign_in(&cluster["gateway"], &wallet()).await;
//! cluster.kill("one");
//! cluster.restart("one");
//! ```

use std::{collections::BTreeMap, ops::Index, path::PathBuf, process::ExitStatus, time::Duration};

use crate::{NatsServer, Realm, TEST_TIMEOUT, within};

/// The processes of one realm, by name, and a NATS server with JetStream. Dropping it ends all of them
/// and removes their files.
pub struct Cluster {
    processes: BTreeMap<String, Process>,
    /// The settings of every process.
    settings: Vec<(String, String)>,
    /// Binaries of other builds, by the name of the process that runs one.
    builds: BTreeMap<String, PathBuf>,
    /// The bus of the realm.
    pub nats: NatsServer,
}

struct Process {
    roles: String,
    /// Its listen address, fixed from its first start on.
    listen: String,
    settings: Vec<(String, String)>,
    /// `None`: it does not run now.
    realm: Option<Realm>,
}

impl Cluster {
    /// Starts a NATS server. Every process will have these settings (`SECTION__KEY`, value).
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::on(NatsServer::start_with_jetstream(), settings)
    }

    /// The same, on this NATS server.
    pub fn on(nats: NatsServer, settings: &[(&str, &str)]) -> Self {
        Self { processes: BTreeMap::new(), settings: owned(settings), builds: BTreeMap::new(), nats }
    }

    /// Starts a director, a room node and these gateways, and waits until they are ready.
    pub async fn with_gateways(gateways: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::start(settings);
        cluster.run("director", "director", &[]);
        cluster.run("rooms", "rooms", &[]);
        for gateway in gateways {
            cluster.run(gateway, "gateway", &[]);
        }
        cluster.ready().await;
        cluster
    }

    /// Starts a process of these roles on a free port, with these settings besides the common ones. A
    /// room node has the name of its process, unless the settings have another one.
    pub fn run(&mut self, name: &str, roles: &str, settings: &[(&str, &str)]) -> &Realm {
        self.run_at("127.0.0.1:0", name, roles, settings)
    }

    /// The same, at this address.
    pub fn run_at(&mut self, listen: &str, name: &str, roles: &str, settings: &[(&str, &str)]) -> &Realm {
        let bus = self.nats.url();
        let settings = [("ROOMS__NODE", name), ("BUS__URL", &bus)]
            .into_iter()
            .chain(self.settings.iter().map(|(key, value)| (&**key, &**value)))
            .chain(settings.iter().copied());
        let settings = owned(&settings.collect::<Vec<_>>());
        let process = Process { roles: roles.to_owned(), listen: listen.to_owned(), settings, realm: None };
        let is_duplicate = self.processes.insert(name.to_owned(), process).is_some();
        assert!(!is_duplicate, "{name} exists already");
        self.restart(name)
    }

    /// Starts a process again, at the same address and with the same settings. A running one is killed
    /// first.
    pub fn restart(&mut self, name: &str) -> &Realm {
        let build = self.builds.get(name).cloned();
        let process = self.process(name);
        process.realm = None;
        let settings: Vec<_> = process.settings.iter().map(|(key, value)| (&**key, &**value)).collect();
        let flags = ["--roles", &process.roles];
        let realm = match build {
            Some(binary) => Realm::launch_build(&binary, &process.listen, &flags, &settings),
            None => Realm::launch_at(&process.listen, &flags, &settings),
        };
        process.listen = realm.http.trim_start_matches("http://").to_owned();
        process.realm.insert(realm)
    }

    /// Chooses the build that a process runs from its next start on: the binary at this path, or this build.
    pub fn set_build(&mut self, name: &str, binary: Option<PathBuf>) {
        match binary {
            Some(binary) => self.builds.insert(name.to_owned(), binary),
            None => self.builds.remove(name),
        };
    }

    /// Kills a process without a drain (`kill -9`).
    pub fn kill(&mut self, name: &str) {
        let realm = self.process(name).realm.take();
        assert!(realm.is_some(), "{name} does not run");
    }

    /// Freezes a process (SIGSTOP) until it is thawed: it does nothing, and its sockets stay open.
    pub fn freeze(&self, name: &str) {
        self[name].signal("STOP");
    }

    /// Lets a frozen process continue (SIGCONT).
    pub fn thaw(&self, name: &str) {
        self[name].signal("CONT");
    }

    /// Makes a process drain (SIGTERM). [`Cluster::ended`] waits for its end.
    pub fn terminate(&self, name: &str) {
        self[name].signal("TERM");
    }

    /// Waits for a process to end by itself. Returns its status and its log.
    pub async fn ended(&mut self, name: &str) -> (ExitStatus, String) {
        let mut realm = self.process(name).realm.take().expect("a running process");
        tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT)).await.unwrap()
    }

    /// Waits until every running process is ready. Many processes that start at once take a while on a
    /// busy machine.
    pub async fn ready(&self) {
        for (name, process) in &self.processes {
            if let Some(realm) = &process.realm {
                let ready = async || realm.get("/health/ready").await.status() == 200;
                within(Duration::from_secs(30), &format!("{name} is ready"), ready).await;
            }
        }
    }

    /// The names of the running processes.
    pub fn running(&self) -> impl Iterator<Item = &str> {
        self.processes.iter().filter(|(_, process)| process.realm.is_some()).map(|(name, _)| &**name)
    }

    fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap_or_else(|| panic!("there is no process {name}"))
    }
}

impl Index<&str> for Cluster {
    type Output = Realm;

    fn index(&self, name: &str) -> &Realm {
        let process = self.processes.get(name).unwrap_or_else(|| panic!("there is no process {name}"));
        process.realm.as_ref().unwrap_or_else(|| panic!("{name} does not run"))
    }
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}
