//! The time from one input to the plans that it changes, for meshes of 12, 50 and 200 members at the default settings.
//!
//! All links are up and all members are sent a plan, so each figure of `join`, `leave` and `link_lost` includes
//! the construction of all plans.

use std::time::Duration;

use divan::Bencher;
use mesh::{LinkReport, Mesh, Settings};
use protocol::{Address, Position};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [12, 50, 200];
const LATER: Duration = Duration::from_millis(200);

fn address(number: usize) -> Address {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Address::new(bytes)
}

fn position(number: usize) -> Position {
    Position::new((number * 37 % 101) as f32, 0.0, (number * 53 % 97) as f32)
}

/// Lets all members report the links that they should hold as up.
fn report_all(mesh: &mut Mesh, members: usize, now: Duration) {
    for number in 0..members {
        let Some(plan) = mesh.plan(address(number)) else { continue };
        let connected_to = plan.links.iter().map(|link| link.alias).collect();
        let report = LinkReport { version: plan.version, connected_to, ..LinkReport::default() };
        mesh.report(address(number), &report, now);
    }
}

/// A mesh that grew member by member, in which all links are up.
fn grown(members: usize) -> (Mesh, Duration) {
    let mut mesh = Mesh::new(Settings::default()).expect("default settings are valid");
    let mut now = Duration::ZERO;
    for number in 0..members {
        mesh.join(address(number), position(number), false, now).expect("room for a member");
        now += LATER;
        mesh.tick(now);
    }
    report_all(&mut mesh, members, now);
    now += LATER;
    mesh.tick(now);
    (mesh, now)
}

#[divan::bench(args = SIZES)]
fn join(bencher: Bencher<'_, '_>, members: usize) {
    let (mesh, now) = grown(members - 1);
    bencher.with_inputs(|| mesh.clone()).bench_local_values(|mut mesh| {
        let joined = mesh.join(address(members), position(members), false, now);
        (joined, mesh.tick(now + LATER), mesh)
    });
}

#[divan::bench(args = SIZES)]
fn leave(bencher: Bencher<'_, '_>, members: usize) {
    let (mesh, now) = grown(members + 1);
    bencher.with_inputs(|| mesh.clone()).bench_local_values(|mut mesh| {
        mesh.leave(address(3), now);
        (mesh.tick(now + LATER), mesh)
    });
}

#[divan::bench(args = SIZES)]
fn link_lost(bencher: Bencher<'_, '_>, members: usize) {
    let (mesh, now) = grown(members);
    let (member, report) = report_without_first_link(&mesh);
    bencher.with_inputs(|| mesh.clone()).bench_local_values(|mut mesh| {
        mesh.report(member, &report, now);
        (mesh.tick(now + LATER), mesh)
    });
}

#[divan::bench(args = SIZES)]
fn all_moved(bencher: Bencher<'_, '_>, members: usize) {
    let (mut mesh, now) = grown(members);
    mesh.tick(now + Duration::from_secs(60));
    let now = now + Duration::from_secs(61);
    bencher.with_inputs(|| mesh.clone()).bench_local_values(|mut mesh| {
        for number in 0..members {
            mesh.moved(address(number), position(number * 7 + 1), now);
        }
        (mesh.tick(now + Duration::from_secs(2)), mesh)
    });
}

#[divan::bench(args = SIZES)]
fn unchanged_report(bencher: Bencher<'_, '_>, members: usize) {
    let (mut mesh, now) = grown(members);
    let plan = mesh.plan(address(0)).expect("a plan");
    let connected_to = plan.links.iter().map(|link| link.alias).collect();
    let report = LinkReport { version: plan.version, connected_to, ..LinkReport::default() };
    bencher.bench_local(|| mesh.report(address(0), &report, now));
}

/// A report of the first member that has lost the first of its links.
fn report_without_first_link(mesh: &Mesh) -> (Address, LinkReport) {
    let member = address(0);
    let plan = mesh.plan(member).expect("a plan");
    let connected_to = plan.links.iter().skip(1).map(|link| link.alias).collect();
    (member, LinkReport { version: plan.version, connected_to, ..LinkReport::default() })
}
