//! The shape of JSON documents: which keys they have and which types of values, without the values.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::Value;

/// The key paths of some documents, each with the types of its values. `[]` is any element of an array.
#[derive(Default)]
pub(crate) struct Shape(BTreeMap<String, BTreeSet<&'static str>>);

impl Shape {
    /// Adds a document. Objects under a key in `maps` have arbitrary keys, which are recorded as `*`.
    pub(crate) fn add(&mut self, document: &Value, maps: &[&str]) {
        self.add_at(String::new(), false, document, maps);
    }

    fn add_at(&mut self, path: String, is_map: bool, value: &Value, maps: &[&str]) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let name = if path.is_empty() { "(document)".to_owned() } else { path.clone() };
        self.0.entry(name).or_default().insert(kind);
        match value {
            Value::Array(elements) => {
                elements.iter().for_each(|element| self.add_at(format!("{path}[]"), false, element, maps));
            }
            Value::Object(members) => {
                for (key, member) in members {
                    let shown = if is_map { "*" } else { key };
                    self.add_at(format!("{path}.{shown}"), maps.contains(&&**key), member, maps);
                }
            }
            _ => {}
        }
    }

    /// Whether a path has been seen.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// All paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// One line for each path, under a title.
    pub(crate) fn section(&self, title: &str) -> String {
        let mut text = format!("# {title}\n");
        for (path, kinds) in &self.0 {
            let kinds: Vec<&str> = kinds.iter().copied().collect();
            let _ = writeln!(text, "{path}: {}", kinds.join(" | "));
        }
        text.push('\n');
        text
    }
}

#[test]
fn shape_lists_paths_and_types() {
    let mut shape = Shape::default();
    shape.add(&serde_json::json!({"a": [1, null], "ends": {"why": 2}}), &["ends"]);
    shape.add(&serde_json::json!({"a": ["x"], "ends": {}}), &["ends"]);
    let expected = "# title\n(document): object\n.a: array\n.a[]: null | number | string\n.ends: object\n\
                    .ends.*: number\n\n";
    assert_eq!(shape.section("title"), expected);
}
