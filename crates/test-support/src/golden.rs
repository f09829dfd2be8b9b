//! Golden files: a record of the public names, which tests compare with the names of this build.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use similar::TextDiff;

/// Rewrites the golden files instead of comparing, when it is set to `write`.
const MODE: &str = "ATOLL_GOLDEN";
/// Unchanged lines that the report of a difference shows around each change.
const CONTEXT: usize = 2;

/// The path of a golden file.
pub fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "golden", file].iter().collect()
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
pub fn check_file(path: &Path, actual: &str, advice: &str) {
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
}
