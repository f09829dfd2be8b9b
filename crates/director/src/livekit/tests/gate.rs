//! The gate that holds assignments until rooms exist, with a server task that the test plays.

use std::sync::Arc;

use archipelago::{AssignedIsland, Input};
use protocol::{Address, IslandId, MediaGrants, NodeName, Position};
use tokio::sync::{mpsc, oneshot};
use transports::livekit::{ApiError, Keys};

use super::super::{
    command::{Command, RoomChanges},
    server::{ServerSeed, servers},
    settings::LiveKitSettings,
};
use crate::{
    ConfiguredNode, TransportOffer,
    flush_batch::PeerAssignment,
    room_gate::{Admission, RoomGate},
};

type Reply = oneshot::Sender<Result<(), ApiError>>;

struct Gate {
    gate: RoomGate,
    seeds: Vec<ServerSeed>,
    inputs: mpsc::Receiver<Input>,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn configured(name: &str, auto_create: bool) -> ConfiguredNode {
    let settings = LiveKitSettings {
        url: "ws://server".into(),
        api_url: "http://server".into(),
        keys: Keys::new("key", "secret"),
        token_ttl: 300 * super::SECOND,
        probed: true,
        hang_timeout: 3 * super::SECOND,
        auto_create,
        grace: 10 * super::SECOND,
    };
    let offer = TransportOffer::LiveKit(Arc::new(settings));
    ConfiguredNode { node: node(name), offer, max_island_size: 10, max_users: None, draining: false }
}

fn island(id: &str) -> IslandId {
    id.parse().unwrap()
}

/// An assignment of a peer that was in `from` to island `I1` with these members.
fn assignment(number: u8, from: Option<&str>, on: &str, members: &[u8]) -> PeerAssignment {
    let member = |&number: &u8| (Address::new([number; 20]), Position::new(0.0, 0.0, 0.0));
    let island_of = AssignedIsland {
        id: island("I1"),
        node: node(on),
        node_url: "ws://server".into(),
        rule: None,
        media: MediaGrants::default(),
        members: members.iter().map(member).collect(),
    };
    PeerAssignment {
        peer: Address::new([number; 20]),
        session: None,
        from: from.map(island),
        island: Arc::new(island_of),
    }
}

/// No change.
fn changes() -> RoomChanges {
    RoomChanges {
        ended: Vec::new(),
        taken_over: Vec::new(),
        closed: Vec::new(),
        media_changed: Vec::new(),
        published_at: std::time::SystemTime::now(),
    }
}

/// The end of memberships of island `I1`, on one node or on all.
fn ended(on: Option<&str>, numbers: &[u8]) -> RoomChanges {
    let peers = numbers.iter().map(|&number| Address::new([number; 20])).collect();
    RoomChanges { ended: vec![(island("I1"), on.map(node), peers)], ..changes() }
}

impl Gate {
    fn new(auto_create: bool) -> Self {
        let (servers, seeds, _) = servers(&["a", "b"].map(|name| configured(name, auto_create)));
        let (sender, inputs) = mpsc::channel(8);
        Self { gate: RoomGate::new(servers, sender), seeds, inputs }
    }

    /// Admits an assignment, and returns whether it is published at once.
    fn admit(&mut self, assignment: PeerAssignment) -> bool {
        matches!(self.gate.admit(assignment), Admission::Publish(_, None))
    }

    /// The next request to create the room on this node.
    async fn request(&mut self, on: &str) -> Reply {
        let seed = self.seeds.iter_mut().find(|seed| seed.configured.node == node(on)).unwrap();
        loop {
            // The attempts run while the gate is polled.
            tokio::select! {
                command = seed.commands.recv() => match command.unwrap() {
                    Command::Open(request) => return request.reply,
                    Command::Apply(_) => {}
                },
                _ = self.gate.next() => panic!("an outcome before the reply"),
            }
        }
    }

    /// The released assignments: peer, `from`, and number of members; and whether the token has the options.
    async fn released(&mut self) -> (Vec<(u8, Option<String>, usize)>, bool) {
        let opened = self.gate.next().await;
        let (held, options) = self.gate.opened(opened);
        let fields = |held: PeerAssignment| {
            let from = held.from.map(|from| from.to_string());
            (held.peer.as_bytes()[0], from, held.island.members.len())
        };
        (held.into_iter().map(fields).collect(), options.is_some())
    }
}

#[tokio::test(start_paused = true)]
async fn assignments_of_several_flushes_are_released_together() {
    let mut gate = Gate::new(false);
    assert!(!gate.admit(assignment(1, None, "a", &[1])));
    gate.gate.finish_batch();
    let reply = gate.request("a").await;
    assert!(!gate.admit(assignment(2, Some("I9"), "a", &[1, 2])));
    gate.gate.finish_batch();
    reply.send(Ok(())).unwrap();
    // Both have the members of the last flush.
    let (released, in_token) = gate.released().await;
    assert_eq!(released, [(1, None, 2), (2, Some("I9".into()), 2)]);
    assert!(!in_token);
    assert!(gate.admit(assignment(3, None, "a", &[1, 2, 3])), "the room exists");
}

#[tokio::test(start_paused = true)]
async fn fallback_names_the_island_that_the_client_knows() {
    let mut gate = Gate::new(false);
    assert!(!gate.admit(assignment(1, Some("I9"), "a", &[1])));
    let reply = gate.request("a").await;
    reply.send(Err(ApiError::Unreachable("test".into()))).unwrap();
    assert_eq!(gate.released().await, (Vec::new(), false));
    let Input::RoomUnavailable { island: id, node: on, retry_in, .. } = gate.inputs.try_recv().unwrap()
    else {
        panic!("another input");
    };
    assert_eq!((id, on, retry_in), (island("I1"), node("a"), 5 * super::SECOND));
    // The engine moves the island, which it believes the peer to be in.
    let Admission::Publish(fallback, None) = gate.gate.admit(assignment(1, Some("I1"), "rooms", &[1])) else {
        panic!("it is held");
    };
    assert_eq!(fallback.from, Some(island("I9")));
    gate.gate.finish_batch();
    let again = gate.gate.admit(assignment(1, Some("I1"), "rooms", &[1]));
    assert!(
        matches!(again, Admission::Publish(PeerAssignment { from: Some(from), .. }, _) if from == island("I1"))
    );
}

#[tokio::test(start_paused = true)]
async fn backoff_grows_over_the_returns_of_the_island() {
    let mut gate = Gate::new(false);
    let mut retries = Vec::new();
    for _ in 0..3 {
        assert!(!gate.admit(assignment(1, None, "a", &[1])));
        let reply = gate.request("a").await;
        reply.send(Err(ApiError::Unreachable("test".into()))).unwrap();
        gate.released().await;
        let Input::RoomUnavailable { retry_in, .. } = gate.inputs.try_recv().unwrap() else { panic!() };
        retries.push(retry_in.as_secs());
        // It is on another node until the engine tries this one again.
        assert!(gate.admit(assignment(1, None, "rooms", &[1])));
    }
    assert_eq!(retries, [5, 10, 20]);
    // An island that ends takes its backoff with it.
    gate.gate.apply(RoomChanges { closed: vec![island("I1")], ..changes() });
    assert!(!gate.admit(assignment(1, None, "a", &[1])));
    gate.request("a").await.send(Err(ApiError::Unreachable("test".into()))).unwrap();
    gate.released().await;
    let Input::RoomUnavailable { retry_in, .. } = gate.inputs.try_recv().unwrap() else { panic!() };
    assert_eq!(retry_in.as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn late_reply_of_an_earlier_node_releases_nothing() {
    let mut gate = Gate::new(false);
    assert!(!gate.admit(assignment(1, None, "a", &[1])));
    let first = gate.request("a").await;
    for on in ["b", "a"] {
        gate.gate.apply(ended(Some(if on == "b" { "a" } else { "b" }), &[1]));
        assert!(!gate.admit(assignment(1, Some("I1"), on, &[1])));
        gate.gate.finish_batch();
    }
    // Its attempt ended when the island moved away.
    let _ = first.send(Ok(()));
    gate.request("a").await.send(Ok(())).unwrap();
    assert_eq!(gate.released().await, (vec![(1, None, 1)], false));
    assert!(gate.admit(assignment(2, None, "a", &[1, 2])));
    assert!(!gate.admit(assignment(2, None, "b", &[1, 2])), "the room on the other node was left");
}

#[tokio::test(start_paused = true)]
async fn peer_that_left_is_not_released() {
    let mut gate = Gate::new(false);
    for number in [1, 2] {
        assert!(!gate.admit(assignment(number, None, "a", &[1, 2])));
    }
    gate.gate.finish_batch();
    let reply = gate.request("a").await;
    gate.gate.apply(ended(None, &[2]));
    gate.gate.finish_batch();
    reply.send(Ok(())).unwrap();
    assert_eq!(gate.released().await, (vec![(1, None, 1)], false));
}

#[tokio::test(start_paused = true)]
async fn slow_server_gets_the_options_in_the_token() {
    let mut gate = Gate::new(true);
    assert!(!gate.admit(assignment(1, None, "a", &[1])));
    let began = tokio::time::Instant::now();
    let reply = gate.request("a").await;
    assert_eq!(gate.released().await, (vec![(1, None, 1)], true));
    assert_eq!(began.elapsed(), super::SECOND);
    drop(reply);
    let next = gate.gate.admit(assignment(2, None, "a", &[1, 2]));
    assert!(matches!(next, Admission::Publish(_, Some(_))), "the room may not exist");
}

#[tokio::test(start_paused = true)]
async fn held_assignments_end_with_their_leader() {
    let mut gate = Gate::new(false);
    assert!(!gate.admit(assignment(1, Some("I9"), "a", &[1])));
    let reply = gate.request("a").await;
    gate.gate.clear();
    let _ = reply.send(Ok(()));
    // The engine of the next leader starts from the reports of clients.
    assert!(!gate.admit(assignment(1, Some("I8"), "a", &[1])));
    gate.request("a").await.send(Ok(())).unwrap();
    let (released, _) = gate.released().await;
    assert_eq!(released, [(1, Some("I8".into()), 1)]);
}
