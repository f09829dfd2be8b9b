//! The binary's command line: bots, signals, errors, printed settings.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
};

use protocol::Close;
use test_support::{
    Realm, TEST_TIMEOUT, eventually, wallet,
    wire::{enter, sign_in},
};

pub(crate) fn atoll(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_atoll")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_meet_and_receive_each_other() {
    let realm = Realm::start(&[]);
    let url = realm.http.clone();
    let run = move || atoll(&["bots", "--count", "20", "--seconds", "15", "--json", "--url", &url]);
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    let summary: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
    assert_eq!(code, Some(0), "{summary}\n{stderr}");
    assert_eq!((&summary["lost"], &summary["unheard"]), (&0.into(), &0.into()));
    // The bots met and exchanged messages.
    assert!(summary["near_pairs"].as_u64().unwrap() > 0, "{summary}");
    assert!(summary["expected"].as_u64().unwrap() > 1_000, "{summary}");
    assert!(stderr.contains("heartbeat to island"), "progress lines: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_of_both_dialects_receive_each_other() {
    let realm = Realm::start(&[]);
    let url = realm.http.clone();
    let flags = ["bots", "--dialect", "mixed", "--count", "10", "--still", "--seconds", "10", "--json"];
    let run = move || atoll(&[&flags[..], &["--url", &url]].concat());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    let summary: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
    assert_eq!(code, Some(0), "{summary}\n{stderr}");
    // All bots are in one island, independent of the dialect.
    assert_eq!((&summary["people"], &summary["islands"]), (&10.into(), &1.into()), "{summary}");
    assert_eq!(summary["near_pairs"], 45, "{summary}");
    assert!(summary["expected"].as_u64().unwrap() > 3_000, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_load_is_counted_and_timed() {
    let run_load = async |realm: &Realm| {
        let url = realm.http.clone();
        let flags = ["bots", "--login-storm", "50", "--seconds", "2", "--dialect", "mixed", "--json"];
        let run = move || atoll(&[&flags[..], &["--url", &url]].concat());
        let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
        let summary: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
        (code, summary, stderr)
    };
    // Each sign-in has a source address of its own; one address could have only one handshake.
    let realm = Realm::start(&[("GATEWAY__MAX_HANDSHAKES_PER_IP", "1")]);
    let (code, summary, stderr) = run_load(&realm).await;
    assert_eq!(code, Some(0), "{summary}\n{stderr}");
    let counts = ["offered", "signed_in", "refused"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [100, 100, 0], "{summary}");
    assert_eq!(summary["latency_ms"]["samples"], 100, "{summary}");
    assert!(summary["server_cpu_us_each"].as_f64().unwrap() > 0.0, "{summary}");
    eventually("all sessions end", async || realm.metric("explorer_bff_connected_users").await == 0.0).await;
    assert_eq!(realm.count("atoll_auth_chains_total{outcome=\"valid\"}").await, 100.0);
    // A gateway that is full all the time.
    let realm = Realm::start(&[("GATEWAY__MAX_SESSIONS", "1")]);
    let _only = sign_in(&realm, &wallet()).await;
    let (code, summary, _) = run_load(&realm).await;
    assert_eq!((code, &summary["refused"]), (Some(1), &100.into()), "{summary}");
    assert_eq!(summary["refused_by_reason"], serde_json::json!({"server full (1013)": 100}));
    let (code, _, stderr) = atoll(&["bots", "--login-storm", "50"]);
    assert_eq!(code, Some(2), "--seconds is missing: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_bots_account_for_every_message() {
    let carry = async |realm: &Realm, rate: &str| {
        let url = realm.http.clone();
        let flags = ["bots", "--topics", rate, "--count", "5", "--seconds", "2", "--json", "--url", &url];
        let flags = flags.map(str::to_owned);
        let run = move || atoll(&flags.each_ref().map(String::as_str));
        let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
        let summary: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
        (code, summary, stderr)
    };
    let realm = Realm::start(&[]);
    let (code, summary, stderr) = carry(&realm, "40").await;
    assert_eq!(code, Some(0), "{summary}\n{stderr}");
    let counts = ["sent", "delivered", "missed", "lost", "out_of_order"].map(|name| summary[name].as_u64());
    // 40 per second for two seconds, and the end marker.
    assert_eq!(counts, [81, 405, 0, 0, 0].map(Some), "{summary}");
    // A backlog of one message overflows; dropped messages are reported as missed, and not lost.
    let realm = Realm::start(&[("GATEWAY__SUBSCRIPTION_BUFFER", "1")]);
    let (code, summary, stderr) = carry(&realm, "400").await;
    assert_eq!(code, Some(0), "{summary}\n{stderr}");
    let [sent, delivered, missed] =
        ["sent", "delivered", "missed"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(delivered + missed, sent * 5, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_compare_assignments_at_the_end_and_on_sigusr1() {
    let realm = Realm::start(&[]);
    let admin = format!("http://127.0.0.1:9,{}", realm.admin);
    let flags = ["bots", "--count", "4", "--still", "--seconds", "6", "--json", "--url", &realm.http];
    let mut bots = Command::new(env!("CARGO_BIN_EXE_atoll"));
    let bots = bots.args(flags).args(["--admin", &admin]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("all bots are assigned", async || fetch_assignments(&realm).await.len() == 4).await;
    let pid = bots.id().to_string();
    assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || bots.wait_with_output()).await.unwrap().unwrap();
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let [on_signal, summary] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(output.status.code(), Some(0), "{lines:?}");
    assert_eq!((&on_signal["converged"], &on_signal["differ"]), (&true.into(), &0.into()));
    assert_eq!(summary["convergence"]["converged"], true, "{summary}");
    assert_eq!((&summary["sessions_failed"], &summary["reconnects"]), (&0.into(), &0.into()));
    // The director of another realm has no assignments for them.
    let other_realm = Realm::start(&[]);
    let flags = [&flags[..], &["--admin", &other_realm.admin]].concat();
    let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    let run = move || atoll(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, stdout, _) = tokio::task::spawn_blocking(run).await.unwrap();
    let summary: serde_json::Value = serde_json::from_str(stdout.trim()).unwrap();
    assert_eq!(code, Some(1), "{summary}");
    let found = &summary["convergence"];
    assert_eq!((&found["converged"], &found["differ"]), (&false.into(), &4.into()), "{summary}");
    assert!(found["who"][0]["director"].is_null() && found["who"][0]["bot"].is_string(), "{summary}");
}

/// The director's assignments.
async fn fetch_assignments(realm: &Realm) -> Vec<serde_json::Value> {
    let assignments = reqwest::get(format!("{}/assignments", realm.admin)).await.unwrap();
    if assignments.status() == 503 {
        // At its start the director does not know yet that it leads.
        return Vec::new();
    }
    let assignments: Vec<serde_json::Value> = assignments.json().await.unwrap();
    for assignment in &assignments {
        assert_eq!(assignment["node"], "rooms-1", "{assignment}");
        assert!(assignment["session"].is_string() && assignment["island"].is_string(), "{assignment}");
    }
    assignments
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_fail_when_near_pairs_are_unheard() {
    // Rooms with one seat: the other bots are near, and unheard.
    let realm = Realm::start(&[
        ("ROOMS__MAX_USERS", "1"),
        ("ROOMS__MAX_ISLAND_SIZE", "1"),
        ("ROOMS__MAX_ROOM_SIZE", "1"),
    ]);
    let url = realm.http.clone();
    let run = move || atoll(&["bots", "--count", "3", "--still", "--seconds", "6", "--json", "--url", &url]);
    let (code, stdout, _) = tokio::task::spawn_blocking(run).await.unwrap();
    let summary: serde_json::Value = serde_json::from_str(stdout.trim()).unwrap();
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["unheard"], 3, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_closes_all_sockets_and_exits_0() {
    let mut realm = Realm::start(&[]);
    let (mut wire, mut room, _) = enter(&realm, &wallet(), 0.0).await;
    let mut other = sign_in(&realm, &wallet()).await;
    realm.interrupt();
    for socket in [&mut wire, &mut room, &mut other] {
        let (close, reason) = socket.closed().await;
        assert_eq!((close, reason.as_str()), (Close::Restarting, "server restarting"));
        assert!(close.should_reconnect());
    }
    let (status, log) = tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("drained"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_ends_although_sockets_stay_open() {
    let mut realm = Realm::start(&[("SERVER__DRAIN_TIMEOUT_S", "1")]);
    let _deaf = enter(&realm, &wallet(), 0.0).await;
    realm.interrupt();
    let (status, log) = tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("sockets were left open"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_contains_no_token_and_no_auth_chain() {
    let mut realm = Realm::start(&[("LOG__LEVEL", "trace")]);
    let wallet = wallet();
    let (mut wire, room, _) = enter(&realm, &wallet, 0.0).await;
    wire.send_auth_chain(wallet.sign_challenge("dcl-not-a-challenge")).await;
    wire.closed().await;
    drop(room);
    eventually("the membership ends", async || realm.metric("dcl_ws_rooms_connections").await == 0.0).await;
    realm.interrupt();
    let (_, log) = tokio::task::spawn_blocking(move || realm.wait(TEST_TIMEOUT)).await.unwrap();
    assert!(log.contains(&wallet.address().to_string()), "spans carry the peer");
    // A JWT starts with base64 of `{"`; an auth chain has the kind of a link; a challenge starts with
    // `dcl-`.
    for secret in ["eyJ", "SIGNER", "dcl-", "access_token="] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} in the log");
    }
}

#[test]
fn invalid_configuration_is_refused_before_binding() {
    let (code, stdout, stderr) = atoll(&["serve", "--listen", "nowhere", "--log-format", "xml"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    for part in ["server.listen = nowhere", "log.format = xml", "2 problem(s)"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn non_utf8_variable_is_refused_only_with_our_prefix() {
    let with = |name: &[u8], value: &[u8]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        let output = command.arg("config").env(OsStr::from_bytes(name), OsStr::from_bytes(value)).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for name in [&b"LEGACY"[..], b"LEG\xe9", b"\xff"] {
        assert_eq!(with(name, b"caf\xe9"), (Some(0), String::new()));
    }
    let (code, stderr) = with(b"ATOLL__REALM__NAME", b"caf\xe9");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the environment variable ATOLL__REALM__NAME is not UTF-8"), "{stderr}");
    assert!(!stderr.contains("caf"), "the value may be a secret: {stderr}");
    let (code, stderr) = with(b"ATOLL__REALM__N\xe4ME", b"cafe");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("ATOLL__REALM__N\u{fffd}ME is not UTF-8"), "{stderr}");
}

#[test]
fn port_in_use_is_named_in_the_error() {
    let realm = Realm::start(&[]);
    let address = realm.http.trim_start_matches("http://");
    let (code, _, stderr) = atoll(&["serve", "--listen", address]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(address), "{stderr}");
}

#[test]
fn bots_without_a_realm_fail_with_the_url() {
    let (code, _, stderr) = atoll(&["bots", "--url", "http://127.0.0.1:9", "--seconds", "1"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("http://127.0.0.1:9/about"), "{stderr}");
}

#[test]
fn secrets_are_not_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_atoll"))
        .arg("config")
        .env("ATOLL__ROOMS__TOKEN_SECRETS", "a secret of sixteen characters")
        .env("ATOLL__P2P__TURN", "turn:turn.example")
        .env("ATOLL__P2P__TURN_SECRET", "sixteen")
        .env("ATOLL__IDENTITY__ETHEREUM_RPC_URL", "https://node.example/v3/sixteen")
        .env("ATOLL__LIVEKIT__MAIN__URL", "wss://lk.example")
        .env("ATOLL__LIVEKIT__MAIN__API_KEY", "a key")
        .env("ATOLL__LIVEKIT__MAIN__API_SECRET", "sixteen")
        .env("ATOLL__BUS__URL", "nats://user:sixteen@host:4222")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "[bus]\nurl = \"(hidden)\"",
        "token_secrets = \"(hidden)\"",
        "turn_secret = \"(hidden)\"",
        "[livekit.main]",
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
    assert!(text.contains("api_key = \"a key\"\napi_secret = \"(hidden)\""), "{text}");
    assert!(!text.contains("sixteen"));
}

#[test]
fn transport_problems_are_listed_without_secrets() {
    let output = Command::new(env!("CARGO_BIN_EXE_atoll"))
        .arg("serve")
        .env("ATOLL__LIVEKIT__MAIN__URL", "https://lk.example")
        .env("ATOLL__LIVEKIT__MAIN__API_SECRET", "sixteen")
        .env("ATOLL__EXTERNAL__PULSE__TEMPLATE", "pulse:wss://host/{room}")
        .env("ATOLL__EXTERNAL__PULSE__SECRET", "sixteen")
        .env("ATOLL__P2P__NODE", "main")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &[][..]), "{stderr}");
    for part in [
        "livekit.main.url = \"https://lk.example\": must be a URL that begins with ws:// or wss://",
        "livekit.main.api_key = \"\": must be set",
        "{room} is no placeholder: there are {island} and {address}",
        "external.pulse.secret: no such setting (in the environment, ATOLL__EXTERNAL__PULSE__SECRET)",
        "p2p.node: main is also the name of livekit.main",
        "5 problem(s)",
    ] {
        assert!(stderr.contains(part), "{part} not in {stderr}");
    }
    assert!(!stderr.contains("sixteen"), "{stderr}");
}
