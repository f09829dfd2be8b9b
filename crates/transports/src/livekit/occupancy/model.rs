//! Property tests: any interleaving of events and lists leads to the participants that the server has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::livekit::webhook::{Event, EventKind, EventParticipant, EventRoom};

const ROOMS: usize = 2;
const IDENTITIES: usize = 3;

/// One action on the server, and how its events are delivered.
#[derive(Debug, Clone)]
struct Action {
    kind: ActionKind,
    room: usize,
    identity: usize,
    /// For each delivery of its events, the delay in steps.
    deliveries: Vec<u64>,
    /// For a list: when it is passed, in steps after its request.
    delay: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ActionKind {
    Join,
    Leave,
    /// The room is closed and all its participants leave; the next join creates it again.
    Finish,
    /// A list is requested.
    List,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let kind = prop_oneof![
        5 => Just(ActionKind::Join),
        3 => Just(ActionKind::Leave),
        1 => Just(ActionKind::Finish),
        2 => Just(ActionKind::List),
    ];
    let action = (kind, 0..ROOMS, 0..IDENTITIES, vec(0..12_u64, 1..=3), 0..4_u64);
    let action = action.prop_map(|(kind, room, identity, deliveries, delay)| Action {
        kind,
        room,
        identity,
        deliveries,
        delay,
    });
    vec(action, 1..40)
}

/// Something that arrives at a step.
#[derive(Debug, Clone)]
enum Arrival {
    Event(Event),
    List { room: String, participants: Vec<Participant>, requested_at: u64 },
}

/// The true state of the server, and its messages by step of arrival.
#[derive(Default)]
struct Server {
    rooms: [BTreeMap<usize, Participant>; ROOMS],
    creations: [u32; ROOMS],
    arrivals: BTreeMap<u64, Vec<Arrival>>,
    last_list: [u64; ROOMS],
}

impl Server {
    /// Runs an action at a step. Steps are seconds.
    fn run(&mut self, action: &Action, step: u64) {
        let Action { kind, room, identity, .. } = *action;
        match kind {
            ActionKind::Join => {
                let participant = Participant {
                    identity: format!("identity {identity}"),
                    sid: format!("PA_{step}"),
                    joined_ms: step * 1_000,
                    counted: true,
                };
                if let Some(replaced) = self.rooms[room].insert(identity, participant.clone()) {
                    self.send(EventKind::ParticipantLeft, Some(replaced), action, step);
                }
                self.send(EventKind::ParticipantJoined, Some(participant), action, step);
            }
            ActionKind::Leave => {
                if let Some(participant) = self.rooms[room].remove(&identity) {
                    self.send(EventKind::ParticipantLeft, Some(participant), action, step);
                }
            }
            ActionKind::Finish => {
                for participant in std::mem::take(&mut self.rooms[room]).into_values() {
                    self.send(EventKind::ParticipantLeft, Some(participant), action, step);
                }
                self.send(EventKind::RoomFinished, None, action, step);
                self.creations[room] += 1;
            }
            ActionKind::List => {
                let participants = self.rooms[room].values().cloned().collect();
                let list = Arrival::List { room: room_name(room), participants, requested_at: step };
                // Lists of a room arrive in the order of their requests.
                let arrives = (step + action.delay).max(self.last_list[room]);
                self.last_list[room] = arrives;
                self.arrivals.entry(arrives).or_default().push(list);
            }
        }
    }

    fn send(&mut self, kind: EventKind, participant: Option<Participant>, action: &Action, step: u64) {
        let room = EventRoom {
            name: room_name(action.room),
            sid: format!("RM_{}_{}", action.room, self.creations[action.room]),
            participant_count: 0,
        };
        let participant = participant.map(|Participant { identity, sid, joined_ms, .. }| EventParticipant {
            identity,
            sid,
            joined_ms,
            kind: None,
            hidden: false,
            state: None,
            disconnect_reason: None,
        });
        let event = Event { id: String::new(), kind, created_at_s: step, room: Some(room), participant };
        for delay in &action.deliveries {
            self.arrivals.entry(step + delay).or_default().push(Arrival::Event(event.clone()));
        }
    }

    fn sids(&self, room: usize) -> BTreeSet<&str> {
        self.rooms[room].values().map(|participant| participant.sid.as_str()).collect()
    }
}

fn room_name(room: usize) -> String {
    format!("room {room}")
}

/// The time of a step.
fn time(start: Instant, step: u64) -> Instant {
    start + Duration::from_secs(step)
}

/// Passes all events and lists in the order of their arrival, except the events for which `is_lost` is true.
fn deliver(server: &Server, start: Instant, is_lost: impl Fn(usize) -> bool) -> Occupancy {
    let mut occupancy = Occupancy::default();
    let arrivals =
        server.arrivals.iter().flat_map(|(&step, arrivals)| arrivals.iter().map(move |a| (step, a)));
    let (mut present, mut events) = (BTreeSet::new(), 0);
    for (step, arrival) in arrivals {
        let changes = match arrival {
            Arrival::Event(event) => {
                events += 1;
                if is_lost(events - 1) {
                    continue;
                }
                occupancy.apply(event, time(start, step))
            }
            Arrival::List { room, participants, requested_at } => {
                occupancy.reconcile(room, participants.clone(), time(start, *requested_at))
            }
        };
        // The changes describe the difference to the state before.
        for participant in changes.left {
            assert!(present.remove(&participant.sid), "left without a join: {participant:?}");
        }
        for participant in changes.joined {
            assert!(present.insert(participant.sid.clone()), "joined twice: {participant:?}");
        }
        let rooms = (0..ROOMS).map(room_name);
        let all: BTreeSet<String> = rooms.flat_map(|room| all_sids(&occupancy, &room)).collect();
        assert_eq!(present, all);
        assert_eq!(occupancy.total(), all.len());
    }
    occupancy
}

fn all_sids(occupancy: &Occupancy, room: &str) -> Vec<String> {
    occupancy.participants(room).map(|participant| participant.sid.clone()).collect()
}

proptest! {
    #[test]
    fn events_in_any_order_lead_to_the_truth(actions in actions()) {
        let mut server = Server::default();
        actions.iter().zip(1..).for_each(|(action, step)| server.run(action, step));
        let occupancy = deliver(&server, Instant::now(), |_| false);
        for room in 0..ROOMS {
            let actual = all_sids(&occupancy, &room_name(room));
            prop_assert_eq!(actual.iter().map(String::as_str).collect::<BTreeSet<_>>(), server.sids(room));
        }
    }

    #[test]
    fn list_corrects_lost_events(actions in actions(), lost in vec(any::<bool>(), 64)) {
        let mut server = Server::default();
        actions.iter().zip(1..).for_each(|(action, step)| server.run(action, step));
        let start = Instant::now();
        let mut occupancy = deliver(&server, start, |event| lost[event % lost.len()]);
        let end = server.arrivals.keys().next_back().copied().unwrap_or_default().max(actions.len() as u64);
        for room in 0..ROOMS {
            let list = server.rooms[room].values().cloned().collect();
            let _ = occupancy.reconcile(&room_name(room), list, time(start, end));
            let actual = all_sids(&occupancy, &room_name(room));
            prop_assert_eq!(actual.iter().map(String::as_str).collect::<BTreeSet<_>>(), server.sids(room));
        }
    }
}
