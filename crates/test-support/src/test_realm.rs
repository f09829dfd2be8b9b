//! A realm of many processes, bots that walk in it, and observers that do not move.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep, timeout},
};

use crate::{
    Cluster, bots::Bots, eventually, free_address, measurement::strict_or_wide, observer::Observer, within,
};

/// The names of its gateways.
pub const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
/// The names of its directors.
pub const DIRECTORS: [&str; 2] = ["director-1", "director-2"];
/// The names of its room nodes.
pub const ROOMS: [&str; 2] = ["rooms-1", "rooms-2"];

/// Two heartbeats of observers and bots, and one second for their effects.
pub const TWO_HEARTBEATS: Duration = Duration::from_secs(3);
/// How long a recovery may take on a busy machine: several times as long as it should.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(12);
/// The number of bots in a group of [`TestRealm::start_groups`].
const GROUP: usize = 20;

/// The longest silence between members of one room while nothing happens to it.
pub fn max_silence() -> Duration {
    Duration::from_secs(strict_or_wide(2, 6))
}

/// Only one such realm runs at a time: each has many processes.
static EXCLUSIVE: Mutex<()> = Mutex::const_new(());

/// A realm of two gateways, two room nodes, two directors and presence, and bots that walk in it.
pub struct TestRealm {
    /// Its processes.
    pub cluster: Cluster,
    /// The bots that walk in it.
    pub bots: Bots,
    /// The number of positions in use so far.
    groups: u16,
    http: reqwest::Client,
    _turn: MutexGuard<'static, ()>,
}

impl TestRealm {
    /// Starts the realm with so many bots, which have these flags.
    pub async fn start(bots: usize, flags: &[&str]) -> Self {
        Self::start_on(bots, flags, |_| {}).await
    }

    /// The same, with a cluster that `prepare` changes before its first process starts.
    pub async fn start_on(bots: usize, flags: &[&str], prepare: impl FnOnce(&mut Cluster)) -> Self {
        let turn = EXCLUSIVE.lock().await;
        let mut cluster = Cluster::start(&[]);
        prepare(&mut cluster);
        for director in DIRECTORS {
            // A restarted director has the same admin address.
            cluster.run(director, "director", &[("SERVER__ADMIN", &free_address().to_string())]);
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
        let [gateways, directors] = [GATEWAYS, DIRECTORS].map(|names| names.map(|name| &cluster[name]));
        let bots = Bots::start(&gateways, &directors, bots, flags);
        let scene = Self { cluster, bots, groups: 0, http, _turn: turn };
        scene.leader().await;
        scene
    }

    /// Starts the realm with bots in groups that do not overlap, and waits until all have signed in, sent heartbeats and agree
    /// with the director. `prepare` is as in [`TestRealm::start_on`].
    pub async fn start_groups(bots: usize, prepare: impl FnOnce(&mut Cluster)) -> Self {
        let groups = bots.div_ceil(GROUP).to_string();
        let mut realm = Self::start_on(bots, &["--groups", &groups, "--hz", "5"], prepare).await;
        sleep(Duration::from_millis(bots as u64 * 5) + TWO_HEARTBEATS).await;
        realm.assert_converged().await;
        realm
    }

    /// Drains a process, and waits until it has ended.
    pub async fn drain(&mut self, name: &str) {
        self.cluster.terminate(name);
        let (status, log) = self.cluster.ended(name).await;
        assert!(status.success(), "{name} ended with {status}: {log}");
    }

    /// Restarts a process that has ended, and waits until all processes are ready and a director leads.
    pub async fn restart(&mut self, name: &str) {
        self.cluster.restart(name);
        self.cluster.ready().await;
        self.leader().await;
    }

    /// Starts four observers near each other, at a position not used before; two prefer each gateway.
    /// Returns when they share a room and receive each other.
    pub async fn add_group(&mut self) -> Vec<Observer> {
        let place = self.next_position();
        let mut group = Vec::new();
        for index in 0..4 {
            let mut gateways = GATEWAYS;
            gateways.rotate_left(index % 2);
            group.push(Observer::start(&self.cluster, &gateways, place + 5.0 * index as f32).await);
        }
        self.assert_mutual_delivery(&group).await;
        // Waits until no message about their joins is in flight.
        sleep(Duration::from_secs(1)).await;
        group
    }

    /// The x coordinate of a position that no observer has used, and where no bot walks.
    pub fn next_position(&mut self) -> f32 {
        self.groups += 1;
        5_000.0 + 500.0 * f32::from(self.groups)
    }

    /// Waits until all members of a group are in one island and receive each other.
    pub async fn assert_mutual_delivery(&self, group: &[Observer]) {
        let pause = Duration::from_millis(strict_or_wide(500, 2_000));
        within(Duration::from_secs(strict_or_wide(10, 30)), "all observers receive each other", async || {
            let (assignment, lately) =
                (group[0].last_assignment(), Instant::now() - pause - Duration::from_millis(100));
            let receives =
                |one: &Observer, other: &Observer| one.longest_silence(lately, other.address) < pause;
            assignment.is_some()
                && group.iter().all(|one| one.last_assignment() == assignment)
                && pairs(group).all(|(one, other)| receives(one, other))
        })
        .await;
    }

    /// The leader's assignments: islands by address.
    pub async fn assignments(&self) -> HashMap<String, String> {
        let leader = self.leader().await;
        let assignment = self.fetch_assignments(leader).await.expect("it leads");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assignment
            .iter()
            .map(|assignment| (text(&assignment["address"]), text(&assignment["island"])))
            .collect()
    }

    /// Waits for a leader, and returns its name.
    pub async fn leader(&self) -> &'static str {
        self.leader_among(&DIRECTORS).await
    }

    /// The same, among these directors.
    pub async fn leader_among(&self, directors: &[&'static str]) -> &'static str {
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

    /// Whether this director leads.
    pub async fn leads(&self, director: &str) -> bool {
        self.fetch_assignments(director).await.is_some()
    }

    async fn fetch_assignments(&self, director: &str) -> Option<Vec<Value>> {
        let url = format!("{}/assignments", self.cluster[director].admin);
        let answer = self.http.get(url).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// The number of messages of deposed directors that running processes have dropped.
    pub async fn deposed_messages_dropped(&self) -> f64 {
        let mut deposed = 0.0;
        for name in self.cluster.running() {
            let text = self.cluster[name].get("/metrics").await.text().await.unwrap();
            let counts = text.lines().filter_map(|line| line.strip_prefix("atoll_bus_deposed_total"));
            deposed += counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        deposed
    }

    /// Asserts the state that every failure must lead to: bots and observers are in the islands that
    /// the director assigned, and the observers receive each other.
    pub async fn assert_recovered(&mut self, group: &[Observer]) {
        self.assert_mutual_delivery(group).await;
        self.assert_converged().await;
        eventually("observers have the director's assignments", async || {
            let assignments = self.assignments().await;
            group.iter().all(|observer| {
                let assignment = observer.last_assignment().map(|(island, _)| island.to_string());
                assignment.is_some() && assignments.get(&observer.address.to_string()) == assignment.as_ref()
            })
        })
        .await;
    }

    /// Asserts that the bots have the director's assignments: at the first comparison in a measurement,
    /// otherwise after up to four. Each comparison waits for as long as a difference may last.
    pub async fn assert_converged(&mut self) {
        let mut found = Value::Null;
        for _ in 0..strict_or_wide(1, 4) {
            found = self.bots.compare().await;
            if found["converged"] == true {
                return;
            }
        }
        panic!("the bots do not have the director's assignments: {found}");
    }

    /// Ends the bots and asserts that no session and no room message was lost. Returns their summary.
    pub async fn finish(mut self) -> Value {
        self.assert_converged().await;
        let summary = self.bots.end().await;
        for nothing in ["lost", "disordered", "sessions_failed", "unheard_in_the_end", "absent"] {
            assert_eq!(summary[nothing], 0, "{nothing}: {summary}");
        }
        // Otherwise the comparison above is enough.
        if strict_or_wide(true, false) {
            assert_eq!(summary["convergence"]["converged"], true, "{summary}");
        }
        assert!(summary["expected"].as_u64().unwrap() > 100, "too few messages: {summary}");
        summary
    }
}

/// All ordered pairs of a group.
pub fn pairs(group: &[Observer]) -> impl Iterator<Item = (&Observer, &Observer)> {
    let others = |one: &Observer| {
        let address = one.address;
        group.iter().filter(move |other| other.address != address)
    };
    group.iter().flat_map(move |one| others(one).map(move |other| (one, other)))
}

/// Asserts that no assignment and no membership changed for a group since then.
pub fn assert_undisturbed(group: &[Observer], mark: Instant) {
    for observer in group {
        assert_eq!(observer.since(mark), [], "nothing changed for {}", observer.address);
    }
}

/// The longest time since then in which one member of a group did not receive another.
pub fn longest_silence(group: &[Observer], mark: Instant) -> Duration {
    pairs(group).map(|(one, other)| one.longest_silence(mark, other.address)).max().unwrap_or_default()
}

/// The maximum of assignment changes of one member of a group since then.
pub fn most_moves(group: &[Observer], mark: Instant) -> usize {
    group.iter().map(|observer| observer.moves_since(mark)).max().unwrap_or_default()
}

/// The distinct islands.
pub fn islands(assignments: &HashMap<String, String>) -> BTreeSet<String> {
    assignments.values().cloned().collect()
}
