use archipelago::Clustering;
use protocol::{
    Address, IslandId, Position, SessionId, Ulid,
    atoll_bus::{GatewayHeartbeat, MembershipEnded, Told},
    v3::IslandChangedMessage,
};
use transports::ws_room;

use super::*;
use crate::{
    ERRAND_QUEUE,
    configured::Minters,
    inbound::Heartbeat,
    messenger::Messenger,
    tests::{announce, peer, room_node, settings},
};

const ALONE: Standing = Standing::Leads(Term { epoch: None });

/// In this term.
fn leads(epoch: u64) -> Standing {
    Standing::Leads(Term { epoch: Some(epoch) })
}

/// A director whose turns are the test's, and so is whether it leads.
struct Bench {
    clock: Clock,
    subscription: Subscription,
    probes: mpsc::Receiver<Input>,
    messenger: Messenger,
    errands: mpsc::Receiver<Errand>,
}

impl Bench {
    fn new(bus: &Bus) -> Self {
        let (errands, receiver) = mpsc::channel(ERRAND_QUEUE);
        let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
        Self {
            clock: Clock::new(settings(), bus.clone(), errands, Leadership::default()),
            subscription: bus.subscribe("director", &crate::patterns(Clustering::Own), 1_024),
            probes: mpsc::channel(1).1,
            messenger: Messenger::new(bus.clone(), Minters::new(minter, &[])),
            errands: receiver,
        }
    }

    /// Hears all that there is, decides, and tells. Whether it was deposed.
    async fn turn(&mut self, standing: Standing) -> bool {
        self.clock.catch_up(&mut self.subscription, &mut self.probes);
        let deposed = self.clock.follow(standing);
        self.clock.flush(Instant::now()).unwrap();
        while let Ok(errand) = self.errands.try_recv() {
            self.messenger.run_errand(errand).await;
        }
        deposed
    }

    fn engine(&self) -> &Engine {
        self.clock.part.leader().expect("it leads").engine()
    }
}

/// The gateways of a test, and what they hear.
struct Gateways {
    bus: Bus,
    heard: Subscription,
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
    fn told(&self) -> Told {
        Told { island: self.island.clone(), node: self.node.clone(), epoch: self.epoch.unwrap_or_default() }
    }
}

impl Gateways {
    fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), heard: bus.subscribe("gateways", &[subject::PEER_ISLAND_CHANGES], 1_024) }
    }

    /// Says where somebody is, and what it was told.
    fn says(&self, peer: Address, session: Option<SessionId>, x: f32, told: Option<Told>) {
        let position = Some(Position::new(x, 0.0, 0.0).into());
        let heartbeat = GatewayHeartbeat { position, told, ..GatewayHeartbeat::default() };
        let headers = Headers { session, ..Headers::default() };
        self.bus.publish(&Subject::PeerHeartbeat(peer), headers, heartbeat.encode_to_vec());
    }

    /// All that was told since.
    fn told(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(envelope) = self.heard.try_next() {
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
async fn a_messenger_that_is_behind_delays_no_flush_and_loses_nothing() {
    // A messenger that does not run at all, until it does.
    let (errands, mut waiting) = mpsc::channel(1);
    let mut clock = Clock::new(settings(), Bus::in_process(), errands, Leadership::default());
    clock.follow(ALONE);
    clock.take(Heard::Input(Input::Transport(room_node("ws://127.0.0.1:5000"))));
    for number in 1..=5 {
        let position = Position::new(f32::from(number) * 1_000.0, 0.0, 0.0);
        let peer = peer(number);
        let (session, desired_room, told, transports) = (None, None, None, None);
        let heartbeat = Heartbeat { peer, session, position, desired_room, told, transports, resumes: None };
        clock.take(Heard::Heartbeat(heartbeat));
        clock.flush(Instant::now()).unwrap();
        let engine = clock.part.leader().unwrap().engine();
        assert_eq!(engine.islands_count(), usize::from(number), "it was flushed");
    }
    let mut told = Vec::new();
    while told.len() < 5 {
        let Some(Errand::News(_, news, _)) = waiting.recv().await else { panic!("news") };
        told.extend(news.assigned.iter().map(|assigned| assigned.peer));
        clock.flush(Instant::now()).unwrap();
    }
    assert_eq!(told, (1..=5).map(peer).collect::<Vec<_>>(), "all of it, in order");
}

#[tokio::test]
async fn who_takes_over_tells_nobody_who_stood_still_and_everybody_who_did_not() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (Bench::new(&bus), Bench::new(&bus));
    let mut gateways = Gateways::new(&bus);
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    for (number, x) in [(1, 0.0), (2, 50.0), (3, 1_000.0), (4, 2_000.0)] {
        gateways.says(peer(number), session, x, None);
    }
    first.turn(leads(1)).await;
    second.turn(Standing::Follows).await;
    let told = gateways.told();
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|change| change.epoch == Some(1) && change.node == "node-1"), "{told:?}");
    // The first is gone; meanwhile one walked up to another, and somebody came.
    gateways.says(peer(4), session, 1_010.0, Some(told[3].told()));
    gateways.says(peer(5), session, 5_000.0, Some(Told::default()));
    drop(first);
    second.turn(leads(2)).await;
    let after = gateways.told();
    let [walked, came] = &after[..] else { panic!("{after:?}") };
    assert_eq!((walked.peer, walked.epoch), (peer(4), Some(2)));
    assert_eq!((&walked.island, walked.from.as_ref()), (&told[2].island, Some(&told[3].island)));
    assert_eq!((came.peer, came.from.as_ref()), (peer(5), None));
    assert!(told.iter().all(|change| change.island != came.island), "no id was there before");
    let island: IslandId = told[0].island.parse().unwrap();
    assert_eq!(second.engine().island(&island).unwrap().size(), 2, "islands are what they were");
    for _ in 0..3 {
        second.turn(leads(2)).await;
    }
    assert_eq!(gateways.told(), []);
}

#[tokio::test]
async fn who_has_only_just_begun_knows_from_heartbeats_what_everybody_was_told() {
    let bus = Bus::in_process();
    let (mut first, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.says(peer(1), session, 0.0, None);
    gateways.says(peer(2), session, 60.0, None);
    first.turn(leads(1)).await;
    let met = gateways.told();
    assert_eq!(met.len(), 2);
    drop(first);
    let mut second = Bench::new(&bus);
    announce(&bus);
    let island = met[0].told();
    // Where they stand now they would not meet.
    gateways.says(peer(1), session, 0.0, Some(island.clone()));
    gateways.says(peer(2), session, 75.0, Some(island.clone()));
    second.turn(Standing::Follows).await;
    second.turn(leads(2)).await;
    assert_eq!(gateways.told(), []);
    assert_eq!(second.engine().islands_count(), 1);
}

#[tokio::test]
async fn who_may_not_lead_for_the_moment_says_nothing_and_then_says_it() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    announce(&bus);
    director.turn(leads(1)).await;
    gateways.says(peer(1), None, 0.0, None);
    for _ in 0..3 {
        assert!(!director.turn(Standing::Unknown).await);
    }
    let mut reports = bus.subscribe("test", &[subject::ENGINE_ISLANDS, subject::ENGINE_DISCOVERY], 16);
    director.clock.report();
    director.clock.say_hello();
    assert!(reports.try_next().is_none() && director.errands.try_recv().is_err());
    assert_eq!(gateways.told(), []);
    // Nobody else led meanwhile: in whatever term, it goes on.
    director.turn(leads(3)).await;
    let told = gateways.told();
    assert_eq!((told.len(), told[0].epoch), (1, Some(3)));
}

#[tokio::test]
async fn who_is_deposed_forgets_all_hears_anew_and_can_take_over_again() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (Bench::new(&bus), Bench::new(&bus));
    let mut gateways = Gateways::new(&bus);
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.says(peer(1), session, 0.0, None);
    first.turn(leads(1)).await;
    second.turn(Standing::Follows).await;
    let told = gateways.told();
    // The first was stopped: it has decided nothing of what came meanwhile.
    gateways.says(peer(2), session, 3_000.0, None);
    second.turn(leads(2)).await;
    assert!(first.turn(Standing::Follows).await);
    assert_eq!(first.clock.part.leader().map(Leader::term), None);
    let newcomer = gateways.told();
    assert_eq!((newcomer.len(), newcomer[0].epoch), (1, Some(2)), "one of them told it");
    // Gateways repeat where everybody is; then the second ends.
    announce(&bus);
    gateways.says(peer(1), session, 0.0, Some(told[0].told()));
    gateways.says(peer(2), session, 3_000.0, Some(newcomer[0].told()));
    first.turn(Standing::Follows).await;
    drop(second);
    first.turn(leads(3)).await;
    assert_eq!(gateways.told(), []);
    assert_eq!((first.engine().peers_count(), first.engine().islands_count()), (2, 2));
}

#[tokio::test]
async fn who_led_and_leads_again_after_another_begins_anew() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (Bench::new(&bus), Bench::new(&bus));
    first.turn(leads(1)).await;
    second.turn(leads(2)).await;
    // Its first turn after it was stopped finds it leading, as if nothing had been.
    assert!(first.turn(leads(3)).await);
}

#[tokio::test]
async fn what_was_decided_in_a_term_that_is_over_is_not_told() {
    let bus = Bus::in_process();
    let (mut first, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    announce(&bus);
    gateways.says(peer(1), None, 0.0, None);
    first.clock.catch_up(&mut first.subscription, &mut first.probes);
    first.clock.follow(leads(1));
    first.clock.flush(Instant::now()).unwrap();
    // It is with the messenger when another begins to lead.
    Bench::new(&bus).turn(leads(2)).await;
    let errand = first.errands.try_recv().unwrap();
    first.messenger.run_errand(errand).await;
    assert_eq!(gateways.told(), []);
}

#[tokio::test]
async fn whoever_did_not_hear_what_it_was_told_is_told_again_and_nobody_else() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.says(peer(1), session, 0.0, Some(Told::default()));
    gateways.says(peer(2), session, 1_000.0, Some(Told::default()));
    // A foreign gateway's.
    gateways.says(peer(3), None, 2_000.0, None);
    director.turn(ALONE).await;
    let told = gateways.told();
    assert_eq!(told.len(), 3);
    let repeat = |x: f32| {
        // The first of them never hears it.
        gateways.says(peer(1), session, x, Some(Told::default()));
        gateways.says(peer(2), session, 1_000.0, Some(told[1].told()));
        gateways.says(peer(3), None, 2_000.0, None);
    };
    repeat(0.0);
    director.turn(ALONE).await;
    repeat(0.0);
    director.turn(ALONE).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    director.turn(ALONE).await;
    repeat(0.0);
    director.turn(ALONE).await;
    let again = gateways.told();
    assert_eq!(again, [Change { from: None, ..told[0].clone() }]);
}

#[tokio::test]
async fn nothing_is_told_again_before_two_heartbeats_a_second_apart_have_asked_for_it() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    let session = Some(SessionId::new(1, 1));
    announce(&bus);
    gateways.says(peer(1), session, 0.0, Some(Told::default()));
    director.turn(ALONE).await;
    assert_eq!(gateways.told().len(), 1);
    for _ in 0..5 {
        gateways.says(peer(1), session, 0.0, Some(Told::default()));
        director.turn(ALONE).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    director.turn(ALONE).await;
    assert_eq!(gateways.told(), []);
}

#[tokio::test]
async fn whoever_the_director_never_heard_of_can_join_what_its_heartbeat_says() {
    let bus = Bus::in_process();
    let (mut director, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    announce(&bus);
    director.turn(ALONE).await;
    let position = Some(Position::new(0.0, 0.0, 0.0).into());
    let says = |number: u8, transports: Option<&str>| {
        let (told, transports) = (Some(Told::default()), transports.map(str::to_owned));
        let heartbeat = GatewayHeartbeat { position, told, transports, ..GatewayHeartbeat::default() };
        let headers = Headers::of_session(SessionId::new(1, 1));
        bus.publish(&Subject::PeerHeartbeat(peer(number)), headers, heartbeat.encode_to_vec());
    };
    says(1, Some("p2p"));
    says(2, Some("ws-room,p2p"));
    says(3, None);
    director.turn(ALONE).await;
    let told: Vec<_> = gateways.told().iter().map(|change| change.peer).collect();
    assert_eq!(told, [peer(2), peer(3)], "there is no room for the first");
}

#[tokio::test]
async fn tokens_of_a_new_lead_are_later_than_any_of_before_whatever_the_clocks_say() {
    let bus = Bus::in_process();
    let mut ends = bus.subscribe("test", &[subject::MEMBERSHIP_ENDS], 16);
    let (mut standby, mut gateways) = (Bench::new(&bus), Gateways::new(&bus));
    // One that leads, whose clock is an hour ahead.
    let ahead = unix_ms(SystemTime::now()) + 3_600_000;
    let status = ServiceStatus { current_time: ahead, ..ServiceStatus::default() };
    let hello = ServiceDiscoveryMessage { server_name: SERVER_NAME.to_owned(), status: Some(status) };
    bus.publish(&Subject::EngineDiscovery, Headers::default(), hello.encode_to_vec());
    announce(&bus);
    gateways.says(peer(1), None, 0.0, None);
    standby.turn(Standing::Follows).await;
    standby.turn(leads(2)).await;
    assert_eq!(gateways.told().len(), 1);
    bus.publish(&Subject::PeerDisconnect(peer(1)), Headers::default(), "");
    standby.turn(leads(2)).await;
    let ended = MembershipEnded::decode(ends.try_next().unwrap().payload).unwrap();
    let minted_before: Ulid = ended.minted_before.parse().unwrap();
    assert!(minted_before.timestamp_ms() >= ahead, "{minted_before}");
    // The next one hears that, and no clock.
    let mut next = Bench::new(&bus);
    let later = Ulid::from_parts(ahead + 1_000, 0);
    let ended = MembershipEnded { minted_before: later.to_string(), ..ended };
    let subject = Subject::MembershipEnded("I1".parse().unwrap());
    bus.publish(&subject, Headers { epoch: Some(2), ..Headers::default() }, ended.encode_to_vec());
    ends.try_next();
    announce(&bus);
    gateways.says(peer(1), None, 0.0, None);
    next.turn(leads(3)).await;
    bus.publish(&Subject::PeerDisconnect(peer(1)), Headers::default(), "");
    next.turn(leads(3)).await;
    let ended = MembershipEnded::decode(ends.try_next().unwrap().payload).unwrap();
    assert!(ended.minted_before.parse::<Ulid>().unwrap() > later);
}

#[tokio::test]
async fn who_asks_who_is_there_hears_of_the_director_that_leads() {
    let bus = Bus::in_process();
    let (mut first, mut second) = (Bench::new(&bus), Bench::new(&bus));
    let mut hellos = bus.subscribe("test", &[subject::ENGINE_DISCOVERY], 16);
    first.turn(leads(1)).await;
    second.turn(Standing::Follows).await;
    while hellos.try_next().is_some() {}
    // However many ask at a time.
    for _ in 0..3 {
        bus.publish(&Subject::PeersWanted, Headers::default(), "");
    }
    first.turn(leads(1)).await;
    second.turn(Standing::Follows).await;
    assert_eq!(hellos.try_next().expect("a hello").headers.epoch, Some(1));
    assert!(hellos.try_next().is_none());
}
