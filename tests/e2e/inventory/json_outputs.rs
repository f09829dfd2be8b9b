//! The keys in the output of `--json` flags.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use archipelago::{explain::Question, rules::Rules, scenario};
use protocol::{Address, Position};
use serde_json::Value;
use test_support::{
    NatsServer, Realm, TEST_TIMEOUT, golden, wallet,
    wire::{enter, sign_in},
    within, workspace,
};

use super::{atoll, printed, shape::Shape};

/// Keys of objects with arbitrary keys, such as close reasons.
const MAPS: [&str; 6] =
    ["connections", "deliveries", "gateway_ends", "refused_by_reason", "room_ends", "room_entries"];

fn shape_of(documents: &[Value]) -> Shape {
    let mut shape = Shape::default();
    documents.iter().for_each(|document| shape.add(document, &MAPS));
    shape
}

/// The JSON documents that a command prints, one on each line.
async fn run(arguments: Vec<String>) -> Vec<Value> {
    let output =
        tokio::task::spawn_blocking(move || atoll(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>();
    assert!(!documents.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    documents
}

fn arguments(fixed: &[&str], more: &[&str]) -> Vec<String> {
    fixed.iter().chain(more).map(|&argument| argument.to_owned()).collect()
}

/// Asks every question after each flush of each scenario of the engine.
fn ask_all(mut answer: impl FnMut(&archipelago::Engine, std::time::Duration, &Question)) {
    let folder = workspace::root().join("crates/archipelago/scenarios");
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let names: BTreeSet<&str> =
            lines.iter().filter_map(|line| line.strip_prefix("move ")?.split(' ').next()).collect();
        let peers: Vec<Address> = names.into_iter().take(6).map(scenario::address).collect();
        let ends =
            (0..lines.len()).filter(|&index| lines[index] == "flush" || lines[index].starts_with("wait "));
        for end in ends {
            let Ok(Some((engine, now))) = scenario::run_to_engine(&lines[..=end].join("\n")) else {
                continue;
            };
            answer(&engine, now, &Question::At(Position::new(0.0, 0.0, 0.0)));
            let islands: Vec<_> = engine.islands().map(|island| island.id()).collect();
            islands.into_iter().for_each(|island| answer(&engine, now, &Question::Island(island)));
            for (index, &peer) in peers.iter().enumerate() {
                answer(&engine, now, &Question::Peer(peer));
                peers[index + 1..]
                    .iter()
                    .for_each(|&other| answer(&engine, now, &Question::Pair(peer, other)));
            }
        }
    }
}

#[test]
fn explain_json_has_these_keys() {
    let mut shape = Shape::default();
    ask_all(|engine, now, question| {
        shape.add(&serde_json::to_value(engine.explain(question, now)).unwrap(), &[]);
    });
    golden::check("explain-json.txt", &shape.section("atoll explain --json"));
}

#[test]
fn rules_diff_json_has_these_keys() {
    let rules =
        "[[rule]]\nname = \"one\"\narea = { circle = { center = [0, 0], radius_m = 2 } }\nexclusive = true\n";
    let (mut shape, rules) = (Shape::default(), std::sync::Arc::new(Rules::parse(rules).unwrap()));
    ask_all(|engine, now, question| {
        if matches!(question, Question::At(_)) {
            shape.add(&serde_json::to_value(engine.diff(rules.clone(), now)).unwrap(), &[]);
        }
    });
    golden::check("rules-diff-json.txt", &shape.section("atoll rules diff --json"));
}

/// The paths of a golden file of a shape.
fn recorded(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(golden::path(file)).unwrap();
    text.lines().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_prints_recorded_keys() {
    let realm = Realm::start(&[]);
    let (one, other) = (wallet(), wallet());
    let _sessions = (enter(&realm, &one, 0.0).await, enter(&realm, &other, 5.0).await);
    let (one, other) = (one.address().to_string(), other.address().to_string());
    let ask = async |question: &[&str]| {
        let found = run(arguments(&["explain", "--json", "--admin", &realm.admin], question)).await;
        assert_eq!(found.len(), 1);
        found.into_iter().next().unwrap()
    };
    let peer = ask(&["--peer", &one]).await;
    let island = peer["peers"][0]["island"].as_str().unwrap().to_owned();
    let answers = [
        ask(&["--at", "0,0"]).await,
        ask(&["--island", &island]).await,
        ask(&["--why", &one, &other]).await,
        peer,
    ];
    let keys = recorded("explain-json.txt");
    let shape = shape_of(&answers);
    for path in shape.paths() {
        assert!(keys.contains(path), "{path} is not in tests/golden/explain-json.txt");
    }
    for path in [".cause", ".place.parcel[]", ".peers[].told_node", ".islands[].candidates[].fits"] {
        assert!(shape.has(path), "{path} is not in an answer");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    fs::write(&file, "[[rule]]\nname = \"all\"\nisland_size = 1\n").unwrap();
    let diff = ["rules", "diff", "--json", "--admin", &realm.admin, file.to_str().unwrap()];
    let shape = shape_of(&run(arguments(&diff, &[])).await);
    let keys = recorded("rules-diff-json.txt");
    for path in shape.paths() {
        assert!(keys.contains(path), "{path} is not in tests/golden/rules-diff-json.txt");
    }
    assert!(shape.has(".changes[].becomes[].members"));
}

#[test]
fn sim_json_has_these_keys() {
    let flags = ["sim", "--json", "--peers", "30", "--seconds", "5"];
    let report: Value = serde_json::from_str(&printed(&flags)).unwrap();
    golden::check("sim-json.txt", &shape_of(&[report]).section("atoll sim --json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_json_has_these_keys() {
    let (realm, elsewhere) = (Realm::start(&[]), Realm::start(&[]));
    let flags = ["bots", "--json", "--still", "--count", "3", "--seconds", "4", "--url", &realm.http];
    // A director that has these bots, one that has others, and none.
    let admins = [&*realm.admin, &*elsewhere.admin, "http://127.0.0.1:9"];
    let runs = admins.map(|admin| tokio::spawn(run(arguments(&flags, &["--admin", admin]))));
    let mut summaries = run(arguments(&flags, &[])).await;
    for summary in runs {
        summaries.extend(summary.await.unwrap());
    }
    golden::check("bots-json.txt", &shape_of(&summaries).section("atoll bots --json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_json_at_sigusr1_has_these_keys() {
    let realm = Realm::start(&[]);
    let flags = ["bots", "--json", "--still", "--count", "2", "--url", &realm.http, "--admin", &realm.admin];
    let mut bots =
        Command::new(env!("CARGO_BIN_EXE_atoll")).args(flags).stdout(Stdio::piped()).spawn().unwrap();
    let pid = bots.id().to_string();
    within(TEST_TIMEOUT, "the bots are there", async || {
        realm.json("/peers").await["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })
    .await;
    let signal =
        |name: &str| assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    signal("USR1");
    // The summary at the end is written to this pipe, too.
    let mut lines = BufReader::new(bots.stdout.take().unwrap()).lines();
    let (line, lines) = tokio::task::spawn_blocking(move || (lines.next(), lines)).await.unwrap();
    let line = line.unwrap().unwrap();
    signal("INT");
    let ended = tokio::task::spawn_blocking(move || (lines.count(), bots.wait()));
    ended.await.unwrap().1.unwrap();
    let shape = shape_of(&[serde_json::from_str(&line).unwrap()]);
    golden::check("bots-json-sigusr1.txt", &shape.section("atoll bots --json, at SIGUSR1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn login_storm_json_has_these_keys() {
    let realm = Realm::start(&[("GATEWAY__MAX_SESSIONS", "1")]);
    let _only = sign_in(&realm, &wallet()).await;
    let flags = ["bots", "--json", "--login-storm", "10", "--seconds", "1", "--url", &realm.http];
    let shape = shape_of(&run(arguments(&flags, &[])).await);
    golden::check("bots-json-login-storm.txt", &shape.section("atoll bots --json --login-storm"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_json_has_these_keys() {
    let realm = Realm::start(&[]);
    let flags = ["bots", "--json", "--topics", "10", "--count", "2", "--seconds", "1", "--url", &realm.http];
    let shape = shape_of(&run(arguments(&flags, &[])).await);
    golden::check("bots-json-topics.txt", &shape.section("atoll bots --json --topics"));
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_json_has_these_keys() {
    let server = NatsServer::start_with_jetstream();
    let bus = server.url();
    let director = Realm::launch(&["--roles", "director"], &[("BUS__URL", &bus)]);
    // The memory and CPU of the bus are read of a process: this one will do.
    let pid = std::process::id().to_string();
    let flags = ["bots", "--json", "--heartbeats", "50", "--count", "10", "--seconds", "1", "--bus", &bus];
    let flags = arguments(&flags, &["--bus-pid", &pid, "--url", &director.http]);
    let shape = shape_of(&run(flags).await);
    golden::check("bots-json-heartbeats.txt", &shape.section("atoll bots --json --heartbeats"));
}
