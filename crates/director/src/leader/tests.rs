//! Tests of a leader with simulated time: the rate limit of jumps.

use bus::{Bus, Subscription};
use protocol::{Address, IslandId, SessionId, Subject, subject};
use transports::ws_room;

use super::*;
use crate::{
    configured_nodes::Minters,
    director::JOB_QUEUE,
    publisher::Publisher,
    room_gate::RoomGate,
    standby::Replica,
    tests::{peer, room_node},
};

const FLUSH_MS: u64 = 250;

/// A leader with a clock that the test advances, in milliseconds, and the messages that it publishes.
struct TestLeader {
    leader: Leader,
    publisher: Publisher,
    jobs: mpsc::Sender<PublishJob>,
    pending_jobs: mpsc::Receiver<PublishJob>,
    member_packets: Subscription,
    now_ms: u64,
}

impl TestLeader {
    fn new() -> Self {
        let bus = Bus::in_process();
        let (jobs, pending_jobs) = mpsc::channel(JOB_QUEUE);
        let handover = Replica::default().hand_over(0, 0);
        let term = Term { epoch: None };
        let settings = archipelago::Settings::default();
        let leader = Leader::take_over(settings, 1, handover, term, Duration::ZERO).unwrap();
        let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
        let publisher = Publisher::new(
            bus.clone(),
            Minters::new(minter, &[]),
            RoomGate::new(Vec::new(), mpsc::channel(1).0),
        );
        let patterns = [subject::ISLAND_PEER_JOINS, subject::ISLAND_PEER_LEAVES];
        let members = bus.subscribe("test", &patterns, 10_000);
        Self { leader, publisher, jobs, pending_jobs, member_packets: members, now_ms: 0 }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    fn heartbeat(&mut self, peer: Address, session: Option<SessionId>, x: f32) {
        let position = Position::new(x, 0.0, 0.0);
        let heartbeat = Heartbeat { session, ..Heartbeat::new(peer, position) };
        self.leader.handle(BusEvent::Heartbeat { heartbeat, epoch: 0 }, self.now());
    }

    /// Advances the clock, and flushes when a flush is due.
    async fn advance(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now_ms += 1;
            if self.now_ms.is_multiple_of(FLUSH_MS) {
                self.flush().await;
            }
        }
    }

    async fn flush(&mut self) {
        let node = room_node("ws://127.0.0.1:5000");
        self.leader.handle(BusEvent::Input(Input::Transport(node)), self.now());
        self.leader.flush(0, &self.jobs, self.now()).unwrap();
        while let Ok(job) = self.pending_jobs.try_recv() {
            self.publisher.run_job(job).await;
        }
    }

    fn x(&self, peer: Address) -> f32 {
        self.leader.engine().peer(peer).unwrap().position().x
    }

    fn island(&self, peer: Address) -> IslandId {
        self.leader.engine().peer(peer).unwrap().island().unwrap().id()
    }

    /// How many joins and leaves the members of an island were sent since the last call.
    fn packets_to_members(&mut self, island: &IslandId) -> usize {
        let mut packets = 0;
        while let Some(envelope) = self.member_packets.try_next() {
            match envelope.subject() {
                Some(Subject::IslandPeerJoin(of) | Subject::IslandPeerLeft(of)) => {
                    packets += usize::from(of == *island);
                }
                subject => panic!("{subject:?}"),
            }
        }
        packets
    }
}

#[tokio::test]
async fn teleporter_costs_bystanders_one_packet_a_second() {
    let mut test = TestLeader::new();
    let (here, there, teleporter) = (peer(1), peer(2), peer(3));
    test.heartbeat(here, None, 0.0);
    test.heartbeat(there, None, 1_000.0);
    test.flush().await;
    let island = test.island(here);
    // 20 heartbeats a second, for ten seconds.
    for beat in 0..200_u16 {
        test.heartbeat(teleporter, None, f32::from(beat % 2) * 1_000.0);
        test.advance(50).await;
    }
    let packets = test.packets_to_members(&island);
    println!("packets to each bystander in 10 s: {packets}");
    assert!((5..=1 + 5 + 10).contains(&packets), "{packets}");
    // It stays at 1,000 m from now on.
    test.heartbeat(here, None, 0.0);
    test.heartbeat(there, None, 1_000.0);
    test.advance(1_000 + FLUSH_MS).await;
    assert_eq!(test.x(teleporter), 1_000.0);
    assert_eq!(test.island(teleporter), test.island(there));
}

#[tokio::test]
async fn position_of_a_walker_is_never_withheld() {
    let mut test = TestLeader::new();
    for beat in 0..240_u16 {
        // 10 m/s, two heartbeats a second, for two minutes.
        let x = f32::from(beat) * 5.0;
        test.heartbeat(peer(1), None, x);
        assert_eq!(test.x(peer(1)), x);
        test.advance(500).await;
    }
}

#[tokio::test]
async fn withheld_position_does_not_bring_a_departed_peer_back() {
    let (older, newer) = (Some(SessionId::new(1, 1)), Some(SessionId::new(2, 1)));
    for (input, is_there) in [
        (Input::Disconnected { peer: peer(1), session: older }, false),
        (Input::Connected { peer: peer(1), session: newer, transports: None, resumes: None }, true),
    ] {
        let mut test = TestLeader::new();
        for x in 0..9_u16 {
            test.heartbeat(peer(1), older, f32::from(x) * 100.0);
        }
        test.flush().await;
        assert_eq!(test.x(peer(1)), 500.0);
        test.leader.handle(BusEvent::Input(input), test.now());
        test.advance(2_000).await;
        let x = test.leader.engine().peer(peer(1)).map(|peer| peer.position().x);
        assert_eq!(x, is_there.then_some(500.0));
    }
}

#[tokio::test]
async fn explain_names_the_withheld_position_of_a_jumping_peer() {
    let mut test = TestLeader::new();
    test.heartbeat(peer(2), None, 500.0);
    for x in 0..9_u16 {
        test.heartbeat(peer(1), None, f32::from(x) * 100.0);
    }
    test.flush().await;
    let withheld = format!("{} jumps too often: its position (800.0, 0.0) is withheld", peer(1));
    for question in [Question::Peer(peer(1)), Question::Pair(peer(2), peer(1))] {
        let summary = test.leader.explain(&question, test.now()).summary;
        assert!(summary.contains(&withheld), "{summary}");
    }
    let summary = test.leader.explain(&Question::Peer(peer(2)), test.now()).summary;
    assert!(!summary.contains("jumps"), "{summary}");
    test.advance(1_000).await;
    let summary = test.leader.explain(&Question::Peer(peer(1)), test.now()).summary;
    assert!(!summary.contains("jumps"), "{summary}");
}
