//! The metrics in the sources: `metrics-source.txt` has every name and label that they register.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use test_support::{
    golden,
    workspace::{self, rust_files, source_folders},
};

const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];

/// A call of a macro of the crate `metrics` that registers a metric, or that describes one.
struct MacroCall {
    path: PathBuf,
    kind: &'static str,
    describes: bool,
    name: String,
    labels: Vec<String>,
}

/// The calls in a folder of sources.
fn find_calls(folder: &Path) -> Vec<MacroCall> {
    let mut found = Vec::new();
    for path in rust_files(folder) {
        let source = fs::read_to_string(&path).unwrap();
        for kind in KINDS {
            let start = format!("{kind}!(");
            for (at, _) in source.match_indices(&start) {
                let describes = source[..at].ends_with("describe_");
                found.push(parse_call(&path, kind, describes, &source[at + start.len()..]));
            }
        }
    }
    found
}

/// Parses a call, of which `text` begins with the arguments.
fn parse_call(path: &Path, kind: &'static str, describes: bool, text: &str) -> MacroCall {
    let mut depth = 1;
    let mut in_text = false;
    let end = text.find(|letter| {
        match letter {
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let mut arguments = text[..end.unwrap()].split('"');
    let name = arguments.nth(1).unwrap_or_else(|| panic!("{}: the name is not a literal", path.display()));
    let texts: Vec<&str> = arguments.collect();
    // A text is a label if an arrow follows it.
    let labels = texts.windows(2).filter(|pair| pair[1].trim_start().starts_with("=>"));
    let labels = labels.map(|pair| pair[0].to_owned()).collect();
    MacroCall { path: path.to_owned(), kind, describes, name: name.to_owned(), labels }
}

#[test]
fn metrics_in_the_source_have_these_labels() {
    let folders = source_folders(&workspace::root());
    let calls = folders.iter().flat_map(|folder| find_calls(folder));
    let registered = calls.filter(|call| !call.describes);
    let lines: BTreeSet<String> = registered
        .map(|MacroCall { kind, name, labels, .. }| {
            [&[kind.to_owned(), name], &labels[..]].concat().join(" ")
        })
        .collect();
    golden::check("metrics-source.txt", &lines.into_iter().map(|line| line + "\n").collect::<String>());
}

/// A crate with a module `metrics` registers all of its metrics there, and describes each of them.
#[test]
fn metrics_are_registered_and_described_in_one_module() {
    for folder in source_folders(&workspace::root()) {
        let module = folder.join("metrics.rs");
        if !module.exists() {
            continue;
        }
        let calls = find_calls(&folder);
        for call in &calls {
            assert_eq!(call.path, module, "{}: another file uses a macro of the crate metrics", call.name);
        }
        let names = |describes| -> BTreeSet<(&str, &str)> {
            let calls = calls.iter().filter(|call| call.describes == describes);
            calls.map(|call| (call.kind, &*call.name)).collect()
        };
        assert_eq!(names(false), names(true), "{}: metrics and descriptions", module.display());
    }
}
