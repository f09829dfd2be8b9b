//! The log when nothing reads it.

use std::{
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use test_support::{Realm, TEST_TIMEOUT, eventually, wallet, wire::sign_in};

const DROPPED: &str = "atoll_log_lines_dropped_total";

/// Signs peers in until the pipe of the log and the queue before it are full, and then ten more.
async fn fill_log(realm: &Realm) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while realm.count(DROPPED).await == 0.0 {
        assert!(Instant::now() < deadline, "the log is not full");
        for _ in 0..10 {
            sign_in(realm, &wallet()).await;
        }
    }
    for _ in 0..10 {
        sign_in(realm, &wallet()).await;
    }
}

/// Ends the realm by SIGTERM, and returns its exit code.
async fn terminate(mut realm: Realm) -> Option<i32> {
    realm.signal("TERM");
    tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT).0.code()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_log_delays_neither_sign_ins_nor_the_end() {
    let realm = Realm::with_unread_log(&[("LOG__LEVEL", "trace")]);
    fill_log(&realm).await;
    assert_eq!(realm.get("/health/ready").await.status(), 200);
    assert_eq!(terminate(realm).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_reports_dropped_lines_once_it_is_read() {
    let mut realm = Realm::with_unread_log(&[("LOG__LEVEL", "trace")]);
    fill_log(&realm).await;
    let log = BufReader::new(realm.take_stderr());
    let read = tokio::task::spawn_blocking(move || {
        let lines: Vec<String> = log.lines().map(Result::unwrap).collect();
        lines
    });
    // At exit the queue is written before the process ends.
    assert_eq!(terminate(realm).await, Some(0));
    let lines = read.await.unwrap();
    let notices = lines.iter().filter(|line| line.contains("log lines were dropped"));
    let notices: Vec<serde_json::Value> =
        notices.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert!(notices[0]["fields"]["lines"].as_u64().unwrap() > 0, "{notices:?}");
    assert!(lines.iter().any(|line| line.contains("drained")), "the last lines are there");
    // No line is truncated.
    for line in &lines {
        serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_without_a_reader_ends_nothing() {
    let mut realm = Realm::with_unread_log(&[("LOG__LEVEL", "debug")]);
    drop(realm.take_stderr());
    for _ in 0..10 {
        sign_in(&realm, &wallet()).await;
    }
    eventually("the lost lines are counted", async || realm.count(DROPPED).await > 0.0).await;
    assert_eq!(realm.get("/health/ready").await.status(), 200);
    assert_eq!(terminate(realm).await, Some(0));
}
