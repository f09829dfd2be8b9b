//! Tests of the rules file: parsing, errors with their place, shadowed rules and the area index.

use std::time::Duration;

use protocol::{MediaGrants, Voice};

use super::{conditions::DAY_MINUTES, *};
use crate::{
    ids::{RuleIndex, TableIndex},
    point::Point,
    transport::TransportKind,
};

fn rules(text: &str) -> Rules {
    Rules::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Line, column and reason of the error in a file that must be rejected.
fn parse_error(text: &str) -> (usize, usize, String) {
    let RulesError { line, column, reason } = Rules::parse(text).unwrap_err();
    (line, column, reason)
}

#[test]
fn every_rule_key_is_parsed() {
    let rules = rules(
        r#"
        default = { transports = ["ws-room"], voice = "none", video = true }
        [scenes]
        casino = ["1,2", "-3,4..5,6"]
        [[rule]]
        name = "night"
        area = { scene = "casino" }
        exclusive = false
        people = { max = 12 }
        crowding = { min = 3, max = 9 }
        hours = "22:00-06:30"
        transports = ["livekit", { node = "n-1" }]
        voice = "everyone"
        video = false
        max_links = 3
        relay = false
        island_size = 50
        settling_s = 0.5
        [[rule]]
        name = "day"
        area = { scene = "casino" }
        join_distance_m = 10
        leave_distance_m = 12.5
        "#,
    );
    let night = Rule {
        name: "night".into(),
        area: Some(AreaIndex::new(0)),
        exclusive: false,
        people: CountRange { min: 0, max: 12 },
        crowding: Some(CountRange { min: 3, max: 9 }),
        hours: Some(Hours { from: 22 * 60, to: 6 * 60 + 30 }),
        transports: Some(vec![
            TransportChoice::Kind(TransportKind::LiveKit),
            TransportChoice::Node("n-1".parse().unwrap()),
        ]),
        voice: Some(Voice::Everyone),
        video: Some(false),
        max_links: Some(3),
        relay: Some(false),
        island_size: Some(50),
        distances: None,
        settling: Some(Duration::from_millis(500)),
    };
    assert_eq!(rules.rules[0], night);
    assert_eq!(
        (rules.rules[1].area, rules.rules[1].exclusive),
        (Some(AreaIndex::new(0)), true),
        "equal shapes are one area"
    );
    assert_eq!(rules.rules[1].distances, Some(Distances { join_m: 10.0, leave_m: 12.5 }));
    assert_eq!(rules.areas.len(), 1);
    let choices: Vec<String> =
        rules.choices(Some(RuleIndex::new(0))).map(TransportChoice::to_string).collect();
    assert_eq!(choices, ["livekit", "node n-1", "ws-room"]);
    assert_eq!(rules.choices(None).count(), 1);
}

#[test]
fn invalid_rules_report_line_and_column() {
    let rule = |body: &str| parse_error(&format!("[[rule]]\nname = \"r\"\n{body}\n"));
    assert_eq!(parse_error("[[rule]]\nname = \"r\"\n[[rule]]\nname = \"r\"").0, 4);
    assert_eq!(parse_error("[[rule]]\narea = { scene = \"x\" }").2, "missing field `name`");
    assert_eq!(parse_error("[[rule]\n").0, 1);
    for (body, column, reason) in [
        ("area = { scene = \"nowhere\" }", 8, "unknown scene `nowhere`"),
        ("area = { scene = \"a\", parcels = [] }", 8, "an area is one of"),
        ("area = { parcels = [] }", 8, "has no parcels"),
        ("area = { parcels = [\"1;2\"] }", 21, "`1;2` is not a parcel"),
        ("area = { rectangle = { from = [9, 0], to = [3, 4] } }", 8, "a rectangle has"),
        ("area = { circle = { center = [0, 0], radius_m = -1 } }", 8, "a circle has"),
        ("area = { circle = { center = [0, nan], radius_m = 1 } }", 8, "a circle has"),
        ("exclusive = true", 13, "only a rule with an area"),
        ("people = { min = 5, max = 4 }", 10, "min 5 is above max 4"),
        ("people = { most = 4 }", 12, "unknown field `most`"),
        ("hours = \"25:00-26:00\"", 9, "`25:00-26:00` is not a part of a day"),
        ("hours = \"10:00-10:00\"", 9, "is not a part of a day"),
        ("transports = []", 14, "at least one transport"),
        ("transports = [\"livkit\"]", 15, "`livkit` is not a kind of transport"),
        ("transports = [{ node = \"a.b\" }]", 15, "`a.b`: "),
        ("transports = [7]", 15, "a transport is a kind"),
        ("voice = \"all\"", 9, "`all` is not a value of voice: expected \"everyone\" or \"none\""),
        ("voice = true", 9, "expected a string"),
        ("video = \"yes\"", 9, "expected a boolean"),
        ("max_links = 1", 13, "max_links must be 2 to 6"),
        ("max_links = 7", 13, "max_links must be 2 to 6"),
        ("relay = 1", 9, "expected a boolean"),
        ("island_size = 0", 15, "island_size must be 1 to 10000"),
        ("join_distance_m = 5", 19, "must be set together"),
        ("join_distance_m = 5\nleave_distance_m = 4", 20, "must be from join_distance_m"),
        ("join_distance_m = nan\nleave_distance_m = 4", 19, "must be above 0"),
        ("people = { max = 4 }\njoin_distance_m = 5\nleave_distance_m = 6", 19, "use crowding"),
        ("settling_s = -1", 14, "must be 0 to 3600"),
        ("colour = 1", 1, "unknown field `colour`"),
    ] {
        let (line, actual, text) = rule(body);
        assert!(line >= 3 && text.contains(reason), "{body}: line {line}: {text}");
        assert_eq!(actual, column, "{body}: {text}");
    }
}

#[test]
fn media_of_a_rule_replace_those_of_the_default() {
    let grants = |default: &str, rule: &str| {
        let rules = rules(&format!("{default}\n[[rule]]\nname = \"r\"\n{rule}"));
        [None, Some(RuleIndex::new(0))].map(|rule| {
            let MediaGrants { voice, video } = rules.media(rule);
            (voice, video)
        })
    };
    let (everyone, none) = (Voice::Everyone, Voice::None);
    assert_eq!(grants("", ""), [(everyone, false); 2]);
    assert_eq!(grants("", "voice = \"none\""), [(everyone, false), (none, false)]);
    assert_eq!(grants("", "video = true"), [(everyone, false), (everyone, true)]);
    let default = "default = { voice = \"none\", video = true }";
    assert_eq!(grants(default, ""), [(none, true); 2]);
    assert_eq!(grants(default, "voice = \"everyone\""), [(none, true), (everyone, true)]);
    assert_eq!(grants(default, "video = false"), [(none, true), (none, false)]);
    assert_eq!(grants("default = { video = true }", ""), [(everyone, true); 2]);
    let rules = rules("default = { voice = \"none\" }");
    assert_eq!(rules.default_transports(), DEFAULT_TRANSPORTS, "the transports are optional");
    let error = parse_error("default = { voice = \"some\" }");
    assert_eq!((error.0, error.1), (1, 21), "{}", error.2);
}

#[test]
fn shadowed_rules_are_reported() {
    let text = |name: &str, rest: &str| format!("[[rule]]\nname = \"{name}\"\n{rest}\n");
    let (casino, plaza) = ("area = { parcels = [\"0,0\"] }", "area = { parcels = [\"1,0\"] }");
    let rules = rules(
        &[
            text("few", "people = { max = 3 }"),
            text("casino", casino),
            text("casino at night", &format!("{casino}\nhours = \"22:00-06:00\"")),
            text("plaza", plaza),
            text("all", ""),
            text("more", plaza),
        ]
        .concat(),
    );
    let never: Vec<_> = rules.shadowed_rules().collect();
    assert_eq!(never, [("casino at night", "casino"), ("more", "plaza")]);
}

#[test]
fn hours_wrap_past_midnight() {
    let night = Hours { from: 22 * 60, to: 6 * 60 };
    let inside: Vec<u16> =
        [0, 359, 360, 1_319, 1_320, 1_439].into_iter().filter(|&m| night.contains(m)).collect();
    assert_eq!(inside, [0, 359, 1_320, 1_439]);
    let whole = Hours { from: 0, to: DAY_MINUTES };
    assert!((0..DAY_MINUTES).all(|minute| whole.contains(minute)));
    assert_eq!(night.to_string(), "22:00-06:00 UTC");
}

#[test]
fn area_index_matches_linear_search() {
    let rules = rules(
        r#"
        [[rule]]
        name = "parcels"
        area = { parcels = ["0,0", "-2,-1..-1,3", "400,-400"] }
        [[rule]]
        name = "small"
        area = { circle = { center = [20, 20], radius_m = 5.5 } }
        [[rule]]
        name = "large"
        area = { circle = { center = [-1000, 500], radius_m = 3000 } }
        [[rule]]
        name = "huge"
        area = { rectangle = { from = [-90000, -90000], to = [90000, 0.5] } }
        "#,
    );
    let atlas = AreaGrid::new(&rules.areas, |_| true);
    let without = AreaGrid::new(&rules.areas, |area| area != AreaIndex::new(2));
    let mut found = Vec::new();
    let step = |index: i32| index as f32 * 7.3;
    let fine = (-60..60).flat_map(|x| (-60..60).map(move |z| (step(x), step(z))));
    let coarse = (-30..30).flat_map(|x| (-30..30).map(move |z| (step(x) * 500.0, step(z) * 500.0)));
    let edges = [(0.0, 0.0), (16.0, 0.0), (-0.0, 15.99), (20.0, 25.5), (6400.0, -6400.0), (90000.0, 0.0)];
    for (x, z) in fine.chain(coarse).chain(edges) {
        let at = Point { x, z };
        let expected: Vec<AreaIndex> = AreaIndex::first(4)
            .filter(|&area| rules.area(area).shapes.iter().any(|shape| shape.contains(at)))
            .collect();
        atlas.find(at, &mut found);
        assert_eq!(found, expected, "{at:?}");
        without.find(at, &mut found);
        assert!(!found.contains(&AreaIndex::new(2)));
    }
    assert!(!atlas.is_empty() && AreaGrid::new(&rules.areas, |_| false).is_empty());
}
