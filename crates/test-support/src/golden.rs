//! Golden files: a record of the public names, which tests compare with the names of this build.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use similar::TextDiff;

use crate::workspace;

/// Rewrites the golden files instead of comparing, when it is set to `write`.
const MODE: &str = "ATOLL_GOLDEN";
/// Unchanged lines that the report of a difference shows around each change.
const CONTEXT: usize = 2;

/// The path of a golden file.
pub fn path(file: &str) -> PathBuf {
    workspace::root().join("tests/golden").join(file)
}

/// Compares a golden file with `actual`. Panics with a diff if they differ.
pub fn check(file: &str, actual: &str) {
    let advice = format!(
        "If the change is meant: run `make golden`, add an entry to CHANGELOG.md, and update the line of {file} in \
         tests/golden/CHANGES."
    );
    check_file(&path(file), actual, &advice);
}

/// The same for any file of the repository that is generated from the code. `advice` states how to rewrite it.
fn check_file(path: &Path, actual: &str, advice: &str) {
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return;
    }
    if rewrites() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, actual).unwrap();
        return;
    }
    panic!(
        "{} does not describe this build:\n{}\n`-` is the file and `+` is this build. {advice}\n",
        path.display(),
        diff(&expected, actual)
    );
}

/// Compares the tables of a document with `tables`, by the heading line above each table. `document` is a path
/// below the root of the workspace. The headings and the text around the tables are written by hand.
pub fn check_tables(document: &str, tables: BTreeMap<String, String>) {
    let path = workspace::root().join(document);
    let (generated, missing) = with_tables(&fs::read_to_string(&path).unwrap(), tables);
    assert!(missing.is_empty(), "{document} has no heading for {missing:?}");
    check_file(&path, &generated, "Run `make docs`.");
}

/// The text with these tables in place of its own, and the headings that it does not have.
fn with_tables(text: &str, mut tables: BTreeMap<String, String>) -> (String, Vec<String>) {
    let mut generated = String::new();
    let mut table = None;
    for line in text.lines() {
        if line.starts_with("# ") || line.starts_with("## ") {
            table = tables.remove(line);
        }
        if line.starts_with('|') {
            generated += &table.take().unwrap_or_default();
        } else {
            generated += &format!("{line}\n");
        }
    }
    (generated, tables.into_keys().collect())
}

/// Whether the golden files are to be rewritten.
pub fn rewrites() -> bool {
    env::var(MODE).is_ok_and(|mode| mode == "write")
}

/// The changed lines, with a few unchanged lines around them.
fn diff(expected: &str, actual: &str) -> String {
    TextDiff::from_lines(expected, actual).unified_diff().context_radius(CONTEXT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diff_shows_changed_lines_with_context() {
        let expected = "a\nb\nc\nd\ne\nf\ng\n";
        let actual = "a\nb\nc\nD\ne\nf\ng\nh\n";
        assert_eq!(diff(expected, actual), "@@ -2,6 +2,7 @@\n b\n c\n-d\n+D\n e\n f\n g\n+h\n");
        assert_eq!(diff("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
    }

    #[test]
    fn tables_replace_those_below_their_headings() {
        let text = "# A\nabove\n\n| old |\n|---|\n\nbelow\n## B\n| old |\nend\n";
        let tables = [("# A", "| new |\n"), ("## B", "| other |\n"), ("## C", "| lost |\n")];
        let tables = tables.map(|(heading, table)| (heading.to_owned(), table.to_owned()));
        let (generated, missing) = with_tables(text, BTreeMap::from(tables));
        assert_eq!(generated, "# A\nabove\n\n| new |\n\nbelow\n## B\n| other |\nend\n");
        assert_eq!(missing, ["## C"]);
    }
}
