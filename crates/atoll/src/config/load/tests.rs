//! Tests of the sources of settings and of the problems that are reported.

use std::io::Write;

use super::*;

fn problems(toml: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let sources = Sources { file: Some(file.path().into()), environment, flags: Vec::new() };
    let Problems(problems) = load(sources).unwrap_err();
    let path = file.path().display().to_string();
    problems.into_iter().map(|problem| problem.replace(&path, "FILE")).collect()
}

fn load_with(environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Settings {
    let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let flags = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
    load(Sources { file: None, environment, flags }).unwrap().0
}

#[test]
fn defaults_are_valid() {
    assert_eq!(load_with(&[], &[]).server.listen, "127.0.0.1:5000");
}

#[test]
fn flags_override_the_environment() {
    let environment = [("ATOLL__SERVER__LISTEN", "127.0.0.1:1"), ("ATOLL__ROOMS__MAX_USERS", "7")];
    let settings = load_with(&environment, &[("server.listen", "127.0.0.1:2")]);
    assert_eq!((settings.server.listen.as_str(), settings.rooms.max_users), ("127.0.0.1:2", 7));
    // A secret that looks like a number stays a string.
    let secret = [("ATOLL__ROOMS__TOKEN_SECRETS", "0123456789012345")];
    assert_eq!(load_with(&secret, &[]).rooms.token_secrets, "0123456789012345");
}

#[test]
fn all_problems_are_reported_with_key_value_and_source() {
    let toml =
        "[rooms]\nmax_users = \"many\"\njoin_distance_m = 1\n[colour]\nsky = 1\n[gateway]\nmax_sessions = 0";
    let environment = [("ATOLL__ISLANDS__LEAVE_DISTANCE_M", "10"), ("ATOLL__LOG__FORMAT", "xml")];
    let problems = problems(toml, &environment);
    for part in [
        "colour.sky: no such setting (in FILE)",
        "rooms.join_distance_m: no such setting (in FILE); did you mean islands.join_distance_m?",
        "rooms.max_users = many: invalid type: string \"many\", expected an integer (in FILE)",
        "gateway.max_sessions = 0: must be at least 1",
        "islands.leave_distance_m",
        "log.format = xml: must be pretty or json",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part:?} not in {problems:#?}");
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn metrics_listen_without_port_is_refused() {
    let problems = problems("[server]\nmetrics_listen = \"127.0.0.1\"", &[]);
    assert_eq!(problems, ["server.metrics_listen = 127.0.0.1: must be an IP address and a port, or empty"]);
}

#[test]
fn unsupported_lease_replicas_are_refused() {
    for count in [2, 4, 7] {
        let problems = problems(&format!("[bus]\nlease_replicas = {count}"), &[]);
        assert_eq!(problems, [format!("bus.lease_replicas = {count}: must be 0 (automatic), 1, 3 or 5")]);
    }
}

#[test]
fn invalid_presence_access_settings_are_refused() {
    for (toml, problem) in [
        ("[stats]\npublic = \"maybe\"", "stats.public = maybe: must be true, false or token"),
        ("[stats]\npublic = \"token\"", "stats.token = (hidden): must have at least 16 characters"),
        ("[stats]\npublic = \"token\"\ntoken = \"short\"", "stats.token = (hidden): must have at least"),
        (
            "[islands]\npeer_positions = \"city\"",
            "islands.peer_positions = city: must be exact, parcel or empty",
        ),
        ("[identity]\nrealm_check = \"ask\"", "identity.realm_check = ask: must be refuse or log"),
    ] {
        let problems = problems(toml, &[]);
        assert!(problems.len() == 1 && problems[0].starts_with(problem), "{problems:?}");
    }
    // A TOML boolean is accepted for `public`.
    assert_eq!(problems("[stats]\npublic = false\npositions = \"city\"", &[]).len(), 1);
}

#[test]
fn invalid_presence_settings_are_refused() {
    let toml = "[realm]\ncontent_url = \"peer/content\"\n[stats]\npositions = \"city\"\nfeed_events = 0";
    let problems = problems(toml, &[]);
    for part in [
        "realm.content_url = \"peer/content\": must be http://host:port or https://host/path",
        "stats.positions = city: must be exact or parcel",
        "stats.feed_events = 0: must be at least 1",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part:?} not in {problems:#?}");
    }
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn reference_lists_every_setting_and_default() {
    let reference = include_str!("../../../../../docs/configuration.md");
    let toml = crate::config::print(&Settings::example());
    let mut section = String::new();
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = without_node_name(name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let heading = format!("## `[{section}]`");
            let (_, table) = reference.split_once(&heading).expect(&heading);
            let table = table.split("\n## ").next().unwrap_or_default();
            assert!(table.contains(&format!("| `{key}` | `{value}` |")), "{section}.{key} = {value}");
        }
    }
}

const TRANSPORTS: &str = "[livekit.lk-1]\nurl = \"wss://lk.example\"\napi_key = \"key\"\n\
    [external.pulse]\ntemplate = \"pulse:{island}\"\n";

#[test]
fn node_in_file_gets_its_secret_from_the_environment() {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(TRANSPORTS.as_bytes()).unwrap();
    for variable in ["ATOLL__LIVEKIT__LK_1__API_SECRET", "ATOLL__LIVEKIT__LK-1__API_SECRET"] {
        let environment = [(variable.to_owned(), "0123".to_owned())].into();
        let sources = Sources { file: Some(file.path().into()), environment, flags: Vec::new() };
        let (settings, parsed) = load(sources).unwrap();
        assert_eq!(settings.livekit["lk-1"].api_secret, "0123");
        let nodes: Vec<&str> = parsed.transports.iter().map(|node| node.node.as_str()).collect();
        assert_eq!(nodes, ["lk-1", "p2p", "pulse"]);
    }
}

#[test]
fn node_can_be_configured_by_the_environment_alone() {
    let environment = [
        ("ATOLL__LIVEKIT__MAIN__URL", "ws://127.0.0.1:7880"),
        ("ATOLL__LIVEKIT__MAIN__API_KEY", "devkey"),
        ("ATOLL__LIVEKIT__MAIN__API_SECRET", "secret"),
        ("ATOLL__LIVEKIT__MAIN__DRAINING", "true"),
        ("ATOLL__LIVEKIT__MAIN__MAX_USERS", "7"),
    ];
    let livekit = &load_with(&environment, &[]).livekit["main"];
    assert_eq!((livekit.draining, livekit.max_users, livekit.max_island_size), (true, 7, 100));
}

#[test]
fn node_problems_are_reported_like_all_others() {
    let more = "[livekit.bare]\n[livekit.\"a b\"]\nurl = \"\"\n[livekit.lk-2]\nsecret = \"hush\"\n\
        api_secret = [\"hush\"]\n[external.pulse.x]\ny = 1\n[p2p]\nice = \"\"\n[external]\nz = 1\n";
    let environment =
        [("ATOLL__CLIENT__ASSUMED_TRANSPORTS", "livekit,WS"), ("ATOLL__LIVEKIT__LK_1__COLOUR", "1")];
    let problems = problems(&format!("{TRANSPORTS}{more}"), &environment);
    for part in [
        "client.assumed_transports = livekit,WS: must list the transports that clients can join",
        "livekit.lk-1.colour: no such setting (in the environment, ATOLL__LIVEKIT__LK_1__COLOUR)",
        "livekit.lk-1.api_secret = \"\": must be set",
        "livekit.bare.url = \"\": must be",
        "livekit.bare.api_key = \"\": must be set",
        "livekit.bare.api_secret = \"\": must be set",
        "livekit.a b.url: the name of a node must be 1 to 64 characters",
        "livekit.lk-2.secret: no such setting (in FILE)",
        "livekit.lk-2.api_secret = (hidden): invalid type",
        "external.pulse.x.y: no such setting (in FILE)",
        "external.z: no such setting (in FILE)",
        "p2p.ice: no such setting (in FILE)",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part:?} not in {problems:#?}");
    }
    assert_eq!(problems.len(), 12, "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:#?}");
}

#[test]
fn room_node_count_and_names_are_validated() {
    let nodes = |nodes: &str| problems(&format!("[rooms]\nnodes = {nodes}"), &[]);
    assert_eq!(nodes("0"), ["rooms.nodes = 0: must be 1 to 16"]);
    assert_eq!(nodes("17"), ["rooms.nodes = 17: must be 1 to 16"]);
    // Short enough for one node, too long with a number.
    let long = "n".repeat(64);
    let problems = problems(&format!("[rooms]\nnodes = 3\nnode = \"{long}\""), &[]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(&format!("rooms.node = {long}-2: must be")), "{problems:?}");
}

#[test]
fn short_token_secret_is_rejected_and_not_printed() {
    let secrets = "[rooms]\ntoken_secrets = \"fifteen letters, a secret of sixteen characters\"";
    let expected = ["rooms.token_secrets = (hidden): each must have at least 16 characters"];
    assert_eq!(problems(secrets, &[]), expected);
}

#[test]
fn wildcard_address_needs_a_public_url() {
    let problems = problems("[server]\nlisten = \"0.0.0.0:5000\"", &[]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("server.public_url"), "{problems:?}");
}

#[test]
fn malformed_toml_is_reported_with_its_line() {
    let problems = problems("[server]\nlisten = ", &[]);
    assert!(problems[0].contains("line 2"), "{problems:?}");
}
