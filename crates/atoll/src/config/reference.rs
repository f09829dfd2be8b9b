//! Generates the tables of `docs/configuration.md`.
//!
//! The table of a section has a row for each field: key, default, and the doc comment as the meaning. The
//! headings and the text around the tables are written by hand.

use std::collections::BTreeMap;

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

/// `ATOLL_GOLDEN=write` rewrites the document.
#[test]
fn reference_matches_the_settings() {
    golden::check_tables("docs/configuration.md", tables());
}
