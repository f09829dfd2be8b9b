//! Tests of the occupancy by single events and lists.

use std::time::{Duration, Instant};

use livekit_protocol::{
    ParticipantInfo, ParticipantPermission,
    participant_info::{Kind, State},
};

use super::*;
use crate::livekit::webhook::{Event, EventKind, EventParticipant, EventRoom};

/// An event of the room `I1` in its first creation.
pub(super) fn event(kind: EventKind, participant: Option<Participant>) -> Event {
    let participant = participant.map(|participant| EventParticipant {
        identity: participant.identity,
        sid: participant.sid,
        joined_ms: participant.joined_ms,
        kind: Some(if participant.counted { Kind::Standard } else { Kind::Agent }),
        hidden: false,
        state: None,
        disconnect_reason: None,
    });
    let room = EventRoom { name: "I1".into(), sid: "RM_1".into(), participant_count: 0 };
    Event { id: String::new(), kind, created_at_s: 0, room: Some(room), participant }
}

/// The session of `identity` that joined at this time, in milliseconds.
fn session(identity: &str, joined_ms: u64) -> Participant {
    Participant {
        identity: identity.into(),
        sid: format!("PA_{identity}_{joined_ms}"),
        joined_ms,
        counted: true,
    }
}

/// An occupancy and a clock that advances by a second with each call.
struct Server {
    occupancy: Occupancy,
    now: Instant,
}

impl Server {
    fn new() -> Self {
        Self { occupancy: Occupancy::default(), now: Instant::now() }
    }

    fn apply(&mut self, event: &Event) -> Changes {
        self.now += Duration::from_secs(1);
        self.occupancy.apply(event, self.now)
    }

    fn joined(&mut self, participant: &Participant) -> Changes {
        self.apply(&event(EventKind::ParticipantJoined, Some(participant.clone())))
    }

    fn left(&mut self, participant: &Participant) -> Changes {
        self.apply(&event(EventKind::ParticipantLeft, Some(participant.clone())))
    }

    /// Passes a list that was requested `seconds` ago.
    fn reconcile(&mut self, list: &[Participant], seconds: u64) -> Changes {
        self.occupancy.reconcile("I1", list.to_vec(), self.now - Duration::from_secs(seconds))
    }

    fn sids(&self) -> Vec<&str> {
        let mut sids: Vec<&str> =
            self.occupancy.participants("I1").map(|participant| participant.sid.as_str()).collect();
        sids.sort_unstable();
        sids
    }
}

fn joined(participant: &Participant) -> Changes {
    Changes { joined: vec![participant.clone()], ..Changes::default() }
}

fn left(participant: &Participant) -> Changes {
    Changes { left: vec![participant.clone()], ..Changes::default() }
}

#[test]
fn join_and_leave_are_each_reported_once() {
    let (mut server, a) = (Server::new(), session("a", 1));
    assert_eq!(server.joined(&a), joined(&a));
    assert_eq!(server.joined(&a), Changes::default(), "a repeated event");
    assert_eq!(server.occupancy.participant("I1", "a"), Some(&a));
    assert_eq!(server.occupancy.rooms().collect::<Vec<_>>(), ["I1"]);
    assert_eq!(server.left(&a), left(&a));
    assert_eq!(server.left(&a), Changes::default(), "a repeated event");
    assert_eq!(server.joined(&a), Changes::default(), "a late event");
    assert_eq!(server.occupancy.rooms().count(), 0);
}

#[test]
fn newer_session_replaces_the_older_in_any_order() {
    let (old, new) = (session("a", 1), session("a", 2));
    let mut server = Server::new();
    let _ = server.joined(&old);
    let replaced = Changes { joined: vec![new.clone()], left: vec![old.clone()], not_recorded: 0 };
    assert_eq!(server.joined(&new), replaced);
    assert_eq!(server.left(&old), Changes::default());
    assert_eq!(server.sids(), ["PA_a_2"]);

    let mut server = Server::new();
    assert_eq!(server.joined(&new), joined(&new));
    assert_eq!(server.joined(&old), Changes::default(), "late");
    assert_eq!(server.left(&new), left(&new));
    assert_eq!(server.joined(&old), Changes::default(), "late and repeated");
}

#[test]
fn unknown_join_time_counts_as_the_newest() {
    let mut server = Server::new();
    let _ = server.joined(&session("a", 5));
    let unknown = Participant { sid: "PA_new".into(), joined_ms: 0, ..session("a", 0) };
    assert_eq!(server.joined(&unknown).joined, [unknown]);
    assert_eq!(server.joined(&session("a", 5)), Changes::default(), "it was replaced");
}

#[test]
fn aborted_connection_ends_a_session() {
    let (mut server, a) = (Server::new(), session("a", 1));
    let _ = server.reconcile(std::slice::from_ref(&a), 0);
    let aborted = event(EventKind::ParticipantConnectionAborted, Some(a.clone()));
    assert_eq!(server.apply(&aborted), left(&a));
}

#[test]
fn finished_room_is_emptied_only_of_its_own_sessions() {
    let mut server = Server::new();
    let (a, b, c) = (session("a", 1_000), session("b", 1_500), session("c", 4_000));
    let _ = server.joined(&a);
    let _ = server.reconcile(&[a.clone(), b.clone(), c.clone()], 0);
    let mut recreated = event(EventKind::ParticipantJoined, Some(session("d", 3_000)));
    recreated.room.as_mut().unwrap().sid = "RM_2".into();
    let _ = server.apply(&recreated);
    let finished = Event { created_at_s: 3, ..event(EventKind::RoomFinished, None) };
    let mut changes = server.apply(&finished);
    changes.left.sort_by_key(|participant| participant.joined_ms);
    assert_eq!(changes, Changes { left: vec![a.clone(), b], ..Changes::default() });
    assert_eq!(server.sids(), ["PA_c_4000", "PA_d_3000"], "these joined the room that was created later");
    assert_eq!(server.joined(&session("e", 2_000)), Changes::default(), "its room is closed");
    assert_eq!(server.reconcile(&[a, c, session("d", 3_000)], 0), Changes::default());
}

#[test]
fn finished_room_without_a_sid_or_time_is_emptied() {
    let mut server = Server::new();
    let _ = server.joined(&session("a", 1));
    let mut finished = event(EventKind::RoomFinished, None);
    finished.room.as_mut().unwrap().sid = String::new();
    assert_eq!(server.apply(&finished).left.len(), 1);
}

#[test]
fn list_decides_about_what_was_reported_before_it() {
    let mut server = Server::new();
    let (a, b, c, d) = (session("a", 1), session("b", 2), session("c", 3), session("d", 4));
    let _ = (server.joined(&a), server.joined(&b), server.left(&c));
    let _ = server.joined(&d);
    let newer_b = session("b", 9);
    // Requested before d was reported: d is kept, a has left, b was replaced, and c is known to have left.
    let changes = server.reconcile(&[newer_b.clone(), c], 1);
    assert_eq!(changes.joined, std::slice::from_ref(&newer_b));
    assert_eq!(changes.left.len(), 2);
    assert!(changes.left.contains(&a) && changes.left.contains(&b));
    assert_eq!(server.sids(), ["PA_b_9", "PA_d_4"]);
    assert_eq!(server.joined(&newer_b), Changes::default(), "already reported");
    assert_eq!(server.joined(&a), Changes::default(), "the list lacked it");
    // A later list shows that it was there after all.
    assert_eq!(server.reconcile(&[a.clone(), newer_b, d], 0), joined(&a));
}

#[test]
fn list_never_replaces_a_newer_session() {
    let (mut server, old, new) = (Server::new(), session("a", 1), session("a", 2));
    let _ = server.joined(&new);
    assert_eq!(server.reconcile(std::slice::from_ref(&old), 1), Changes::default());
    assert_eq!(server.sids(), ["PA_a_2"]);
    // A session that joined after the reported one replaces it, although the request was sent before.
    assert_eq!(server.reconcile(&[session("a", 3)], 1).left, [new]);
}

#[test]
fn empty_list_removes_the_room() {
    let mut server = Server::new();
    let _ = server.joined(&session("a", 1));
    assert_eq!(server.reconcile(&[], 0).left, [session("a", 1)]);
    assert_eq!((server.occupancy.rooms().count(), server.occupancy.total()), (0, 0));
}

#[test]
fn agents_and_hidden_participants_are_not_counted() {
    let mut server = Server::new();
    let agent = Participant { counted: false, ..session("agent", 1) };
    assert_eq!(server.joined(&agent), joined(&agent));
    let mut hidden = event(EventKind::ParticipantJoined, Some(session("hidden", 1)));
    hidden.participant.as_mut().unwrap().hidden = true;
    let _ = (server.apply(&hidden), server.joined(&session("a", 1)));
    let mut elsewhere = event(EventKind::ParticipantJoined, Some(session("b", 1)));
    elsewhere.room.as_mut().unwrap().name = "I2".into();
    let _ = server.apply(&elsewhere);
    let occupancy = &server.occupancy;
    assert_eq!((occupancy.participants("I1").count(), occupancy.room_count("I1")), (3, 1));
    assert_eq!((occupancy.total(), occupancy.room_count("I3")), (2, 0));
}

#[test]
fn events_that_name_no_participant_change_nothing() {
    let mut server = Server::new();
    let a = session("a", 1);
    let _ = server.joined(&a);
    for kind in [EventKind::RoomStarted, EventKind::TrackPublished, EventKind::Other("x".into())] {
        let other = event(kind, Some(session("b", 1)));
        assert_eq!(server.apply(&other), Changes::default(), "{other:?}");
    }
    let without_room = Event { room: None, ..event(EventKind::RoomFinished, None) };
    let nameless = event(EventKind::ParticipantJoined, Some(session("", 1)));
    let without_sid =
        event(EventKind::ParticipantJoined, Some(Participant { sid: String::new(), ..session("c", 1) }));
    let without_participant = event(EventKind::ParticipantLeft, None);
    for event in [without_room, nameless, without_sid, without_participant] {
        assert_eq!(server.apply(&event), Changes::default(), "{event:?}");
    }
    assert_eq!(server.sids(), ["PA_a_1"]);
}

#[test]
fn list_of_the_server_is_converted() {
    let info = |identity: &str, state: State, kind: Kind| ParticipantInfo {
        identity: identity.into(),
        sid: format!("PA_{identity}"),
        state: state as i32,
        kind: kind as i32,
        joined_at: 5,
        ..ParticipantInfo::default()
    };
    let precise = ParticipantInfo { joined_at_ms: 5_123, ..info("a", State::Active, Kind::Standard) };
    let permission = ParticipantPermission { hidden: true, ..ParticipantPermission::default() };
    let hidden =
        ParticipantInfo { permission: Some(permission), ..info("b", State::Joining, Kind::Standard) };
    let agent = info("c", State::Joined, Kind::Agent);
    let gone = info("d", State::Disconnected, Kind::Standard);
    let without_sid = ParticipantInfo { sid: String::new(), ..info("e", State::Active, Kind::Standard) };
    let list = snapshot(&[precise, hidden, agent, gone, without_sid]);
    let shown: Vec<_> = list.iter().map(|p| (p.sid.as_str(), p.joined_ms, p.counted)).collect();
    assert_eq!(shown, [("PA_a", 5_123, true), ("PA_b", 5_000, false), ("PA_c", 5_000, false)]);
}

#[test]
fn participants_above_the_limit_are_not_recorded() {
    let mut occupancy = Occupancy::default();
    let list = (0..MAX_PARTICIPANTS).map(|number| session(&number.to_string(), 1)).collect();
    let now = Instant::now();
    assert_eq!(occupancy.reconcile("I1", list, now).joined.len(), MAX_PARTICIPANTS);
    let extra = event(EventKind::ParticipantJoined, Some(session("extra", 1)));
    let refused = Changes { not_recorded: 1, ..Changes::default() };
    assert_eq!(occupancy.apply(&extra, now), refused);
    let newer = session("0", 2);
    let again = event(EventKind::ParticipantJoined, Some(newer.clone()));
    assert_eq!(
        occupancy.apply(&again, now).joined,
        std::slice::from_ref(&newer),
        "in place of the older session"
    );
    let _ = occupancy.apply(&event(EventKind::ParticipantLeft, Some(newer)), now);
    assert_eq!(occupancy.apply(&extra, now).joined.len(), 1, "there is space again");
}
