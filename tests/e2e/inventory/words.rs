//! Closed sets: close codes, causes of `atoll explain`, keywords of scenarios.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use archipelago::{explain::Cause, scenario};
use protocol::Close;
use test_support::{golden, workspace};

/// The beginning of a row of the table in docs/close-codes.md.
fn row(close: Close) -> String {
    let advice = if close.should_reconnect() { "reconnect" } else { "stop" };
    format!("| {} | `{close:?}` | {} | {advice}", close.code(), close.reason())
}

#[test]
fn close_codes_have_these_texts() {
    let mut text = String::new();
    for close in Close::ALL {
        let advice = if close.should_reconnect() { "connect again" } else { "stop" };
        let _ = writeln!(text, "{} {close:?}: {}: {advice}", close.code(), close.reason());
    }
    golden::check("close-codes.txt", &text);
}

#[test]
fn close_codes_are_those_of_the_documentation() {
    let table = fs::read_to_string(workspace::root().join("docs/close-codes.md")).unwrap();
    let is_row = |line: &&str| {
        line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    let rows: Vec<&str> = table.lines().filter(is_row).collect();
    assert_eq!(rows.len(), Close::ALL.len());
    for (actual, close) in rows.iter().zip(Close::ALL) {
        let expected = row(close);
        assert!(actual.starts_with(&expected), "{actual}\nmust begin with\n{expected}");
    }
}

/// The cause after this one. A new cause does not compile until it has its place here.
fn next(cause: Cause) -> Option<Cause> {
    Some(match cause {
        Cause::Together => Cause::AsWanted,
        Cause::AsWanted => Cause::Unknown,
        Cause::Unknown => Cause::Left,
        Cause::Left => Cause::SilentPeer,
        Cause::SilentPeer => Cause::OtherSession,
        Cause::OtherSession => Cause::ExclusiveRule,
        Cause::ExclusiveRule => Cause::OtherCluster,
        Cause::OtherCluster => Cause::TooFar,
        Cause::TooFar => Cause::Hysteresis,
        Cause::Hysteresis => Cause::FullIsland,
        Cause::FullIsland => Cause::Preference,
        Cause::Preference => Cause::Capability,
        Cause::Capability => Cause::Settling,
        Cause::Settling => Cause::Outgrown,
        Cause::Outgrown => Cause::NoSeats,
        Cause::NoSeats => Cause::NoRoom,
        Cause::NoRoom => Cause::MeshFailed,
        Cause::MeshFailed => Cause::Draining,
        Cause::Draining => Cause::NodeDead,
        Cause::NodeDead => Cause::NoTransport,
        Cause::NoTransport => Cause::NextFlush,
        Cause::NextFlush => return None,
    })
}

#[test]
fn explain_has_these_causes() {
    let causes = std::iter::successors(Some(Cause::Together), |cause| next(*cause));
    let line = |cause: Cause| format!("text `{cause}`, JSON {}\n", serde_json::to_string(&cause).unwrap());
    golden::check("explain-causes.txt", &causes.map(line).collect::<String>());
}

/// A scenario that uses every keyword. It is written by hand: the test plays it.
const SCENARIO: &str = "scenario-keywords.txt";

/// The keyword at the beginning of each step.
fn first_words(scenario: &str) -> BTreeSet<String> {
    let steps = scenario.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = steps.filter_map(|step| step.split_whitespace().next());
    words.filter(|word| !word.starts_with('|')).map(str::to_owned).collect()
}

/// Whether the parser knows a step that begins with this text.
fn is_keyword(word: &str) -> bool {
    // The refusal of a text that is no keyword, with this one in its place.
    const NONE: &str = "xyzzy";
    let refusal = scenario::run(NONE).unwrap_err().reason.replace(NONE, word);
    scenario::run(word).err().is_none_or(|error| error.reason != refusal)
}

#[test]
fn scenario_keywords_are_understood() {
    let text = fs::read_to_string(golden::path(SCENARIO)).unwrap();
    if let Err(error) = scenario::run(&text) {
        panic!("tests/golden/{SCENARIO}: {error}");
    }
    // Keywords inside a step: without them the step is refused, or the scenario fails.
    for word in [
        "session",
        "resumes",
        "kind",
        "needs",
        "size",
        "seats",
        "draining",
        "from",
        "only",
        "nothing",
        "voice",
        "video",
        "voice+video",
    ] {
        let uses = |line: &str| line.split_whitespace().skip(1).any(|other| other == word);
        assert!(text.lines().any(uses), "{word} is not in tests/golden/{SCENARIO}");
        let spoiled = text.split_inclusive('\n').map(|line| match uses(line) {
            true => line.replace(&format!(" {word}"), " xyzzy"),
            false => line.to_owned(),
        });
        assert!(scenario::run(&spoiled.collect::<String>()).is_err(), "`{word}` makes no difference");
    }
}

#[test]
fn scenario_keywords_are_all_recorded() {
    let golden = fs::read_to_string(golden::path(SCENARIO)).unwrap();
    let recorded = first_words(&golden);
    for word in &recorded {
        assert!(is_keyword(word), "{word} is no keyword");
    }
    // Candidates: every lower-case literal in the source of the parser.
    let folder = workspace::root().join("crates/archipelago/src/scenario");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let source: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let is_word = |text: &&str| {
        !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'-')
    };
    let candidates: BTreeSet<&str> = source.split('"').filter(is_word).collect();
    assert!(candidates.len() > recorded.len(), "the parser has no words in quotes: {candidates:?}");
    let known: BTreeSet<String> =
        candidates.into_iter().filter(|word| is_keyword(word)).map(str::to_owned).collect();
    assert_eq!(known, recorded, "keywords of the parser, and those of tests/golden/{SCENARIO}");
}
