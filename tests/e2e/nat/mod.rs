//! Meshes of members behind NATs: how messages travel for each pair of kinds.
//!
//! All machines are network namespaces. The public network is the namespace of the test, with the realm and coturn.

mod cell;
mod member;
mod path;

use std::{
    collections::VecDeque,
    env, iter, panic,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use test_support::{NatKind, network_namespace};

use cell::{Cell, Network, Setup};
use path::Outcome;

/// Set: the test of the whole matrix runs.
const MATRIX: &str = "ATOLL_NAT_MATRIX";
/// Cells that run at a time.
const CONCURRENT: usize = 8;
const MATRIX_LIMIT: Duration = Duration::from_secs(600);

/// Runs the cells, several at a time. Returns their outcomes, in the same order.
fn run(cells: Vec<Cell>) -> Vec<(Cell, Outcome)> {
    let network = Network::new();
    let queue = Mutex::new(cells.into_iter().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let worker = || {
            while let Some((number, cell)) = { queue.lock().unwrap().pop_front() } {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let outcome = runtime.block_on(cell.run(u8::try_from(number).unwrap(), &network));
                println!("{cell}: {outcome}");
                done.lock().unwrap().push((number, cell, outcome));
            }
        };
        let workers: Vec<_> = iter::repeat_with(|| scope.spawn(worker)).take(CONCURRENT).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(number, ..)| *number);
    done.into_iter().map(|(_, cell, outcome)| (cell, outcome)).collect()
}

/// Checks the last path of each cell, and that no message was lost.
fn assert_expected(outcomes: &[(Cell, Outcome)]) {
    let unexpected = |(cell, outcome): &(Cell, Outcome)| {
        let is_expected = outcome.last() == Some(cell.expected()) && outcome.lost == 0;
        (!is_expected).then(|| format!("{cell}: {outcome}, instead of {}", cell.expected()))
    };
    let unexpected: Vec<_> = outcomes.iter().filter_map(unexpected).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[test]
fn members_behind_nats_use_the_best_path() {
    if !network_namespace::enter("nat::members_behind_nats_use_the_best_path") {
        return;
    }
    let cell = |one, other, setup| Cell { kinds: [one, other], setup };
    let outcomes = run(vec![
        cell(NatKind::PortRestricted, NatKind::PortRestricted, Setup::WithoutTurn),
        cell(NatKind::Symmetric, NatKind::Symmetric, Setup::WithTurn),
        cell(NatKind::Symmetric, NatKind::PortRestricted, Setup::WithPublicMember),
        cell(NatKind::FullCone, NatKind::UdpBlocked, Setup::WithTurn),
    ]);
    assert_expected(&outcomes);
}

/// Each pair of kinds in each setup: `make nat`. It prints the table of docs/p2p.md.
#[test]
fn all_pairs_of_nats() {
    if env::var_os(MATRIX).is_none() {
        return;
    }
    if !network_namespace::enter_within(MATRIX_LIMIT, "nat::all_pairs_of_nats") {
        return;
    }
    let began = Instant::now();
    let mut cells = Vec::new();
    for (index, &one) in NatKind::ALL.iter().enumerate() {
        for &other in &NatKind::ALL[index..] {
            cells.extend(Setup::ALL.map(|setup| Cell { kinds: [one, other], setup }));
        }
    }
    let outcomes = run(cells);
    println!("\n| NATs | {} |\n|---|---|---|---|", Setup::ALL.map(|setup| setup.to_string()).join(" | "));
    for row in outcomes.chunks(Setup::ALL.len()) {
        let [one, other] = row[0].0.kinds;
        let columns: Vec<String> = row.iter().map(|(_, outcome)| outcome.summary()).collect();
        println!("| {one}, {other} | {} |", columns.join(" | "));
    }
    let messages: usize = outcomes.iter().map(|(_, outcome)| outcome.sent).sum();
    println!("\n{} cells in {:.0?}, {messages} messages", outcomes.len(), began.elapsed());
    assert_expected(&outcomes);
}
