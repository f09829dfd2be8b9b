//! Leader election: one leader at a time, in terms of increasing epochs.

use std::time::Duration;

use bus::{Bus, Candidate, ElectionState, NatsSettings, Term};
use test_support::NatsServer;
use tokio::time::{Instant, sleep, timeout};

use crate::common::{TEST_TIMEOUT, settings};

/// A process with one candidate.
pub(crate) struct CandidateProcess {
    bus: Bus,
    pub(crate) candidate: Candidate,
}

impl CandidateProcess {
    async fn campaign(server: &NatsServer) -> Self {
        Self::campaign_with(settings(&server.url())).await
    }

    pub(crate) async fn campaign_with(settings: NatsSettings) -> Self {
        let bus = Bus::nats(settings).await.unwrap();
        let candidacy = bus.campaign("director");
        Self { bus, candidate: candidacy }
    }

    pub(crate) async fn wait_for_leader(&mut self) -> u64 {
        let ElectionState::Leader(Term { epoch }) =
            self.wait_for_state(|state| matches!(state, ElectionState::Leader(_))).await
        else {
            unreachable!()
        };
        epoch.unwrap()
    }

    async fn wait_for_standby(&mut self) {
        self.wait_for_state(|state| state == ElectionState::Standby).await;
    }

    /// Waits for a state, and wakes up only for changes.
    pub(crate) async fn wait_for_state(&mut self, wanted: impl Fn(ElectionState) -> bool) -> ElectionState {
        let wait = async {
            loop {
                let state = self.candidate.state();
                if wanted(state) {
                    return state;
                }
                self.candidate.changed().await;
            }
        };
        timeout(TEST_TIMEOUT, wait).await.expect("in time")
    }
}

/// Waits until exactly one of them leads and the other is a standby. Returns the leader first, with its
/// epoch.
pub(crate) async fn wait_for_one_leader(
    one: CandidateProcess,
    other: CandidateProcess,
) -> (CandidateProcess, u64, CandidateProcess) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        match (one.candidate.state(), other.candidate.state()) {
            (ElectionState::Leader(term), ElectionState::Standby) => {
                return (one, term.epoch.unwrap(), other);
            }
            (ElectionState::Standby, ElectionState::Leader(term)) => {
                return (other, term.epoch.unwrap(), one);
            }
            _ => assert!(Instant::now() < deadline, "no leader or no standby"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_keeps_the_lease_while_it_runs() {
    let server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    let epoch = first.wait_for_leader().await;
    let mut second = CandidateProcess::campaign(&server).await;
    second.wait_for_standby().await;
    // Longer than the lease TTL.
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        assert!(!matches!(second.candidate.state(), ElectionState::Leader(_)));
    }
    assert_eq!(first.wait_for_leader().await, epoch);
    // Both know the epoch of the term.
    assert_eq!((first.bus.latest_epoch(), second.bus.latest_epoch()), (epoch, epoch));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_with_different_names_are_independent() {
    let server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    first.wait_for_leader().await;
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut other = CandidateProcess { candidate: bus.campaign("another"), bus };
    other.wait_for_leader().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_takes_over_in_greater_epoch_after_leader_dies() {
    let server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    let epoch = first.wait_for_leader().await;
    let mut second = CandidateProcess::campaign(&server).await;
    second.wait_for_standby().await;
    let died = Instant::now();
    drop(first);
    assert!(second.wait_for_leader().await > epoch);
    eprintln!("took over after {:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_takes_over_at_once_after_leader_resigns() {
    let server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    let epoch = first.wait_for_leader().await;
    let mut second = CandidateProcess::campaign(&server).await;
    second.wait_for_standby().await;
    let resigned = Instant::now();
    first.candidate.resign().await;
    assert!(second.wait_for_leader().await > epoch);
    let took = resigned.elapsed();
    eprintln!("took over after {took:?}");
    // Without the release, the lease would have lasted at least one and a half seconds more.
    assert!(took < Duration::from_millis(1_400), "{took:?}");
    let again = CandidateProcess { candidate: first.bus.campaign("director"), bus: first.bus };
    let (_, _, follower) = wait_for_one_leader(second, again).await;
    follower.candidate.resign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leader_in_greater_epoch_after_a_long_outage() {
    let mut server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    let epoch = first.wait_for_leader().await;
    let mut second = CandidateProcess::campaign(&server).await;
    second.wait_for_standby().await;
    server.stop();
    // No request succeeds, so that only the clock ends the term.
    first.wait_for_state(|state| state == ElectionState::Unknown).await;
    second.wait_for_state(|state| state == ElectionState::Unknown).await;
    sleep(Duration::from_millis(500)).await;
    server.restart();
    let (leader, new_epoch, follower) = wait_for_one_leader(first, second).await;
    assert!(new_epoch > epoch, "{new_epoch} after {epoch}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(leader.candidate.state(), ElectionState::Leader(Term { epoch: Some(new_epoch) }));
    assert_eq!(follower.candidate.state(), ElectionState::Standby);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_leads_again_after_a_short_outage() {
    let mut server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    let epoch = first.wait_for_leader().await;
    server.restart();
    // However long the outage took, no other candidate has led.
    sleep(Duration::from_secs(1)).await;
    assert!(first.wait_for_leader().await >= epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_grow_when_the_server_loses_its_store() {
    let mut server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    first.wait_for_leader().await;
    let mut second = CandidateProcess::campaign(&server).await;
    second.wait_for_standby().await;
    // Revisions should be well ahead of those of a new store.
    sleep(Duration::from_secs(3)).await;
    first.bus.observe_epoch(1_000);
    let epoch = first.wait_for_state(
        |state| matches!(state, ElectionState::Leader(Term { epoch }) if epoch > Some(1_000)),
    );
    assert_eq!(epoch.await, ElectionState::Leader(Term { epoch: Some(1_001) }));
    let wait = async {
        while second.bus.latest_epoch() != 1_001 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TEST_TIMEOUT, wait).await.unwrap();
    server.stop();
    server.wipe_store();
    first.wait_for_state(|state| state == ElectionState::Unknown).await;
    server.restart();
    let (leader, new_epoch, follower) = wait_for_one_leader(first, second).await;
    assert!(new_epoch > 1_001, "{new_epoch}");
    assert_eq!(leader.bus.latest_epoch(), new_epoch);
    // A candidate that learns of the epoch only now continues from it, too.
    drop(leader);
    let mut follower = follower;
    assert!(follower.wait_for_leader().await > new_epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_process_sees_at_once_that_its_term_expired() {
    // A runtime of its own, which is blocked so that its tasks do not run, as if the process were paused.
    let server = NatsServer::start_with_jetstream();
    let url = server.url();
    let (stopped, second) = tokio::sync::oneshot::channel();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bus = Bus::nats(settings(&url)).await.unwrap();
            let mut first = CandidateProcess { candidate: bus.campaign("director"), bus };
            let epoch = first.wait_for_leader().await;
            stopped.send(epoch).unwrap();
            resumed.recv().unwrap();
            // No task has run since then.
            let state = first.candidate.state();
            first.wait_for_standby().await;
            state
        })
    });
    let epoch = second.await.unwrap();
    let mut second = CandidateProcess::campaign(&server).await;
    assert!(second.wait_for_leader().await > epoch);
    resume.send(()).unwrap();
    let state = tokio::task::spawn_blocking(|| process.join().unwrap()).await.unwrap();
    assert_eq!(state, ElectionState::Unknown);
    assert!(matches!(second.candidate.state(), ElectionState::Leader(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_flood_does_not_lose_the_lease() {
    let server = NatsServer::start_with_jetstream();
    let mut first = CandidateProcess::campaign(&server).await;
    let epoch = first.wait_for_leader().await;
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut number = 0;
    while Instant::now() < deadline {
        for _ in 0..200 {
            number += 1;
            first.bus.publish(&crate::common::heartbeat(number), Default::default(), vec![0; 1_000]);
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(first.candidate.state(), ElectionState::Leader(Term { epoch: Some(epoch) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_leads_without_jetstream() {
    let server = NatsServer::start();
    let uncontested = |state| state == ElectionState::Leader(Term { epoch: None });
    for _ in 0..2 {
        CandidateProcess::campaign(&server).await.wait_for_state(uncontested).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_candidate_leads_at_once() {
    let bus = Bus::in_process();
    let mut one = bus.campaign("director");
    assert_eq!(one.state(), ElectionState::Leader(Term { epoch: None }));
    one.changed().await;
    assert!(timeout(Duration::from_millis(50), one.changed()).await.is_err(), "nothing else changes");
    one.resign().await;
    assert_eq!(bus.latest_epoch(), 0);
    assert!(!bus.reconnects().has_changed().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnects_are_counted() {
    let mut server = NatsServer::start();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut reconnects = bus.reconnects();
    for times in 1..3 {
        server.restart();
        timeout(TEST_TIMEOUT, reconnects.changed()).await.unwrap().unwrap();
        assert_eq!(*reconnects.borrow_and_update(), times);
        assert!(!bus.is_disconnected());
    }
}
