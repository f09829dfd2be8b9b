//! Tests of the settings of LiveKit, p2p and external nodes.

use super::*;

/// Settings with one valid node of each kind.
fn settings() -> Settings {
    let mut settings = Settings::default();
    let livekit = LiveKit {
        url: "wss://lk.example".to_owned(),
        api_key: "key".to_owned(),
        api_secret: "hush".to_owned(),
        ..LiveKit::default()
    };
    settings.livekit.insert("lk".to_owned(), livekit);
    settings.external.insert("pulse".to_owned(), external("pulse:wss://host/{island}"));
    settings
}

fn external(template: &str) -> External {
    External { template: template.to_owned(), ..External::default() }
}

fn problems(change: impl FnOnce(&mut Settings)) -> Vec<String> {
    let (mut settings, mut problems) = (settings(), Vec::new());
    change(&mut settings);
    configured(&settings, &mut problems);
    assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
    problems
}

#[test]
fn valid_nodes_are_passed_to_the_director() {
    let mut problems = Vec::new();
    let nodes = configured(&settings(), &mut problems);
    assert_eq!(problems, Vec::<String>::new());
    let [livekit, p2p, external] = &nodes[..] else { panic!("{nodes:?}") };
    let TransportOffer::LiveKit { api_url, .. } = &livekit.offer else { panic!("{livekit:?}") };
    assert_eq!((livekit.node.as_str(), api_url.as_str()), ("lk", "https://lk.example"));
    assert_eq!((livekit.max_island_size, livekit.max_users, livekit.draining), (100, None, false));
    assert_eq!((p2p.node.as_str(), p2p.max_island_size), ("p2p", 12));
    assert!(matches!(&external.offer, TransportOffer::External(template) if template.protocol() == "pulse"));
    assert!(!format!("{nodes:?}").contains("hush"), "{nodes:?}");
}

#[test]
fn each_invalid_value_is_reported() {
    let livekit =
        |change: fn(&mut LiveKit)| problems(|settings| settings.livekit.values_mut().for_each(change));
    let p2p = |change: fn(&mut P2p)| problems(|settings| change(&mut settings.p2p));
    for (problems, expected) in [
        (livekit(|node| node.url.clear()), r#"livekit.lk.url = "": must be a URL"#),
        (livekit(|node| node.url = "https://h".into()), r#"livekit.lk.url = "https://h": must be a URL"#),
        (
            livekit(|node| node.url = "wss://h/x".into()),
            r#"livekit.lk.api_url = "https://h/x": must be http"#,
        ),
        (livekit(|node| node.api_url = "wss://h".into()), r#"livekit.lk.api_url = "wss://h": must be http"#),
        (livekit(|node| node.api_key.clear()), r#"livekit.lk.api_key = "": must be set"#),
        (livekit(|node| node.api_secret.clear()), r#"livekit.lk.api_secret = "": must be set"#),
        (livekit(|node| node.token_ttl_s = 0), "livekit.lk.token_ttl_s = 0: must be at least 1"),
        (livekit(|node| node.max_island_size = 0), "livekit.lk.max_island_size = 0: must be at least 1"),
        (p2p(|p2p| p2p.stun = "stun:a,b".into()), "p2p.stun = b: must be stun: and a host"),
        (p2p(|p2p| p2p.turn = "turn:a".into()), r#"p2p.turn_secret = "": must be set"#),
        (p2p(|p2p| p2p.node = "a.b".into()), "p2p.node = a.b: must be 1 to 64 characters"),
        (p2p(|p2p| p2p.node = "rooms-1".into()), "p2p.node: rooms-1 is also the name of rooms.node"),
        (p2p(|p2p| p2p.node = "lk".into()), "p2p.node: lk is also the name of livekit.lk"),
    ] {
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{expected} is not {problems:?}");
    }
}

#[test]
fn room_nodes_are_numbered_and_their_names_reserved() {
    let rooms = |node: &str| {
        let mut rooms = Settings::default().rooms;
        (rooms.node, rooms.nodes) = (node.to_owned(), 3);
        room_nodes(&rooms).collect::<Vec<_>>()
    };
    assert_eq!(rooms("rooms-1"), ["rooms-1", "rooms-2", "rooms-3"]);
    assert_eq!(rooms("eu"), ["eu", "eu-2", "eu-3"]);
    assert_eq!(rooms("eu-11"), ["eu-11", "eu-11-2", "eu-11-3"]);
    let taken = problems(|settings| {
        settings.rooms.nodes = 2;
        settings.p2p.node = "rooms-2".to_owned();
    });
    assert_eq!(taken, ["p2p.node: rooms-2 is also the name of rooms.node"]);
}

#[test]
fn external_nodes_have_few_protocols_and_unique_names() {
    let several = |settings: &mut Settings, protocols: u8| {
        for number in 0..protocols {
            let template = format!("x{}:{{island}}", number / 2);
            settings.external.insert(format!("x{number}"), external(&template));
        }
    };
    assert_eq!(problems(|settings| several(settings, 8)), Vec::<String>::new(), "pulse and four more");
    let too_many = problems(|settings| several(settings, 9));
    assert_eq!(too_many, ["external = pulse, x0, x1, x2, x3, x4: there may be at most 5 protocols"]);
    let bad = problems(|settings| {
        settings.external.insert("p2p".to_owned(), external("p2p:{island}"));
    });
    let expected = [
        r#"external.p2p.template = "p2p:{island}": the protocol p2p is built in"#,
        "external.p2p: p2p is also the name of p2p.node",
    ];
    assert_eq!(bad, expected);
}
