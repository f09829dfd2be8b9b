//! A rolling restart: every process of a realm is stopped and started again, one after the other, under
//! bots.
//!
//! `ATOLL_ROLLING_BOTS` is the number of bots (`make rolling`: 500; then the recovery times are strict
//! as well).

use std::time::{Duration, Instant};

use serde_json::Value;
use test_support::test_realm::{DIRECTORS, GATEWAYS, RECOVERY_LIMIT, ROOMS, TWO_HEARTBEATS, TestRealm};
use tokio::time::sleep;

/// The strict limit of the time without a session.
const WITHOUT_SESSION: Duration = Duration::from_secs(5);
/// The strict limits of the time without an island, and of its part after the new sign-in.
const WITHOUT_ISLAND: Duration = Duration::from_secs(6);
const BACK_IN_ISLAND: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rolling_restart_loses_no_session_and_no_island() {
    let wanted = std::env::var("ATOLL_ROLLING_BOTS").ok().and_then(|count| count.parse().ok());
    let bots: usize = wanted.unwrap_or(40);
    let mut realm = TestRealm::start_groups(bots, |_| {}).await;
    for name in DIRECTORS.into_iter().chain(ROOMS).chain(GATEWAYS).chain(["stats"]) {
        let began = Instant::now();
        realm.drain(name).await;
        let drained = began.elapsed();
        realm.restart(name).await;
        println!("{name:<12} ended after {drained:.1?}, ready after {:.1?}", began.elapsed());
        // An operator would check the realm here before the next process.
        sleep(TWO_HEARTBEATS).await;
    }
    let summary = realm.finish().await;
    print(&summary);
    let number = |name: &str| summary[name].as_u64().unwrap();
    // Both gateways closed all their sessions.
    assert!(number("reconnects") >= bots as u64, "{summary}");
    assert_eq!(summary["back_in_same_island"], summary["reconnects"], "{summary}");
    assert_eq!(summary["over_moves"]["overlapping"]["lost"], 0, "{summary}");
    for (label, soon) in [
        ("without_session_ms", WITHOUT_SESSION),
        ("without_island_ms", WITHOUT_ISLAND),
        ("back_in_island_ms", BACK_IN_ISLAND),
    ] {
        assert_eq!(summary[label]["samples"], summary["reconnects"], "{label}: {summary}");
        let longest = Duration::from_secs_f64(summary[label]["max"].as_f64().unwrap() / 1000.0);
        let allowed = if wanted.is_some() { soon } else { RECOVERY_LIMIT };
        assert!(longest <= allowed, "{label}: {longest:?}, of {allowed:?}");
    }
    if wanted.is_some() {
        assert_eq!(summary["convergence"]["converged"], true, "{summary}");
    }
}

pub(crate) fn print(summary: &Value) {
    for (name, label) in [
        ("bots", "bots"),
        ("sessions_failed", "sessions that failed"),
        ("reconnects", "sessions after the first"),
        ("without_session_ms", "without a session, ms"),
        ("without_island_ms", "from the end of one to the island, ms"),
        ("back_in_island_ms", "from the sign-in to the island, ms"),
        ("back_in_same_island", "of them in the same island"),
        ("moves_per_person", "moves of a bot"),
        ("most_moves_of_one", "moves of one bot, at most"),
        ("expected", "messages that had to arrive"),
        ("lost", "messages lost in a room"),
        ("over_moves", "messages lost over moves"),
        ("unheard", "times that a pair was near and unheard"),
        ("gateway_ends", "ends of sessions"),
        ("room_ends", "ends of room memberships"),
    ] {
        println!("{label:<40} {}", summary[name]);
    }
}
