//! Runs every file of `scenarios/` as a test: a new one needs no Rust.

use std::{fs, path::Path};

#[test]
fn every_scenario_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "scenario files are missing");
    let mut failures = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap_or_default().display().to_string();
        match archipelago::scenario::run(&text) {
            Ok(0) => failures.push(format!("{name} is empty")),
            Ok(_) => {}
            Err(error) => failures.push(format!("{name}, {error}")),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn failing_scenario_reports_its_line() {
    for (text, line) in [
        ("move a 0 0 0\nflush\nexpect [b]", 3),
        ("move a 0 0 0\nflush\n# nothing\nsilent", 4),
        ("jump a", 1),
        ("move a 0 0", 1),
        ("flush now", 1),
        ("move a 0 0 0\nflush\ntold a", 3),
        ("node n\nmove a 0 0 0\nflush\nflush\ntold a", 5),
    ] {
        assert_eq!(archipelago::scenario::run(text).unwrap_err().line, line, "{text}");
    }
}
