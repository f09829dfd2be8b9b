//! Generates the tables of `docs/configuration.md`.
//!
//! The table of a section has a row for each field: key, default, and the doc comment as the meaning. The
//! headings and the text around the tables are written by hand.

use std::{collections::BTreeMap, fs, path::Path};

use test_support::golden;

use super::{
    section::{Field, Section},
    settings::Settings,
};

/// The tables of all sections, by heading.
fn tables() -> BTreeMap<String, String> {
    let specimen = Settings::specimen();
    let defaults = toml::Value::try_from(&specimen).unwrap();
    let table = |(name, section): (String, &dyn Section)| {
        let defaults = name.split('.').fold(&defaults, |table, name| &table[name]);
        let rows = section.fields().iter().map(|field| row(field, &defaults[field.name]));
        let rows: String =
            ["| key | default | meaning |\n|---|---|---|\n".to_owned()].into_iter().chain(rows).collect();
        (format!("##{}", section.title()), rows)
    };
    specimen.tables().into_iter().map(table).collect()
}

fn row(Field { name, meaning, at_least, .. }: &Field, default: &toml::Value) -> String {
    let meaning: Vec<&str> = meaning.iter().flat_map(|line| line.split_whitespace()).collect();
    let bound = if *at_least > 0 { format!(" At least {at_least}.") } else { String::new() };
    format!("| `{name}` | `{default}` | {}{bound} |\n", meaning.join(" "))
}

/// The document with these tables in place of its own.
fn with_tables(document: &str, mut tables: BTreeMap<String, String>) -> String {
    let mut generated = String::new();
    let mut table = None;
    for line in document.lines() {
        if line.starts_with("## ") {
            table = tables.remove(line);
        }
        if line.starts_with('|') {
            generated += &table.take().unwrap_or_default();
        } else {
            generated += &format!("{line}\n");
        }
    }
    assert!(tables.is_empty(), "docs/configuration.md has no heading for {:?}", tables.keys());
    generated
}

/// `ATOLL_GOLDEN=write` rewrites the document.
#[test]
fn reference_matches_the_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let document = fs::read_to_string(&path).unwrap();
    let generated = with_tables(&document, tables());
    golden::check_file(&path, &generated, "Run `make docs`.");
}
