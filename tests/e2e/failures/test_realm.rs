//! A realm of many processes, people who walk in it, and people who stand and watch.

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Mutex, MutexGuard, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{observer::Observer, strict_or_wide};
use crate::{
    cluster::Cluster,
    realm_process::{eventually, within},
    wire::TEST_TIMEOUT,
};

pub(crate) const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
pub(crate) const DIRECTORS: [&str; 2] = ["director-1", "director-2"];
pub(crate) const ROOMS: [&str; 2] = ["rooms-1", "rooms-2"];

/// Two heartbeats of those who stand and of bots, and a second for what follows.
pub(crate) const TWO_HEARTBEATS: Duration = Duration::from_secs(3);
/// How long anything may take on a machine that is busy: several times as long as it should.
pub(crate) const RECOVERY_LIMIT: Duration = Duration::from_secs(12);
/// When bots end if nobody ends them, as nobody does where a run of the tests is killed.
const MAX_RUN_SECONDS: &str = "3600";

/// How long people of one room may not hear each other while nothing happens to it.
pub(crate) fn max_silence() -> Duration {
    Duration::from_secs(strict_or_wide(2, 6))
}

/// Many processes at a time are enough.
static EXCLUSIVE: Mutex<()> = Mutex::const_new(());

/// A realm of two gateways, two room nodes, two directors and presence, and bots that walk in it.
pub(crate) struct TestRealm {
    pub(crate) cluster: Cluster,
    pub(crate) bots: Bots,
    /// Groups that have stood somewhere.
    groups: u16,
    http: reqwest::Client,
    _turn: MutexGuard<'static, ()>,
}

impl TestRealm {
    /// With so many bots, and these flags of theirs.
    pub(crate) async fn start(bots: usize, flags: &[&str]) -> Self {
        let turn = EXCLUSIVE.lock().await;
        let mut cluster = Cluster::start(&[]);
        for director in DIRECTORS {
            // Whoever is started again answers where it did.
            cluster.run(director, "director", &[("SERVER__ADMIN", &free_address())]);
        }
        for (names, role) in [(GATEWAYS, "gateway"), (ROOMS, "rooms")] {
            for name in names {
                cluster.run(name, role, &[]);
            }
        }
        cluster.run("stats", "stats", &[]);
        cluster.ready().await;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_millis(strict_or_wide(500, 2_000)))
            .build()
            .unwrap();
        let bots = Bots::start(&cluster, bots, flags);
        let scene = Self { cluster, bots, groups: 0, http, _turn: turn };
        scene.leader().await;
        scene
    }

    /// Four people who stand together, where nobody has stood before: two went to each gateway. They
    /// have met, and hear each other.
    pub(crate) async fn add_group(&mut self) -> Vec<Observer> {
        let place = self.next_position();
        let mut group = Vec::new();
        for index in 0..4 {
            let mut gateways = GATEWAYS;
            gateways.rotate_left(index % 2);
            group.push(Observer::start(&self.cluster, &gateways, place + 5.0 * index as f32).await);
        }
        self.assert_mutual_delivery(&group).await;
        // Until nothing of their coming is under way any more.
        sleep(Duration::from_secs(1)).await;
        group
    }

    /// Where nobody has stood before, and no bot walks.
    pub(crate) fn next_position(&mut self) -> f32 {
        self.groups += 1;
        5_000.0 + 500.0 * f32::from(self.groups)
    }

    /// Waits until everybody of a group is in one island and hears everybody else.
    pub(crate) async fn assert_mutual_delivery(&self, group: &[Observer]) {
        let pause = Duration::from_millis(strict_or_wide(500, 2_000));
        within(Duration::from_secs(strict_or_wide(10, 30)), "they hear each other", async || {
            let (told, lately) =
                (group[0].last_assignment(), Instant::now() - pause - Duration::from_millis(100));
            let hears = |one: &Observer, other: &Observer| one.longest_silence(lately, other.address) < pause;
            told.is_some()
                && group.iter().all(|one| one.last_assignment() == told)
                && pairs(group).all(|(one, other)| hears(one, other))
        })
        .await;
    }

    /// What the director that leads told everybody: their islands, by address.
    pub(crate) async fn assignments(&self) -> HashMap<String, String> {
        let leader = self.leader().await;
        let told = self.fetch_assignments(leader).await.expect("it leads");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        told.iter().map(|told| (text(&told["address"]), text(&told["island"]))).collect()
    }

    /// The director that leads, once there is one.
    pub(crate) async fn leader(&self) -> &'static str {
        self.leader_among(&DIRECTORS).await
    }

    /// The same, of these.
    pub(crate) async fn leader_among(&self, directors: &[&'static str]) -> &'static str {
        let leader = async {
            loop {
                for &director in directors {
                    if self.cluster.running().any(|name| name == director) && self.leads(director).await {
                        return director;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(2 * RECOVERY_LIMIT, leader).await.expect("a leader in time")
    }

    pub(crate) async fn leads(&self, director: &str) -> bool {
        self.fetch_assignments(director).await.is_some()
    }

    async fn fetch_assignments(&self, director: &str) -> Option<Vec<Value>> {
        let url = format!("{}/assignments", self.cluster[director].admin);
        let answer = self.http.get(url).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// How many messages of directors that did not lead any more were dropped, by processes that run.
    pub(crate) async fn deposed_messages_dropped(&self) -> f64 {
        let mut deposed = 0.0;
        for name in self.cluster.running() {
            let text = self.cluster[name].get("/metrics").await.text().await.unwrap();
            let counts = text.lines().filter_map(|line| line.strip_prefix("atoll_bus_deposed_total"));
            deposed += counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        deposed
    }

    /// What has to hold a while after every failure: everybody is where the director has them, and
    /// those who stand hear each other.
    pub(crate) async fn assert_recovered(&mut self, group: &[Observer]) {
        self.assert_mutual_delivery(group).await;
        self.assert_converged().await;
        eventually("those who stand are where the director has them", async || {
            let assignments = self.assignments().await;
            group.iter().all(|witness| {
                let told = witness.last_assignment().map(|(island, _)| island.to_string());
                told.is_some() && assignments.get(&witness.address.to_string()) == told.as_ref()
            })
        })
        .await;
    }

    /// Bots come to where the director has them: at the first look where somebody measures, else after
    /// some. Each gives them the time that it may take.
    pub(crate) async fn assert_converged(&mut self) {
        let mut found = Value::Null;
        for _ in 0..strict_or_wide(1, 4) {
            found = self.bots.compare().await;
            if found["converged"] == true {
                return;
            }
        }
        panic!("they are not where the director has them: {found}");
    }

    /// What has to hold in the end: nobody was lost, and nothing that was said in a room.
    pub(crate) async fn finish(mut self) -> Value {
        self.assert_converged().await;
        let summary = self.bots.end().await;
        for nothing in ["lost", "disordered", "sessions_failed", "unheard_in_the_end", "absent"] {
            assert_eq!(summary[nothing], 0, "{nothing}: {summary}");
        }
        // Just now they were, if not at the first look.
        if strict_or_wide(true, false) {
            assert_eq!(summary["convergence"]["converged"], true, "{summary}");
        }
        assert!(summary["expected"].as_u64().unwrap() > 100, "they talked: {summary}");
        summary
    }
}

/// Every two of a group, in both orders.
pub(crate) fn pairs(group: &[Observer]) -> impl Iterator<Item = (&Observer, &Observer)> {
    let others = |one: &Observer| {
        let address = one.address;
        group.iter().filter(move |other| other.address != address)
    };
    group.iter().flat_map(move |one| others(one).map(move |other| (one, other)))
}

/// Nobody of a group was told anything since then, and nothing changed in their room.
pub(crate) fn assert_undisturbed(group: &[Observer], mark: Instant) {
    for witness in group {
        assert_eq!(witness.since(mark), [], "nothing changed for {}", witness.address);
    }
}

/// The longest time since then in which one of a group did not hear another.
pub(crate) fn longest_silence(group: &[Observer], mark: Instant) -> Duration {
    pairs(group).map(|(one, other)| one.longest_silence(mark, other.address)).max().unwrap_or_default()
}

/// The most changes of island of which one of a group was told since then.
pub(crate) fn most_moves(group: &[Observer], mark: Instant) -> usize {
    group.iter().map(|witness| witness.moves_since(mark)).max().unwrap_or_default()
}

/// Different islands.
pub(crate) fn islands(assignments: &HashMap<String, String>) -> BTreeSet<String> {
    assignments.values().cloned().collect()
}

/// A free address of the loopback; somebody else may take it before it is used.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// `atoll bots`, until it is dropped.
pub(crate) struct Bots {
    child: Child,
    lines: mpsc::UnboundedReceiver<Value>,
}

impl Bots {
    fn start(cluster: &Cluster, count: usize, flags: &[&str]) -> Self {
        let urls = |names: [&str; 2], url: fn(&crate::realm_process::Realm) -> &str| {
            names.map(|name| url(&cluster[name])).join(",")
        };
        let (gateways, admins) = (urls(GATEWAYS, |realm| &realm.http), urls(DIRECTORS, |realm| &realm.admin));
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
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
            let said = stdout.lines().map_while(Result::ok);
            said.filter_map(|text| serde_json::from_str(&text).ok()).try_for_each(|value| line.send(value))
        });
        Self { child, lines }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Has them compare where they are with what the director says.
    pub(crate) async fn compare(&mut self) -> Value {
        self.signal("USR1");
        self.next().await
    }

    /// Ends them, and gives their summary.
    pub(crate) async fn end(&mut self) -> Value {
        self.signal("INT");
        self.next().await
    }

    async fn next(&mut self) -> Value {
        timeout(TEST_TIMEOUT, self.lines.recv()).await.expect("in time").expect("bots that run")
    }
}

impl Drop for Bots {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
