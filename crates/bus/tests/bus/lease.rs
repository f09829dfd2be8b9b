//! Who leads: one at a time, in terms of growing epochs.

use std::time::Duration;

use bus::{Bus, Candidacy, NatsSettings, Standing, Term};
use tokio::time::{Instant, sleep, timeout};

use crate::{contract::PATIENCE, nats::settings, server::Server};

/// A process with a candidate.
pub(crate) struct Candidate {
    bus: Bus,
    pub(crate) candidacy: Candidacy,
}

impl Candidate {
    async fn stand(server: &Server) -> Self {
        Self::stand_with(settings(&server.url())).await
    }

    pub(crate) async fn stand_with(settings: NatsSettings) -> Self {
        let bus = Bus::nats(settings).await.unwrap();
        let candidacy = bus.stand("director");
        Self { bus, candidacy }
    }

    pub(crate) async fn leads(&mut self) -> u64 {
        let Standing::Leads(Term { epoch }) =
            self.becomes(|standing| matches!(standing, Standing::Leads(_))).await
        else {
            unreachable!()
        };
        epoch.unwrap()
    }

    async fn follows(&mut self) {
        self.becomes(|standing| standing == Standing::Follows).await;
    }

    /// Waits for a standing, and for nothing but changes.
    pub(crate) async fn becomes(&mut self, wanted: impl Fn(Standing) -> bool) -> Standing {
        let found = async {
            loop {
                let standing = self.candidacy.standing();
                if wanted(standing) {
                    return standing;
                }
                self.candidacy.changed().await;
            }
        };
        timeout(PATIENCE, found).await.expect("in time")
    }
}

/// Waits until exactly one of them leads and the other follows; the leader first, with its epoch.
pub(crate) async fn settled(one: Candidate, other: Candidate) -> (Candidate, u64, Candidate) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match (one.candidacy.standing(), other.candidacy.standing()) {
            (Standing::Leads(term), Standing::Follows) => return (one, term.epoch.unwrap(), other),
            (Standing::Follows, Standing::Leads(term)) => return (other, term.epoch.unwrap(), one),
            _ => assert!(Instant::now() < deadline, "nobody leads, or nobody follows"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leads_for_as_long_as_it_is_there() {
    let server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    let epoch = first.leads().await;
    let mut second = Candidate::stand(&server).await;
    second.follows().await;
    // Longer than a name stands in the key.
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        assert!(!matches!(second.candidacy.standing(), Standing::Leads(_)));
    }
    assert_eq!(first.leads().await, epoch);
    // Both know in which epoch.
    assert_eq!((first.bus.epoch(), second.bus.epoch()), (epoch, epoch));
}

#[tokio::test(flavor = "multi_thread")]
async fn offices_are_held_apart() {
    let server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    first.leads().await;
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut other = Candidate { candidacy: bus.stand("another"), bus };
    other.leads().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_is_followed_in_a_greater_epoch() {
    let server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    let epoch = first.leads().await;
    let mut second = Candidate::stand(&server).await;
    second.follows().await;
    let died = Instant::now();
    drop(first);
    assert!(second.leads().await > epoch);
    eprintln!("took over after {:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resigns_is_followed_at_once() {
    let server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    let epoch = first.leads().await;
    let mut second = Candidate::stand(&server).await;
    second.follows().await;
    let resigned = Instant::now();
    first.candidacy.resign().await;
    assert!(second.leads().await > epoch);
    let took = resigned.elapsed();
    eprintln!("took over after {took:?}");
    // The name would have stood there for at least one and a half seconds more.
    assert!(took < Duration::from_millis(1_400), "{took:?}");
    let again = Candidate { candidacy: first.bus.stand("director"), bus: first.bus };
    let (_, _, follower) = settled(second, again).await;
    follower.candidacy.resign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_exactly_one_leads_in_a_greater_epoch() {
    let mut server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    let epoch = first.leads().await;
    let mut second = Candidate::stand(&server).await;
    second.follows().await;
    server.stop();
    // Nothing can be asked, and the clock alone ends the term.
    first.becomes(|standing| standing == Standing::Unknown).await;
    second.becomes(|standing| standing == Standing::Unknown).await;
    sleep(Duration::from_millis(500)).await;
    server.restart();
    let (leader, later, follower) = settled(first, second).await;
    assert!(later > epoch, "{later} after {epoch}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(leader.candidacy.standing(), Standing::Leads(Term { epoch: Some(later) }));
    assert_eq!(follower.candidacy.standing(), Standing::Follows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_ends_no_term() {
    let mut server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    let epoch = first.leads().await;
    server.restart();
    // However long it took: nobody else has led.
    sleep(Duration::from_secs(1)).await;
    assert!(first.leads().await >= epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_grow_though_the_server_loses_its_store() {
    let mut server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    first.leads().await;
    let mut second = Candidate::stand(&server).await;
    second.follows().await;
    // Revisions are to be well ahead of what a new store begins with.
    sleep(Duration::from_secs(3)).await;
    first.bus.observe_epoch(1_000);
    let epoch =
        first.becomes(|standing| matches!(standing, Standing::Leads(Term { epoch }) if epoch > Some(1_000)));
    assert_eq!(epoch.await, Standing::Leads(Term { epoch: Some(1_001) }));
    let known = async {
        while second.bus.epoch() != 1_001 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, known).await.unwrap();
    server.stop();
    server.forget();
    first.becomes(|standing| standing == Standing::Unknown).await;
    server.restart();
    let (leader, later, follower) = settled(first, second).await;
    assert!(later > 1_001, "{later}");
    assert_eq!(leader.bus.epoch(), later);
    // And who comes to know of it only now, too.
    drop(leader);
    let mut follower = follower;
    assert!(follower.leads().await > later);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_knows_at_once_that_its_term_is_over() {
    // A runtime of its own, whose tasks are kept from running as if the process were stopped.
    let server = Server::start_with_jetstream();
    let url = server.url();
    let (stopped, second) = tokio::sync::oneshot::channel();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bus = Bus::nats(settings(&url)).await.unwrap();
            let mut first = Candidate { candidacy: bus.stand("director"), bus };
            let epoch = first.leads().await;
            stopped.send(epoch).unwrap();
            resumed.recv().unwrap();
            // Nothing has run since.
            let standing = first.candidacy.standing();
            first.follows().await;
            standing
        })
    });
    let epoch = second.await.unwrap();
    let mut second = Candidate::stand(&server).await;
    assert!(second.leads().await > epoch);
    resume.send(()).unwrap();
    let standing = tokio::task::spawn_blocking(|| process.join().unwrap()).await.unwrap();
    assert_eq!(standing, Standing::Unknown);
    assert!(matches!(second.candidacy.standing(), Standing::Leads(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_depose_its_publisher() {
    let server = Server::start_with_jetstream();
    let mut first = Candidate::stand(&server).await;
    let epoch = first.leads().await;
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut number = 0;
    while Instant::now() < deadline {
        for _ in 0..200 {
            number += 1;
            first.bus.publish(&crate::contract::heartbeat(number), Default::default(), vec![0; 1_000]);
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(first.candidacy.standing(), Standing::Leads(Term { epoch: Some(epoch) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_jetstream_everybody_leads_without_epochs() {
    let server = Server::start();
    let alone = |standing| standing == Standing::Leads(Term { epoch: None });
    for _ in 0..2 {
        Candidate::stand(&server).await.becomes(alone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_process_everybody_leads_at_once() {
    let bus = Bus::in_process();
    let mut one = bus.stand("director");
    assert_eq!(one.standing(), Standing::Leads(Term { epoch: None }));
    one.changed().await;
    assert!(timeout(Duration::from_millis(50), one.changed()).await.is_err(), "nothing else changes");
    one.resign().await;
    assert_eq!(bus.epoch(), 0);
    assert!(!bus.returns().has_changed().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_connection_is_told_when_it_is_back() {
    let mut server = Server::start();
    let bus = Bus::nats(settings(&server.url())).await.unwrap();
    let mut returns = bus.returns();
    for times in 1..3 {
        server.restart();
        timeout(PATIENCE, returns.changed()).await.unwrap().unwrap();
        assert_eq!(*returns.borrow_and_update(), times);
        assert!(!bus.is_away());
    }
}
