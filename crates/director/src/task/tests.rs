//! Leadership changes between directors that share a bus, step by step.

use archipelago::{Clustering, Engine, Heartbeat};
use protocol::{
    Address, IslandId, Position, SessionId, Ulid,
    atoll_bus::{GatewayHeartbeat, MembershipEnded, Told},
    subject,
    v3::IslandChangedMessage,
};
use transports::ws_room;

use super::*;
use crate::meshes::mesh_task;
use crate::{
    configured_nodes::Minters,
    director::JOB_QUEUE,
    publisher::Publisher,
    room_gate::RoomGate,
    tests::{announce, peer, room_node, settings},
};

const UNCONTESTED: ElectionState = ElectionState::Leader(Term { epoch: None });

/// No p2p nodes.
fn no_meshes() -> MeshHandle {
    mesh_task(&Bus::in_process(), &[], mpsc::channel(1).0).1
}

/// The state of a leader in this term.
fn leads(epoch: u64) -> ElectionState {
    ElectionState::Leader(Term { epoch: Some(epoch) })
}

/// A director that the test steps, with an election state of the test's choice.
struct TestDirector {
    task: DirectorTask,
    subscription: Subscription,
    probes: mpsc::Receiver<Input>,
    publisher: Publisher,
    jobs: mpsc::Receiver<PublishJob>,
}

impl TestDirector {
    fn new(bus: &Bus) -> Self {
        let (jobs, receiver) = mpsc::channel(JOB_QUEUE);
        let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
        Self {
            task: DirectorTask::new(settings(), bus.clone(), jobs, no_meshes(), Leadership::default()),
            subscription: bus.subscribe(
                "director",
                &crate::director::subscribed_patterns(Clustering::ByDistance),
                1_024,
            ),
            probes: mpsc::channel(1).1,
            publisher: Publisher::new(
                bus.clone(),
                Minters::new(minter, &[]),
                RoomGate::new(Vec::new(), mpsc::channel(1).0),
            ),
            jobs: receiver,
        }
    }

    /// Processes all messages, flushes, and publishes. Returns whether it was deposed.
    async fn step(&mut self, state: ElectionState) -> bool {
        self.task.drain_inputs(&mut self.subscription, &mut self.probes);
        let deposed = self.task.apply_election_state(state);
        self.task.flush(Instant::now()).unwrap();
        while let Ok(job) = self.jobs.try_recv() {
            self.publisher.run_job(job).await;
        }
        deposed
    }

    fn engine(&self) -> &Engine {
        self.task.mode.leader().expect("it leads").engine()
    }
}

/// The gateways of a test, and the assignments that they receive.
struct Gateways {
    bus: Bus,
    changes: Subscription,
}

/// An assignment that a client was sent.
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

    /// Publishes a peer's heartbeat with its position and the assignment that its client has.
    fn publish_heartbeat(&self, peer: Address, session: Option<SessionId>, x: f32, assignment: Option<Told>) {
        let position = Some(Position::new(x, 0.0, 0.0).into());
        let heartbeat = GatewayHeartbeat { position, told: assignment, ..GatewayHeartbeat::default() };
        let headers = Headers { session, ..Headers::default() };
        self.bus.publish(&Subject::PeerHeartbeat(peer), headers, heartbeat.encode_to_vec());
    }

    /// All assignments received since the last call.
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
    // A publisher that does not run until the loop below takes its jobs.
    let (jobs, mut pending_jobs) = mpsc::channel(1);
    let mut task = DirectorTask::new(settings(), Bus::in_process(), jobs, no_meshes(), Leadership::default());
    task.apply_election_state(UNCONTESTED);
    task.apply(BusEvent::Input(Input::Transport(room_node("ws://127.0.0.1:5000"))));
    for number in 1..=5 {
        let position = Position::new(f32::from(number) * 1_000.0, 0.0, 0.0);
        let heartbeat = Heartbeat::new(peer(number), position);
        task.apply(BusEvent::Heartbeat { heartbeat, epoch: 0 });
        task.flush(Instant::now()).unwrap();
        let engine = task.mode.leader().unwrap().engine();
        assert_eq!(engine.islands_count(), usize::from(number), "it was flushed");
    }
    let mut assignments = Vec::new();
    while assignments.len() < 5 {
        let Some(PublishJob::Batch(_, batch, _)) = pending_jobs.recv().await else { panic!("no batch") };
        assignments.extend(batch.assigned.iter().map(|assigned| assigned.peer));
        task.flush(Instant::now()).unwrap();
    }
    assert_eq!(assignments, (1..=5).map(peer).collect::<Vec<_>>(), "all of it, in order");
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
    let assignments = gateways.take_changes();
    assert_eq!(assignments.len(), 4);
    assert!(
        assignments.iter().all(|change| change.epoch == Some(1) && change.node == "node-1"),
        "{assignments:?}"
    );
    // The first director is gone. Meanwhile peer 4 walked up to peer 3, and peer 5 joined.
    gateways.publish_heartbeat(peer(4), session, 1_010.0, Some(assignments[3].assignment()));
    gateways.publish_heartbeat(peer(5), session, 5_000.0, Some(Told::default()));
    drop(first);
    second.step(leads(2)).await;
    let after = gateways.take_changes();
    let [walked, came] = &after[..] else { panic!("{after:?}") };
    assert_eq!((walked.peer, walked.epoch), (peer(4), Some(2)));
    assert_eq!(
        (&walked.island, walked.from.as_ref()),
        (&assignments[2].island, Some(&assignments[3].island))
    );
    assert_eq!((came.peer, came.from.as_ref()), (peer(5), None));
    assert!(assignments.iter().all(|change| change.island != came.island), "the id is new");
    let island: IslandId = assignments[0].island.parse().unwrap();
    assert_eq!(second.engine().island(&island).unwrap().size(), 2, "the islands are unchanged");
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
    // At 75 m they are beyond the join distance: they share an island only because they did before.
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
    // No other director led meanwhile, so it continues although the epoch is another.
    director.step(leads(3)).await;
    let assignments = gateways.take_changes();
    assert_eq!((assignments.len(), assignments[0].epoch), (1, Some(3)));
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
    let assignments = gateways.take_changes();
    // The first director was paused: it has processed none of the messages since.
    gateways.publish_heartbeat(peer(2), session, 3_000.0, None);
    second.step(leads(2)).await;
    assert!(first.step(ElectionState::Standby).await);
    assert_eq!(first.task.mode.leader().map(Leader::term), None);
    let newcomer = gateways.take_changes();
    assert_eq!((newcomer.len(), newcomer[0].epoch), (1, Some(2)), "one director assigned it");
    // Gateways repeat all heartbeats; then the second director ends.
    announce(&bus);
    gateways.publish_heartbeat(peer(1), session, 0.0, Some(assignments[0].assignment()));
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
    // It was paused through the other's whole term: its first step finds it leading.
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
    // The batch is with the publisher when another director takes over.
    TestDirector::new(&bus).step(leads(2)).await;
    let job = first.jobs.try_recv().unwrap();
    first.publisher.run_job(job).await;
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
    // The heartbeat of a foreign gateway.
    gateways.publish_heartbeat(peer(3), None, 2_000.0, None);
    director.step(UNCONTESTED).await;
    let assignments = gateways.take_changes();
    assert_eq!(assignments.len(), 3);
    let repeat = |x: f32| {
        // Peer 1 never receives its assignment.
        gateways.publish_heartbeat(peer(1), session, x, Some(Told::default()));
        gateways.publish_heartbeat(peer(2), session, 1_000.0, Some(assignments[1].assignment()));
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
    assert_eq!(again, [Change { from: None, ..assignments[0].clone() }]);
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
    let publish_transports = |number: u8, transports: Option<&str>| {
        let (assignment, transports) = (Some(Told::default()), transports.map(str::to_owned));
        let heartbeat =
            GatewayHeartbeat { position, told: assignment, transports, ..GatewayHeartbeat::default() };
        let headers = Headers::for_session(SessionId::new(1, 1));
        bus.publish(&Subject::PeerHeartbeat(peer(number)), headers, heartbeat.encode_to_vec());
    };
    publish_transports(1, Some("p2p"));
    publish_transports(2, Some("ws-room,p2p"));
    publish_transports(3, None);
    director.step(UNCONTESTED).await;
    let assignments: Vec<_> = gateways.take_changes().iter().map(|change| change.peer).collect();
    assert_eq!(assignments, [peer(2), peer(3)], "there is no room for the first");
}

#[tokio::test]
async fn new_leader_mints_later_tokens_despite_clock_skew() {
    let bus = Bus::in_process();
    let mut ends = bus.subscribe("test", &[subject::MEMBERSHIP_ENDS], 16);
    let (mut standby, mut gateways) = (TestDirector::new(&bus), Gateways::new(&bus));
    // A leader with a clock that is an hour ahead.
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
    // The next director learns this from the revocation only, without the leader's clock.
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
    // However many ask at once.
    for _ in 0..3 {
        bus.publish(&Subject::PeersWanted, Headers::default(), "");
    }
    first.step(leads(1)).await;
    second.step(ElectionState::Standby).await;
    assert_eq!(hellos.try_next().expect("a hello").headers.epoch, Some(1));
    assert!(hellos.try_next().is_none());
}
