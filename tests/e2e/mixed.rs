//! A realm of processes of two builds: a rolling restart that upgrades one half and downgrades the other, and back.
//!
//! `make mixed` builds another commit and runs this. `ATOLL_OTHER_BINARY` is the path of that build's binary,
//! `ATOLL_OTHER_COMMIT` the commit that its `/status` has to show, and `ATOLL_ROLLING_BOTS` the number of bots.

use std::{env, path::PathBuf, time::Instant};

use test_support::{
    Cluster,
    test_realm::{DIRECTORS, GATEWAYS, ROOMS, TWO_HEARTBEATS, TestRealm},
};
use tokio::time::sleep;

use crate::rolling_restart::print;

/// The processes that run the other build at first: one of each role that has two processes.
const OTHER_FIRST: [&str; 3] = [GATEWAYS[0], ROOMS[0], DIRECTORS[0]];

/// The other build.
struct Other {
    binary: PathBuf,
    /// Empty: not known.
    commit: String,
}

impl Other {
    fn from_environment() -> Self {
        let binary = env::var_os("ATOLL_OTHER_BINARY").expect("ATOLL_OTHER_BINARY: `make mixed` sets it");
        Self { binary: binary.into(), commit: env::var("ATOLL_OTHER_COMMIT").unwrap_or_default() }
    }

    /// Chooses the build that a process starts with next.
    fn choose(&self, cluster: &mut Cluster, name: &str, is_other: bool) {
        cluster.set_build(name, is_other.then(|| self.binary.clone()));
    }

    /// Checks that a process runs the build that it was started with.
    async fn check(&self, cluster: &Cluster, name: &str, is_other: bool) {
        let status = cluster[name].json("/status").await;
        if !self.commit.is_empty() {
            assert_eq!(status["commitHash"] == *self.commit, is_other, "{name}: {status}");
        }
    }
}

#[ignore = "needs the binary of another build: run `make mixed`"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mixed_builds_restart_both_ways_without_loss() {
    let other = Other::from_environment();
    let bots: usize = env::var("ATOLL_ROLLING_BOTS").map_or(40, |count| count.parse().unwrap());
    let mut realm = TestRealm::start_groups(bots, |cluster| {
        OTHER_FIRST.into_iter().for_each(|name| other.choose(cluster, name, true));
    })
    .await;
    // Whether a process runs the other build, before and after the builds are swapped.
    let is_other = |name: &str, swapped: bool| OTHER_FIRST.contains(&name) != swapped;
    // In the second pass each process returns to the build that it began with.
    for swapped in [true, false] {
        // The leader first: each pass hands over to a director of the build that the leader does not run.
        let leader = realm.leader().await;
        let standby = DIRECTORS.into_iter().find(|&name| name != leader).unwrap();
        for name in [leader, standby].into_iter().chain(ROOMS).chain(GATEWAYS).chain(["stats"]) {
            other.check(&realm.cluster, name, is_other(name, !swapped)).await;
            let began = Instant::now();
            realm.drain(name).await;
            let becomes_other = is_other(name, swapped);
            other.choose(&mut realm.cluster, name, becomes_other);
            realm.restart(name).await;
            other.check(&realm.cluster, name, becomes_other).await;
            let build = if becomes_other { "the other build" } else { "this build" };
            println!("{name:<12} runs {build} after {:.1?}", began.elapsed());
            sleep(TWO_HEARTBEATS).await;
        }
        realm.assert_converged().await;
    }
    let summary = realm.finish().await;
    print(&summary);
    // Both gateways restart twice, so each bot reconnects twice at least.
    assert!(summary["reconnects"].as_u64().unwrap() >= 2 * bots as u64, "{summary}");
    assert_eq!(summary["over_moves"]["overlapping"]["lost"], 0, "{summary}");
    assert_eq!(summary["unheard"], 0, "{summary}");
}
