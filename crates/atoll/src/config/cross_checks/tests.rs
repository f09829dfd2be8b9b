//! Tests of the rules about several sections, and of the nodes that are configured.

use director::TransportOffer;

use crate::config::testing::{problems, settings};

/// One valid node of each kind.
const NODES: &str = "[livekit.lk]\nurl = \"wss://lk.example\"\napi_key = \"key\"\napi_secret = \"hush\"\n\
    [external.pulse]\ntemplate = \"pulse:wss://host/{island}\"\n";

/// The problems of the nodes with one more line of TOML, or one instead of another.
fn problems_of(change: impl FnOnce(&str) -> String) -> Vec<String> {
    let problems = problems(&change(NODES));
    assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
    problems
}

#[test]
fn valid_nodes_are_passed_to_the_director() {
    let nodes = settings(NODES).configured_nodes("http://localhost:5000");
    let [livekit, p2p, external] = &nodes[..] else { panic!("{nodes:?}") };
    let TransportOffer::LiveKit(settings) = &livekit.offer else { panic!("{livekit:?}") };
    assert_eq!((livekit.node.as_str(), settings.api_url.as_str()), ("lk", "https://lk.example"));
    assert_eq!((livekit.max_island_size, livekit.max_users, livekit.draining), (100, None, false));
    assert_eq!((p2p.node.as_str(), p2p.max_island_size), ("p2p", 12));
    assert!(matches!(&external.offer, TransportOffer::External(template) if template.protocol() == "pulse"));
    assert!(!format!("{nodes:?}").contains("hush"), "{nodes:?}");
}

#[test]
fn each_invalid_value_of_a_node_is_reported() {
    let livekit = |from: &str, to: &str| problems_of(|nodes| nodes.replacen(from, to, 1));
    let added = |line: &str| livekit("[livekit.lk]\n", &format!("[livekit.lk]\n{line}\n"));
    let p2p = |lines: &str| problems_of(|nodes| format!("{nodes}[p2p]\n{lines}\n"));
    let url = "wss://lk.example";
    for (problems, expected) in [
        (livekit(url, ""), r#"livekit.lk.url = "": must be a URL"#),
        (livekit(url, "https://h"), r#"livekit.lk.url = "https://h": must be a URL"#),
        (livekit(url, "wss://h/x"), r#"livekit.lk.api_url = "https://h/x": must be http"#),
        (added("api_url = \"wss://h\""), r#"livekit.lk.api_url = "wss://h": must be http"#),
        (livekit("\"key\"", "\"\""), r#"livekit.lk.api_key = "": must be set"#),
        (livekit("\"hush\"", "\"\""), r#"livekit.lk.api_secret = "": must be set"#),
        (added("token_ttl_s = 0"), "livekit.lk.token_ttl_s = 0: must be at least 1"),
        (added("max_island_size = 0"), "livekit.lk.max_island_size = 0: must be at least 1"),
        (p2p("stun = \"stun:a,b\""), "p2p.stun = b: must be stun: and a host"),
        (p2p("turn = \"turn:a\""), r#"p2p.turn_secret = "": must be set"#),
        (p2p("node = \"a.b\""), "p2p.node = a.b: must be 1 to 64 characters"),
        (p2p("node = \"rooms-1\""), "p2p.node: rooms-1 is also the name of rooms.node"),
        (p2p("node = \"lk\""), "p2p.node: lk is also the name of livekit.lk"),
    ] {
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{expected} is not {problems:?}");
    }
}

#[test]
fn clients_reach_a_proxied_server_at_the_realm() {
    let proxied = NODES.replacen("[livekit.lk]\n", "[livekit.lk]\nproxy = true\n", 1);
    let url_for = |more: &str| {
        let settings = settings(&format!("{proxied}{more}"));
        assert_eq!(settings.proxied_livekit()[0].url, "wss://lk.example");
        let nodes = settings.configured_nodes("http://127.0.0.1:5000");
        let TransportOffer::LiveKit(livekit) = &nodes[0].offer else { panic!("{nodes:?}") };
        assert_eq!(livekit.api_url, "https://lk.example");
        livekit.url.clone()
    };
    assert_eq!(url_for(""), "ws://127.0.0.1:5000/livekit/lk");
    let realm = "[realm]\npublic_url = \"https://realm.example/one/\"\n";
    assert_eq!(url_for(realm), "wss://realm.example/one/livekit/lk");
    assert!(settings(NODES).proxied_livekit().is_empty());
}

#[test]
fn no_client_is_sent_the_url_of_a_proxied_server() {
    let proxied = |more: &str| {
        problems_of(|nodes| {
            format!("{}{more}", nodes.replacen("[livekit.lk]\n", "[livekit.lk]\nproxy = true\n", 1))
        })
    };
    let adapter = "[realm]\nfixed_adapter = \"livekit:wss://LK.example?access_token=x\"\n";
    let second = "[livekit.two]\nurl = \"wss://lk.example/\"\napi_key = \"k\"\napi_secret = \"s\"\n";
    let template = "[external.x]\ntemplate = \"x:wss://lk.example/{island}\"\n";
    for (more, other) in
        [(adapter, "realm.fixed_adapter"), (second, "livekit.two"), (template, "external.x.template")]
    {
        let expected = format!(
            "livekit.lk.proxy = true: clients are sent the URL of this server by {other}, past the proxy"
        );
        assert_eq!(proxied(more), [expected]);
    }
    let director = "[server]\nroles = \"director\"\n[bus]\nurl = \"nats://127.0.0.1\"\n\
                    [rooms]\ntoken_secrets = \"0123456789012345678901234567890123456789\"\n";
    let expected = "livekit.lk.proxy = true: needs realm.public_url, under which clients reach the gateways";
    assert_eq!(proxied(director), [expected]);
    // Two names of one server are no problem if clients reach it through the proxy under both.
    let both = NODES.replacen("[livekit.lk]\n", "[livekit.lk]\nproxy = true\n", 1);
    let second = second.replacen("url", "proxy = true\nurl", 1);
    assert_eq!(settings(&format!("{both}{second}")).proxied_livekit().len(), 2);
}

#[test]
fn names_of_numbered_room_nodes_are_reserved() {
    let taken = problems("[rooms]\nnodes = 2\n[p2p]\nnode = \"rooms-2\"");
    assert_eq!(taken, ["p2p.node: rooms-2 is also the name of rooms.node"]);
}

#[test]
fn external_nodes_have_few_protocols_and_unique_names() {
    let several = |count: u8| {
        let node = |number| format!("[external.x{number}]\ntemplate = \"x{}:{{island}}\"\n", number / 2);
        NODES.to_owned() + &(0..count).map(node).collect::<String>()
    };
    // The protocol pulse and four more.
    assert_eq!(settings(&several(8)).external.len(), 9);
    let too_many = problems(&several(9));
    assert_eq!(too_many, ["external = pulse, x0, x1, x2, x3, x4: there may be at most 5 protocols"]);
    let bad = problems_of(|nodes| format!("{nodes}[external.p2p]\ntemplate = \"p2p:{{island}}\""));
    let expected = [
        r#"external.p2p.template = "p2p:{island}": the protocol p2p is built in"#,
        "external.p2p: p2p is also the name of p2p.node",
    ];
    assert_eq!(bad, expected);
}

#[test]
fn fixed_room_cannot_have_an_island_name() {
    let toml = |name: &str| format!("[realm]\nfixed_room = {name:?}");
    for name in ["plaza", "Inn", "I-1", "Imperial-Palace", "I0mabc12", "name.dcl.eth", "world-name.dcl.eth"] {
        assert!(settings(&toml(name)).realm.fixed_room.is_some(), "{name}");
    }
    for name in ["a b", "a/b", "a..b", ".eth", "status", "I0mabc12z1", "Iabcdefghi"] {
        assert_eq!(problems(&toml(name)).len(), 1, "{name}");
    }
}
