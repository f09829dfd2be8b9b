//! The other participants of the room, and the order of their reliable messages.

use std::collections::{HashMap, HashSet, VecDeque};

use super::event::{Event, Member};

/// The participants that the server has announced, by session.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    members: HashMap<String, RosterEntry>,
    /// The session of each identity.
    sids: HashMap<String, String>,
    /// Sessions that have ended, oldest first. Their messages may still arrive.
    left: VecDeque<String>,
}

#[derive(Debug)]
struct RosterEntry {
    identity: String,
    /// The number of the last reliable message.
    last_sequence: u32,
}

/// Ended sessions that are remembered. When more end, the oldest is forgotten: a message of it that is still in
/// flight then counts as one of a participant that has just joined.
const MAX_LEFT: usize = 256;

impl Roster {
    /// Records a participant that is present. Returns the events, if it was not known. An older session of the
    /// same identity has ended: the server does not always announce that.
    pub(crate) fn joined(&mut self, member: Member) -> Vec<Event> {
        if self.members.contains_key(&member.sid) || self.left.contains(&member.sid) {
            return Vec::new();
        }
        let older = self.sids.get(&member.identity).cloned();
        let mut events: Vec<Event> = older.and_then(|sid| self.left(&sid)).into_iter().collect();
        let entry = RosterEntry { identity: member.identity.clone(), last_sequence: 0 };
        self.members.insert(member.sid.clone(), entry);
        self.sids.insert(member.identity.clone(), member.sid.clone());
        events.push(Event::ParticipantJoined(member));
        events
    }

    /// Records that a session has ended. Returns the event, if it was known.
    pub(crate) fn left(&mut self, sid: &str) -> Option<Event> {
        let entry = self.members.remove(sid)?;
        self.sids.remove(&entry.identity);
        if self.left.len() >= MAX_LEFT {
            self.left.pop_front();
        }
        self.left.push_back(sid.to_owned());
        Some(Event::ParticipantLeft(Member { identity: entry.identity, sid: sid.to_owned() }))
    }

    /// Records the complete list of the participants. Returns the leaves, and then the joins.
    pub(crate) fn replace(&mut self, present: Vec<Member>) -> Vec<Event> {
        let sids: HashSet<&str> = present.iter().map(|member| &*member.sid).collect();
        let gone: Vec<String> = self.members.keys().filter(|sid| !sids.contains(&***sid)).cloned().collect();
        let mut events: Vec<Event> = gone.iter().filter_map(|sid| self.left(sid)).collect();
        events.extend(present.into_iter().flat_map(|member| self.joined(member)));
        events
    }

    /// The participants, in the order of their identities.
    pub(crate) fn members(&self) -> Vec<Member> {
        let member = |(sid, entry): (&String, &RosterEntry)| Member {
            identity: entry.identity.clone(),
            sid: sid.clone(),
        };
        let mut members: Vec<Member> = self.members.iter().map(member).collect();
        members.sort();
        members
    }

    /// Records a reliable message of a session. Returns whether it arrives for the first time. A sender that numbers
    /// none of its messages uses 0.
    pub(crate) fn is_new(&mut self, sid: &str, sequence: u32) -> bool {
        match self.members.get_mut(sid) {
            Some(entry) if sequence != 0 => {
                let is_new = sequence > entry.last_sequence;
                entry.last_sequence = entry.last_sequence.max(sequence);
                is_new
            }
            _ => true,
        }
    }

    /// The last reliable message of each session, for a resumption.
    pub(crate) fn received(&self) -> impl Iterator<Item = (&str, u32)> {
        self.members.iter().map(|(sid, entry)| (&**sid, entry.last_sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(identity: &str, sid: &str) -> Member {
        Member { identity: identity.to_owned(), sid: sid.to_owned() }
    }

    #[test]
    fn join_and_leave_are_reported_once() {
        let mut roster = Roster::default();
        let one = member("one", "PA_1");
        assert_eq!(roster.joined(one.clone()), [Event::ParticipantJoined(one.clone())]);
        assert_eq!(roster.joined(one.clone()), []);
        assert_eq!(roster.left("PA_1"), Some(Event::ParticipantLeft(one.clone())));
        assert_eq!(roster.left("PA_1"), None);
        assert_eq!(roster.joined(one), [], "a message that arrives late is no join");
        assert!(roster.members().is_empty());
    }

    #[test]
    fn newer_session_of_an_identity_ends_the_older() {
        let mut roster = Roster::default();
        let (older, newer) = (member("one", "PA_1"), member("one", "PA_2"));
        roster.joined(older.clone());
        let events = [Event::ParticipantLeft(older), Event::ParticipantJoined(newer.clone())];
        assert_eq!(roster.joined(newer.clone()), events);
        assert_eq!((roster.left("PA_1"), roster.members()), (None, vec![newer]));
    }

    #[test]
    fn complete_list_reports_leaves_before_joins() {
        let mut roster = Roster::default();
        for (identity, sid) in [("one", "PA_1"), ("two", "PA_2")] {
            roster.joined(member(identity, sid));
        }
        let events = roster.replace(vec![member("two", "PA_2"), member("three", "PA_3")]);
        let expected = [
            Event::ParticipantLeft(member("one", "PA_1")),
            Event::ParticipantJoined(member("three", "PA_3")),
        ];
        assert_eq!(events, expected);
        assert_eq!(roster.members(), [member("three", "PA_3"), member("two", "PA_2")]);
    }

    #[test]
    fn repeated_reliable_message_is_recognized_by_its_number() {
        let mut roster = Roster::default();
        roster.joined(member("one", "PA_1"));
        let numbers = [1, 2, 2, 1, 5, 0, 0];
        let new = numbers.map(|number| roster.is_new("PA_1", number));
        assert_eq!(new, [true, true, false, false, true, true, true]);
        assert!(roster.is_new("PA_2", 1), "another session");
        assert_eq!(roster.received().collect::<Vec<_>>(), [("PA_1", 5)]);
    }

    #[test]
    fn oldest_ended_session_is_forgotten_at_the_limit() {
        let mut roster = Roster::default();
        for number in 0..=MAX_LEFT {
            let sid = format!("PA_{number}");
            roster.joined(member("one", &sid));
            roster.left(&sid);
        }
        assert_eq!(roster.joined(member("one", "PA_1")), []);
        assert_eq!(roster.joined(member("one", "PA_0")).len(), 1);
    }
}
