//! Tests of the sources of settings and of the problems that are reported.

use super::*;
use crate::config::testing::{problems, problems_with, settings_with};

fn load_with(environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Settings {
    let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let flags = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
    load(Sources { file: None, environment, flags }).unwrap().settings
}

#[test]
fn defaults_are_valid() {
    assert_eq!(load_with(&[], &[]).server.listen.text(), "127.0.0.1:5000");
}

#[test]
fn flags_override_the_environment() {
    let environment = [("ATOLL__SERVER__LISTEN", "127.0.0.1:1"), ("ATOLL__ROOMS__MAX_USERS", "7")];
    let settings = load_with(&environment, &[("server.listen", "127.0.0.1:2")]);
    assert_eq!((settings.server.listen.text(), settings.rooms.max_users), ("127.0.0.1:2", 7));
    // A secret that looks like a number stays a string.
    let secret = [("ATOLL__ROOMS__TOKEN_SECRETS", "0123456789012345")];
    assert_eq!(&*load_with(&secret, &[]).rooms.token_secrets, "0123456789012345");
}

#[test]
fn all_problems_are_reported_with_key_value_and_source() {
    let toml =
        "[rooms]\nmax_users = \"many\"\njoin_distance_m = 1\n[colour]\nsky = 1\n[gateway]\nmax_sessions = 0";
    let environment = [("ATOLL__ISLANDS__LEAVE_DISTANCE_M", "10"), ("ATOLL__LOG__FORMAT", "xml")];
    let problems = problems_with(toml, &environment);
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
fn unknown_choices_are_refused_with_the_known_ones() {
    for (toml, problem) in [
        (
            "[islands]\npeer_positions = \"city\"",
            "islands.peer_positions = city: must be exact, parcel or empty",
        ),
        ("[identity]\nrealm_check = \"ask\"", "identity.realm_check = ask: must be refuse or log"),
        ("[gateway]\nkeep_session = \"both\"", "gateway.keep_session = both: must be newest or oldest"),
        ("[islands]\nclustering = \"other\"", "islands.clustering = other: must be own or given"),
    ] {
        assert_eq!(problems(toml), [problem]);
    }
}

#[test]
fn values_are_printed_as_written_and_secrets_hidden() {
    let environment = [
        ("ATOLL__SERVER__ROLES", "stats, director,gateway,rooms"),
        ("ATOLL__SERVER__HEADER_TIMEOUT_S", "7"),
        ("ATOLL__P2P__TURN_SECRET", "hush"),
    ];
    let toml = load_with(&environment, &[]).to_toml();
    let lines = [
        "roles = \"stats, director,gateway,rooms\"",
        "header_timeout_s = 7",
        "turn_secret = \"(hidden)\"",
        "public = \"true\"",
        "peer_positions = \"\"",
    ];
    for line in lines {
        assert!(toml.lines().any(|printed| printed == line), "{line} not in {toml}");
    }
}

#[test]
fn invalid_presence_settings_are_refused() {
    let toml = "[realm]\ncontent_url = \"peer/content\"\n[stats]\npositions = \"city\"\nfeed_events = 0";
    let problems = problems(toml);
    for part in [
        "realm.content_url = \"peer/content\": must be http://host:port or https://host/path",
        "stats.positions = city: must be exact or parcel",
        "stats.feed_events = 0: must be at least 1",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part:?} not in {problems:#?}");
    }
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

const TRANSPORTS: &str = "[livekit.lk-1]\nurl = \"wss://lk.example\"\napi_key = \"key\"\n\
    [external.pulse]\ntemplate = \"pulse:{island}\"\n";

#[test]
fn node_in_file_gets_its_secret_from_the_environment() {
    for variable in ["ATOLL__LIVEKIT__LK_1__API_SECRET", "ATOLL__LIVEKIT__LK-1__API_SECRET"] {
        let settings = settings_with(TRANSPORTS, &[(variable, "0123")]);
        assert_eq!(&*settings.livekit["lk-1"].api_secret, "0123");
        let nodes = settings.configured_nodes("http://localhost:5000");
        let nodes: Vec<&str> = nodes.iter().map(|node| node.node.as_str()).collect();
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
    let problems = problems_with(&format!("{TRANSPORTS}{more}"), &environment);
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
fn malformed_toml_is_reported_with_its_line() {
    let problems = problems("[server]\nlisten = ");
    assert!(problems[0].contains("line 2"), "{problems:?}");
}
