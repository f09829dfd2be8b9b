//! Golden files: a record of the public names, which tests compare with the names of this build.

use std::{env, fmt::Write as _, fs, path::PathBuf};

/// Rewrites the golden files instead of comparing, when it is set to `write`.
const MODE: &str = "ATOLL_GOLDEN";
/// Unchanged lines that the report of a difference shows around each change.
const CONTEXT: usize = 2;

/// The path of a golden file. Every crate that includes this module is two folders below the workspace root.
pub(crate) fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "golden", file].iter().collect()
}

/// Compares a golden file with `actual`. Panics with a diff if they differ.
pub(crate) fn check(file: &str, actual: &str) {
    let path = path(file);
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return;
    }
    if rewrites() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
        return;
    }
    panic!(
        "tests/golden/{file} does not describe this build:\n{}\n\
         `-` is the golden file and `+` is this build. If the change is meant: run `make golden`, add an entry to \
         CHANGELOG.md, and update the line of {file} in tests/golden/CHANGES.\n",
        diff(&expected, actual)
    );
}

/// Whether the golden files are to be rewritten.
pub(crate) fn rewrites() -> bool {
    env::var(MODE).is_ok_and(|mode| mode == "write")
}

/// A line of a comparison: `' '` both, `'-'` only the expected text, `'+'` only the actual text.
type Line<'a> = (char, &'a str);

/// The changed lines, with a few unchanged lines around them.
fn diff(expected: &str, actual: &str) -> String {
    let lines = compare(&expected.lines().collect::<Vec<_>>(), &actual.lines().collect::<Vec<_>>());
    let near_change = |index: usize| {
        let window = index.saturating_sub(CONTEXT)..lines.len().min(index + CONTEXT + 1);
        lines[window].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut line_number = 0;
    let mut shown = false;
    for (index, (mark, line)) in lines.iter().enumerate() {
        line_number += usize::from(*mark != '+');
        let show = near_change(index);
        if show && !shown {
            let _ = writeln!(text, "@@ line {} @@", line_number.max(1));
        }
        if show {
            let _ = writeln!(text, "{mark}{line}");
        }
        shown = show;
    }
    text
}

/// Aligns two texts by their longest common subsequence of lines.
fn compare<'a>(expected: &[&'a str], actual: &[&'a str]) -> Vec<Line<'a>> {
    let common = |mut pairs: Box<dyn Iterator<Item = (&&str, &&str)> + '_>| {
        let mut count = 0;
        while pairs.next().is_some_and(|(one, other)| one == other) {
            count += 1;
        }
        count
    };
    let head = common(Box::new(expected.iter().zip(actual)));
    let (expected_rest, actual_rest) = (&expected[head..], &actual[head..]);
    let tail = common(Box::new(expected_rest.iter().rev().zip(actual_rest.iter().rev())));
    let left = &expected_rest[..expected_rest.len() - tail];
    let right = &actual_rest[..actual_rest.len() - tail];
    // `lengths[i][j]`: the longest common subsequence of `left[i..]` and `right[j..]`.
    let mut lengths = vec![vec![0_u32; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            lengths[i][j] = match left[i] == right[j] {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let mut lines: Vec<Line> = expected[..head].iter().map(|line| (' ', *line)).collect();
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            lines.push((' ', left[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || i < left.len() && lengths[i + 1][j] >= lengths[i][j + 1] {
            lines.push(('-', left[i]));
            i += 1;
        } else {
            lines.push(('+', right[j]));
            j += 1;
        }
    }
    lines.extend(expected_rest[expected_rest.len() - tail..].iter().map(|line| (' ', *line)));
    lines
}

#[test]
fn diff_shows_changed_lines_with_context() {
    let expected = "a\nb\nc\nd\ne\nf\ng\n";
    let actual = "a\nb\nc\nD\ne\nf\ng\nh\n";
    assert_eq!(diff(expected, actual), "@@ line 2 @@\n b\n c\n-d\n+D\n e\n f\n g\n+h\n");
    assert_eq!(diff("", "a\n"), "@@ line 1 @@\n+a\n");
}
