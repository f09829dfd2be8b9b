//! Generates the table of `docs/metrics.md` from the descriptions of all metrics.

use std::{cell::RefCell, collections::BTreeMap, fs};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use test_support::golden;

use super::describe_metrics;

/// Collects the descriptions of metrics, by name.
#[derive(Default)]
struct Descriptions(RefCell<BTreeMap<String, Description>>);

struct Description {
    kind: &'static str,
    unit: Option<Unit>,
    meaning: SharedString,
}

impl Descriptions {
    fn add(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, meaning: SharedString) {
        let known = self.0.borrow_mut().insert(name.as_str().to_owned(), Description { kind, unit, meaning });
        assert!(known.is_none(), "{} is described twice", name.as_str());
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("counter", &name, unit, meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("gauge", &name, unit, meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("histogram", &name, unit, meaning);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The labels of each metric that the source records, by type and name.
fn labels() -> BTreeMap<String, Vec<String>> {
    let registered = fs::read_to_string(golden::path("metrics-source.txt")).unwrap();
    let entry = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let key = words.by_ref().take(2).collect::<Vec<_>>().join(" ");
        (key, words.map(|label| format!("`{label}`")).collect())
    };
    registered.lines().map(entry).collect()
}

/// The table of all metrics, and the types and names of metrics that are recorded but not described.
fn table() -> (String, Vec<String>) {
    let descriptions = Descriptions::default();
    metrics::with_local_recorder(&descriptions, describe_metrics);
    let mut labels = labels();
    let mut table = "| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n".to_owned();
    for (name, Description { kind, unit, meaning }) in descriptions.0.into_inner() {
        let labels = labels.remove(&format!("{kind} {name}")).unwrap_or_default().join(", ");
        let unit = unit.map_or("", |unit| unit.as_str());
        table += &format!("| `{name}` | {kind} | {labels} | {unit} | {meaning} |\n");
    }
    (table, labels.into_keys().collect())
}

/// `ATOLL_GOLDEN=write` rewrites the document.
#[test]
fn reference_matches_the_metrics() {
    let (table, undescribed) = table();
    assert_eq!(undescribed, Vec::<String>::new(), "not described in `src/metrics.rs` of their crates");
    golden::check_tables("docs/metrics.md", BTreeMap::from([("# Metrics".to_owned(), table)]));
}
