use archipelago::Clustering;
use protocol::{
    Address, IslandId, Position, SessionId, Ulid,
    atoll_bus::{GatewayHeartbeat, MembershipEnded, Told},
    v3::IslandChangedMessage,
};
use transports::ws_room;

use super::*;
use crate::{
    JOB_QUEUE,
    configured_nodes::Minters,
    decode::Heartbeat,
    publisher::Publisher,
    tests::{announce, peer, room_node, settings},
};

const UNCONTESTED: ElectionState = ElectionState::Leader(Term { epoch: None });

/// In this term.
fn leads(epoch: u64) -> ElectionState {
    ElectionState::Leader(Term { epoch: Some(epoch) })
}

/// A director whose turns are the test's, and so is whether it leads.
struct TestDirector {
    task: DirectorTask,
    subscription: Subscription,
    probes: mpsc::Receiver<Input>,
    publisher: Publisher,
    jobs: mpsc::Receiver<PublishJob>,
}

impl TestDirector {
    fn new(bus: &Bus) -> Self {
        let (errands, receiver) = mpsc::channel(JOB_QUEUE);
        let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
        Self {
            task: DirectorTask::new(settings(), bus.clone(), errands, Leadership::default()),
            subscription: bus.subscribe(
                "director",
                &crate::subscribed_patterns(Clustering::ByDistance),
                1_024,
            ),
            probes: mpsc::channel(1).1,
            publisher: Publisher::new(bus.clone(), Minters::new(minter, &[])),
            jobs: receiver,
        }
    }

    /// Hears all that there is, decides, and tells. Whether it was deposed.
    async fn step(&mut self, standing: ElectionState) -> bool {
        self.task.drain_inputs(&mut self.subscription, &mut self.probes);
        let deposed = self.task.apply_election_state(standing);
        self.task.flush(Instant::now()).unwrap();
        while let Ok(errand) = self.jobs.try_recv() {
            self.publisher.run_job(errand).await;
        }
        deposed
    }

    fn engine(&self) -> &Engine {
        self.task.mode.leader().expect("it leads").engine()
    }
}

/// The gateways of a test, and what they hear.
struct Gateways {
    bus: Bus,
    changes: Subscription,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    peer: Address,
    island: String,
    from: Option<String>,
    node: String,
    epoch: Option<u64>,
}

impl Change {
    fn assignment(&self) -> Told {
        Told { island: self.island.clone(), node: self.node.clone(), epoch: self.epoch.unwrap_or_default() }
    }
}

impl Gateways {
    fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), changes: bus.subscribe("gateways", &[subject::PEER_ISLAND_CHANGES], 1_024) }
    }

    /// Says where somebody is, and what it was told.
    fn publish_heartbeat(&self, peer: Address, session: Option<SessionId>, x: f32, told: Option<Told>) {
        let position = Some(Position::new(x, 0.0, 0.0).into());
        let heartbeat = GatewayHeartbeat { position, told, ..GatewayHeartbeat::default() };
        let headers = Headers { session, ..Headers::default() };
        self.bus.publish(&Subject::PeerHeartbeat(peer), headers, heartbeat.encode_to_vec());
    }

    /// All that was told since.
    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(envelope) = self.changes.try_next() {
            let Some(Subject::PeerIslandChanged(peer)) = envelope.subject() else { panic!() };
            let change = IslandChangedMessage::decode(envelope.payload).unwrap();
            let (island, from) = (change.island_id, change.from_island_id);
            let node = envelope.headers.node.unwrap().to_string();
            changes.push(Change { peer, island, from, node, epoch: envelope.headers.epoch });
        }
        changes.sort_by_key(|change| change.peer);
        changes
    }
}

#[tokio::test]
async fn slow_publisher_delays_no_flush_and_loses_nothing() {
    // A messenger that does not run at all, until it does.
    let (errands, mut waiting) = mpsc::channel(1);
    let mut clock = DirectorTask::new(settings(), Bus::in_process(), errands, Leadership::default());
    clock.apply_election_state(UNCONTESTED);
    clock.apply(BusEvent::Input(Input::Transport(room_node("ws://127.0.0.1:5000"))));
    for number in 1..=5 {
        let position = Position::new(f32::from(number) * 1_000.0, 0.0, 0.0);
        let peer = peer(number);
        let (session, desired_room, assignment, transports) = (None, None, None, None);
        let heartbeat =
            Heartbeat { peer, session, position, desired_room, assignment, transports, resumes: None };
        clock.apply(BusEvent::Heartbeat(heartbeat));
        clock.flush(Instant::now()).unwrap();
        let engine = clock.mode.leader().unwrap().engine();
        assert_eq!(engine.islands_count(), usize::from(number), "it was flushed");
    }
    let mut told = Vec::new();
    while told.len() < 5 {
        let Some(PublishJob::Batch(_, news, _)) = waiting.recv().await else { panic!("news") };
        told.extend(news.assigned.iter().map(|assigned| assigned.peer));
        clock.flush(Instant::now()).unwrap();
    }
    assert_eq!(told, (1..=5).map(peer).collect::<Vec<_>>(), "all of it, in order");
}

#[tokio::test]
async fn takeover_reassigns_only_peers_that_moved_or_joined() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (TestDirector::new(&bus), TestDirector::new(&bus));
    let mut gateways = Gateways::new(&bus);
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    for (number, x) in [(1, 0.0), (2, 50.0), (3, 1_000.0), (4, 2_000.0)] {
        gateways.publish_heartbeat(peer(number), session, x, None);
    }
    first.step(leads(1)).await;
    second.step(ElectionState::Standby).await;
    let told = gateways.take_changes();
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|change| change.epoch == Some(1) && change.node == "node-1"), "{told:?}");
    // The first is gone; meanwhile one walked up to another, and somebody came.
    gateways.publish_heartbeat(peer(4), session, 1_010.0, Some(told[3].assignment()));
    gateways.publish_heartbeat(peer(5), session, 5_000.0, Some(Told::default()));
    drop(first);
    second.step(leads(2)).await;
    let after = gateways.take_changes();
    let [walked, came] = &after[..] else { panic!("{after:?}") };
    assert_eq!((walked.peer, walked.epoch), (peer(4), Some(2)));
    assert_eq!((&walked.island, walked.from.as_ref()), (&told[2].island, Some(&told[3].island)));
    assert_eq!((came.peer, came.from.as_ref()), (peer(5), None));
    assert!(told.iter().all(|change| change.island != came.island), "no id was there before");
    let island: IslandId = told[0].island.parse().unwrap();
    assert_eq!(second.engine().island(&island).unwrap().size(), 2, "islands are what they were");
    for _ in 0..3 {
        second.step(leads(2)).await;
    }
    assert_eq!(gateways.take_changes(), []);
}

#[tokio::test]
async fn new_standby_learns_assignments_from_heartbeats() {
    let bus = Bus::in_process();
    let (mut first, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.publish_heartbeat(peer(1), session, 0.0, None);
    gateways.publish_heartbeat(peer(2), session, 60.0, None);
    first.step(leads(1)).await;
    let met = gateways.take_changes();
    assert_eq!(met.len(), 2);
    drop(first);
    let mut second = TestDirector::new(&bus);
    announce(&bus);
    let island = met[0].assignment();
    // Where they stand now they would not meet.
    gateways.publish_heartbeat(peer(1), session, 0.0, Some(island.clone()));
    gateways.publish_heartbeat(peer(2), session, 75.0, Some(island.clone()));
    second.step(ElectionState::Standby).await;
    second.step(leads(2)).await;
    assert_eq!(gateways.take_changes(), []);
    assert_eq!(second.engine().islands_count(), 1);
}

#[tokio::test]
async fn suspended_leader_publishes_only_after_it_resumes() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    announce(&bus);
    director.step(leads(1)).await;
    gateways.publish_heartbeat(peer(1), None, 0.0, None);
    for _ in 0..3 {
        assert!(!director.step(ElectionState::Unknown).await);
    }
    let mut reports = bus.subscribe("test", &[subject::ENGINE_ISLANDS, subject::ENGINE_DISCOVERY], 16);
    director.task.report();
    director.task.publish_discovery();
    assert!(reports.try_next().is_none() && director.jobs.try_recv().is_err());
    assert_eq!(gateways.take_changes(), []);
    // Nobody else led meanwhile: in whatever term, it goes on.
    director.step(leads(3)).await;
    let told = gateways.take_changes();
    assert_eq!((told.len(), told[0].epoch), (1, Some(3)));
}

#[tokio::test]
async fn deposed_leader_rebuilds_its_replica_and_can_lead_again() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (TestDirector::new(&bus), TestDirector::new(&bus));
    let mut gateways = Gateways::new(&bus);
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.publish_heartbeat(peer(1), session, 0.0, None);
    first.step(leads(1)).await;
    second.step(ElectionState::Standby).await;
    let told = gateways.take_changes();
    // The first was stopped: it has decided nothing of what came meanwhile.
    gateways.publish_heartbeat(peer(2), session, 3_000.0, None);
    second.step(leads(2)).await;
    assert!(first.step(ElectionState::Standby).await);
    assert_eq!(first.task.mode.leader().map(Leader::term), None);
    let newcomer = gateways.take_changes();
    assert_eq!((newcomer.len(), newcomer[0].epoch), (1, Some(2)), "one of them told it");
    // Gateways repeat where everybody is; then the second ends.
    announce(&bus);
    gateways.publish_heartbeat(peer(1), session, 0.0, Some(told[0].assignment()));
    gateways.publish_heartbeat(peer(2), session, 3_000.0, Some(newcomer[0].assignment()));
    first.step(ElectionState::Standby).await;
    drop(second);
    first.step(leads(3)).await;
    assert_eq!(gateways.take_changes(), []);
    assert_eq!((first.engine().peers_count(), first.engine().islands_count()), (2, 2));
}

#[tokio::test]
async fn leader_after_another_leader_starts_from_scratch() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (TestDirector::new(&bus), TestDirector::new(&bus));
    first.step(leads(1)).await;
    second.step(leads(2)).await;
    // Its first turn after it was stopped finds it leading, as if nothing had been.
    assert!(first.step(leads(3)).await);
}

#[tokio::test]
async fn batch_of_an_ended_term_is_not_published() {
    let bus = Bus::in_process();
    let (mut first, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    announce(&bus);
    gateways.publish_heartbeat(peer(1), None, 0.0, None);
    first.task.drain_inputs(&mut first.subscription, &mut first.probes);
    first.task.apply_election_state(leads(1));
    first.task.flush(Instant::now()).unwrap();
    // It is with the messenger when another begins to lead.
    TestDirector::new(&bus).step(leads(2)).await;
    let errand = first.jobs.try_recv().unwrap();
    first.publisher.run_job(errand).await;
    assert_eq!(gateways.take_changes(), []);
}

#[tokio::test]
async fn lost_assignment_is_resent_to_that_peer_only() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.publish_heartbeat(peer(1), session, 0.0, Some(Told::default()));
    gateways.publish_heartbeat(peer(2), session, 1_000.0, Some(Told::default()));
    // A foreign gateway's.
    gateways.publish_heartbeat(peer(3), None, 2_000.0, None);
    director.step(UNCONTESTED).await;
    let told = gateways.take_changes();
    assert_eq!(told.len(), 3);
    let repeat = |x: f32| {
        // The first of them never hears it.
        gateways.publish_heartbeat(peer(1), session, x, Some(Told::default()));
        gateways.publish_heartbeat(peer(2), session, 1_000.0, Some(told[1].assignment()));
        gateways.publish_heartbeat(peer(3), None, 2_000.0, None);
    };
    repeat(0.0);
    director.step(UNCONTESTED).await;
    repeat(0.0);
    director.step(UNCONTESTED).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    director.step(UNCONTESTED).await;
    repeat(0.0);
    director.step(UNCONTESTED).await;
    let again = gateways.take_changes();
    assert_eq!(again, [Change { from: None, ..told[0].clone() }]);
}

#[tokio::test]
async fn resend_needs_two_mismatches_a_second_apart() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.publish_heartbeat(peer(1), session, 0.0, Some(Told::default()));
    director.step(UNCONTESTED).await;
    assert_eq!(gateways.take_changes().len(), 1);
    for _ in 0..5 {
        gateways.publish_heartbeat(peer(1), session, 0.0, Some(Told::default()));
        director.step(UNCONTESTED).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    director.step(UNCONTESTED).await;
    assert_eq!(gateways.take_changes(), []);
}

#[tokio::test]
async fn unknown_peer_is_assigned_by_transports_in_its_heartbeat() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    announce(&bus);
    director.step(UNCONTESTED).await;
    let position = Some(Position::new(0.0, 0.0, 0.0).into());
    let says = |number: u8, transports: Option<&str>| {
        let (told, transports) = (Some(Told::default()), transports.map(str::to_owned));
        let heartbeat = GatewayHeartbeat { position, told, transports, ..GatewayHeartbeat::default() };
        let headers = Headers::for_session(SessionId::new(1, 1));
        bus.publish(&Subject::PeerHeartbeat(peer(number)), headers, heartbeat.encode_to_vec());
    };
    says(1, Some("p2p"));
    says(2, Some("ws-room,p2p"));
    says(3, None);
    director.step(UNCONTESTED).await;
    let told: Vec<_> = gateways.take_changes().iter().map(|change| change.peer).collect();
    assert_eq!(told, [peer(2), peer(3)], "there is no room for the first");
}

#[tokio::test]
async fn new_leader_mints_later_tokens_despite_clock_skew() {
    let bus = Bus::in_process();
    let mut ends = bus.subscribe("test", &[subject::MEMBERSHIP_ENDS], 16);
    let (mut standby, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    // One that leads, whose clock is an hour ahead.
    let ahead = unix_ms(SystemTime::now()) + 3_600_000;
    let status = ServiceStatus { current_time: ahead, ..ServiceStatus::default() };
    let hello = ServiceDiscoveryMessage { server_name: SERVER_NAME.to_owned(), status: Some(status) };
    bus.publish(&Subject::EngineDiscovery, Headers::default(), hello.encode_to_vec());
    announce(&bus);
    gateways.publish_heartbeat(peer(1), None, 0.0, None);
    standby.step(ElectionState::Standby).await;
    standby.step(leads(2)).await;
    assert_eq!(gateways.take_changes().len(), 1);
    bus.publish(&Subject::PeerDisconnect(peer(1)), Headers::default(), "");
    standby.step(leads(2)).await;
    let ended = MembershipEnded::decode(ends.try_next().unwrap().payload).unwrap();
    let minted_before: Ulid = ended.minted_before.parse().unwrap();
    assert!(minted_before.timestamp_ms() >= ahead, "{minted_before}");
    // The next one hears that, and no clock.
    let mut next = TestDirector::new(&bus);
    let later = Ulid::from_parts(ahead + 1_000, 0);
    let ended = MembershipEnded { minted_before: later.to_string(), ..ended };
    let subject = Subject::MembershipEnded("I1".parse().unwrap());
    bus.publish(&subject, Headers { epoch: Some(2), ..Headers::default() }, ended.encode_to_vec());
    ends.try_next();
    announce(&bus);
    gateways.publish_heartbeat(peer(1), None, 0.0, None);
    next.step(leads(3)).await;
    bus.publish(&Subject::PeerDisconnect(peer(1)), Headers::default(), "");
    next.step(leads(3)).await;
    let ended = MembershipEnded::decode(ends.try_next().unwrap().payload).unwrap();
    assert!(ended.minted_before.parse::<Ulid>().unwrap() > later);
}

#[tokio::test]
async fn peers_wanted_is_answered_by_the_leader_once() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (TestDirector::new(&bus), TestDirector::new(&bus));
    let mut hellos = bus.subscribe("test", &[subject::ENGINE_DISCOVERY], 16);
    first.step(leads(1)).await;
    second.step(ElectionState::Standby).await;
    while hellos.try_next().is_some() {}
    // However many ask at a time.
    for _ in 0..3 {
        bus.publish(&Subject::PeersWanted, Headers::default(), "");
    }
    first.step(leads(1)).await;
    second.step(ElectionState::Standby).await;
    assert_eq!(hellos.try_next().expect("a hello").headers.epoch, Some(1));
    assert!(hellos.try_next().is_none());
}
