//! The state of one server: rooms and their participants.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Instant,
};

use super::{
    departures::{Departures, Evidence},
    participant::Participant,
};
use crate::livekit::webhook::{Event, EventKind, EventRoom};

/// The greatest number of participants of one server. Further ones are not recorded.
pub const MAX_PARTICIPANTS: usize = 100_000;

/// The participants of the rooms of one server.
///
/// It is built from [events](Self::apply), which may arrive in any order, late, more than once or never. The
/// server's [lists](Self::reconcile) correct it after lost events. It holds at most [`MAX_PARTICIPANTS`]
/// participants, and no room without one.
///
/// A room has one participant of an identity: the server removes the older one when another joins. If two are
/// reported, the one that joined later counts, or, if both joined at the same time or a time is not known, the one
/// that was reported last.
#[derive(Debug, Clone, Default)]
pub struct Occupancy {
    /// By room and identity.
    rooms: HashMap<String, HashMap<String, Member>>,
    participant_count: usize,
    departures: Departures,
}

/// A participant that is present.
#[derive(Debug, Clone)]
struct Member {
    participant: Participant,
    /// The id of its room on the server; empty if it is not known, because only lists reported the participant.
    room_sid: String,
    /// When it was first reported; for a list, when that was requested.
    reported_at: Instant,
}

/// The participants that one event or list added and removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Changes {
    /// Participants that were not known before. Each is reported once, by its sid. The server took their
    /// permissions from their tokens.
    pub joined: Vec<Participant>,
    /// Participants that are no longer present, because they left or a newer one replaced them.
    pub left: Vec<Participant>,
    /// The number of participants that were not recorded, because there are [`MAX_PARTICIPANTS`].
    pub not_recorded: usize,
}

impl Occupancy {
    /// Applies an event that arrived at `now`. Events of other kinds, and those without a room, an identity or
    /// a sid, change nothing.
    pub fn apply(&mut self, event: &Event, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let Some(room) = event.room.as_ref().filter(|room| !room.name.is_empty()) else { return changes };
        if event.kind == EventKind::RoomFinished {
            self.finish_room(room, event.created_at_s, now, &mut changes);
            return changes;
        }
        let participant = event.participant.as_ref().map(Participant::from);
        let Some(participant) = participant.filter(|p| !p.identity.is_empty() && !p.sid.is_empty()) else {
            return changes;
        };
        match event.kind {
            EventKind::ParticipantJoined => self.join(room, participant, now, &mut changes),
            EventKind::ParticipantLeft | EventKind::ParticipantConnectionAborted => {
                self.leave(room, &participant, now, &mut changes);
            }
            _ => {}
        }
        changes
    }

    fn join(&mut self, room: &EventRoom, participant: Participant, now: Instant, changes: &mut Changes) {
        let members = self.rooms.get_mut(&room.name);
        match members.and_then(|members| members.get_mut(&participant.identity)) {
            Some(present) if present.participant.sid == participant.sid => {
                present.room_sid.clone_from(&room.sid);
                return;
            }
            Some(present) if is_later(&present.participant, &participant) => {
                self.departures.insert(&participant.sid, Evidence::Inferred, now);
                return;
            }
            _ => {}
        }
        let departed = |sid: &str| self.departures.evidence(sid).is_some();
        if departed(&participant.sid) || departed(&room.sid) {
            return;
        }
        self.add(&room.name, &room.sid, participant, now, changes);
    }

    fn leave(&mut self, room: &EventRoom, participant: &Participant, now: Instant, changes: &mut Changes) {
        self.departures.insert(&participant.sid, Evidence::Reported, now);
        self.remove_if(&room.name, changes, |member| member.participant.sid == participant.sid);
    }

    fn finish_room(&mut self, room: &EventRoom, finished_s: u64, now: Instant, changes: &mut Changes) {
        if !room.sid.is_empty() {
            self.departures.insert(&room.sid, Evidence::Reported, now);
        }
        let finished_ms = if finished_s == 0 { u64::MAX } else { finished_s.saturating_mul(1_000) };
        self.remove_if(&room.name, changes, |member| {
            // The room may have been created again under the same name.
            if member.room_sid.is_empty() || room.sid.is_empty() {
                member.participant.joined_ms < finished_ms
            } else {
                member.room_sid == room.sid
            }
        });
        for participant in &changes.left {
            self.departures.insert(&participant.sid, Evidence::Reported, now);
        }
    }

    /// Corrects a room by the server's list of its participants ([`snapshot`](super::snapshot)), which was
    /// requested at `requested_at`.
    ///
    /// The list decides about participants that were first reported before the request. It may lack those
    /// that were reported later, which are kept, and it may contain participants that have left since: those
    /// with a reported departure are ignored. For a room that the server does not know, the list is empty.
    /// Lists of a room must be passed in the order in which they were requested.
    pub fn reconcile(&mut self, room: &str, list: Vec<Participant>, requested_at: Instant) -> Changes {
        let mut changes = Changes::default();
        let mut listed: HashMap<String, Participant> = HashMap::with_capacity(list.len());
        for participant in list {
            let has_left = self.departures.evidence(&participant.sid) == Some(Evidence::Reported);
            let known = listed.get(&participant.identity);
            if !has_left && known.is_none_or(|known| !is_later(known, &participant)) {
                listed.insert(participant.identity.clone(), participant);
            }
        }
        self.remove_if(room, &mut changes, |member| {
            let listed = listed.get(&member.participant.identity);
            let is_older = member.reported_at <= requested_at;
            listed.map_or(is_older, |listed| {
                let replaced = listed.sid != member.participant.sid;
                replaced && (is_older || is_later(listed, &member.participant))
            })
        });
        for participant in &changes.left {
            self.departures.insert(&participant.sid, Evidence::Inferred, requested_at);
        }
        for participant in listed.into_values() {
            let members = self.rooms.get_mut(room);
            match members.and_then(|members| members.get_mut(&participant.identity)) {
                Some(present) if present.participant.sid == participant.sid => {
                    present.participant = participant;
                }
                Some(_) => {}
                None => self.add(room, "", participant, requested_at, &mut changes),
            }
        }
        changes
    }

    /// The participants of a room, including those that are not counted, in an order without meaning.
    pub fn participants(&self, room: &str) -> impl Iterator<Item = &Participant> {
        self.rooms.get(room).into_iter().flat_map(HashMap::values).map(|member| &member.participant)
    }

    /// The participant with this identity in a room.
    pub fn participant(&self, room: &str, identity: &str) -> Option<&Participant> {
        Some(&self.rooms.get(room)?.get(identity)?.participant)
    }

    /// The number of participants of a room that are counted.
    pub fn room_count(&self, room: &str) -> usize {
        self.participants(room).filter(|participant| participant.counted).count()
    }

    /// The number of participants of all rooms that are counted.
    pub fn total(&self) -> usize {
        self.rooms.keys().map(|room| self.room_count(room)).sum()
    }

    /// The rooms that have participants, including those that are not counted, in an order without meaning.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.keys().map(String::as_str)
    }

    /// Adds a participant, in place of one with the same identity.
    fn add(
        &mut self,
        room: &str,
        room_sid: &str,
        participant: Participant,
        reported_at: Instant,
        changes: &mut Changes,
    ) {
        let replaces = self.participant(room, &participant.identity).is_some();
        if !replaces && self.participant_count >= MAX_PARTICIPANTS {
            changes.not_recorded += 1;
            return;
        }
        changes.joined.push(participant.clone());
        let members = self.rooms.entry(room.to_owned()).or_default();
        let identity = participant.identity.clone();
        let member = Member { participant, room_sid: room_sid.to_owned(), reported_at };
        match members.insert(identity, member) {
            Some(Member { participant, .. }) => {
                self.departures.insert(&participant.sid, Evidence::Inferred, reported_at);
                changes.left.push(participant);
            }
            None => self.participant_count += 1,
        }
    }

    /// Removes the members of a room for which `departs` is true, and the room if it has no others.
    fn remove_if(&mut self, room: &str, changes: &mut Changes, departs: impl Fn(&Member) -> bool) {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.to_owned()) else { return };
        let removed = entry.get_mut().extract_if(|_, member| departs(member));
        let before = changes.left.len();
        changes.left.extend(removed.map(|(_, member)| member.participant));
        self.participant_count -= changes.left.len() - before;
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

/// Whether `one` is known to have joined after `other`.
fn is_later(one: &Participant, other: &Participant) -> bool {
    other.joined_ms > 0 && one.joined_ms > other.joined_ms
}
