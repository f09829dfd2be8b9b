//! Every change of a golden file has an entry in CHANGELOG.md.
//!
//! `tests/golden/CHANGES` has one line for each golden file: the digest of its text, its name, and a sentence of
//! CHANGELOG.md that describes the last change. A golden file that changes has another digest, so its line has to be
//! written anew, with a sentence that CHANGELOG.md has. No tool writes that file.

use std::{collections::BTreeMap, fs, path::Path};

use sha3::{Digest, Sha3_256};
use test_support::golden;

const CHANGES: &str = "CHANGES";
/// A sentence in CHANGES has to be long enough to be found only where it is meant.
const SHORTEST_SENTENCE: usize = 30;

/// The text with all white space as single spaces: entries of CHANGELOG.md are wrapped.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first eight bytes of the SHA3-256 of a file, in hex.
fn digest(path: &Path) -> String {
    hex::encode(&Sha3_256::digest(fs::read(path).unwrap())[..8])
}

#[test]
fn golden_files_have_changelog_entries() {
    let folder = golden::path("");
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let digests: BTreeMap<String, String> =
        names.filter(|name| name != CHANGES).map(|name| (name.clone(), digest(&folder.join(name)))).collect();
    let changelog = on_one_line(&fs::read_to_string(folder.join("../../CHANGELOG.md")).unwrap());
    let changes = fs::read_to_string(folder.join(CHANGES)).unwrap();
    let mut listed: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in changes.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let (Some(digest), Some(name), Some(sentence)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("tests/golden/CHANGES: a line is `<digest> <file> <sentence of CHANGELOG.md>`: {line}");
        };
        assert!(
            listed.insert(name, (digest, sentence)).is_none(),
            "tests/golden/CHANGES: {line} is the second"
        );
    }
    let mut problems = Vec::new();
    for (name, digest) in &digests {
        match listed.remove(name) {
            Some((known, _)) if known != *digest => {
                problems.push(format!("{name} changed: add an entry to CHANGELOG.md and write in CHANGES\n  {digest} {name} <a sentence of that entry>"));
            }
            Some((_, sentence)) if sentence.len() < SHORTEST_SENTENCE => {
                problems.push(format!("{name}: the sentence has less than {SHORTEST_SENTENCE} characters"));
            }
            Some((_, sentence)) if !changelog.contains(&on_one_line(&sentence)) => {
                problems.push(format!("{name}: CHANGELOG.md does not have the sentence `{sentence}`"));
            }
            Some(_) => {}
            None => problems.push(format!(
                "{name} has no line in CHANGES\n  {digest} {name} <a sentence of CHANGELOG.md>"
            )),
        }
    }
    problems
        .extend(listed.into_keys().map(|name| format!("{name} is in CHANGES, and there is no such file")));
    assert!(problems.is_empty(), "tests/golden:\n{}", problems.join("\n"));
}
