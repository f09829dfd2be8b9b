//! The room as the participant sees it: its own session, the others, and the events that result.

use std::collections::VecDeque;

use bytes::Bytes;
use livekit_protocol::{
    DataPacket, JoinResponse, ParticipantInfo, ParticipantUpdate, data_packet, participant_info::State,
};
use prost::Message as _;

use super::{
    event::{Data, Event, Member},
    roster::Roster,
};

/// The own session, the other participants, and the events that are not delivered yet.
#[derive(Debug, Default)]
pub(crate) struct RoomView {
    /// The name of the room.
    name: String,
    own: Member,
    /// Whether no other participant sees this one.
    hidden: bool,
    roster: Roster,
    /// Whether the next list of participants is complete: the server sends one after a resumption, and no leaves
    /// of the time before.
    expects_complete_list: bool,
    events: VecDeque<Event>,
}

/// At so many undelivered events the signalling socket is read later.
const MAX_EVENTS: usize = 256;

impl RoomView {
    /// A new session: the own participant and the others that are present.
    pub(crate) fn begin(&mut self, join: &JoinResponse) {
        let own = join.participant.clone().unwrap_or_default();
        self.hidden = own.permission.as_ref().is_some_and(|permission| permission.hidden);
        self.own = member(&own);
        self.name = join.room.as_ref().map(|room| room.name.clone()).unwrap_or_default();
        self.expects_complete_list = false;
        let others = self.present(&join.other_participants);
        self.events.extend(self.roster.replace(others));
    }

    /// The first session is complete.
    pub(crate) fn joined(&mut self) {
        // The members so far are part of the event.
        self.events.retain(|event| matches!(event, Event::Data(_)));
        let (room, own, others) = (self.name.clone(), self.own.clone(), self.roster.members());
        self.events.push_front(Event::Joined { room, own, others });
    }

    /// The server has accepted the resumption of the session.
    pub(crate) fn resumed(&mut self) {
        self.expects_complete_list = true;
    }

    /// Applies a list of participants. Returns whether the own one may publish data, if the list has it.
    pub(crate) fn update(&mut self, update: &ParticipantUpdate) -> Option<bool> {
        let own = update.participants.iter().find(|info| info.sid == self.own.sid);
        if self.expects_complete_list && (own.is_some() || self.hidden) {
            self.expects_complete_list = false;
            let present = self.present(&update.participants);
            self.events.extend(self.roster.replace(present));
        } else {
            for info in self.others(&update.participants) {
                match is_present(info) {
                    true => self.events.extend(self.roster.joined(member(info))),
                    false => self.events.extend(self.roster.left(&info.sid)),
                }
            }
        }
        Some(own?.permission.as_ref()?.can_publish_data)
    }

    /// Applies a packet of a data channel. Anything but a message for applications is ignored, and so is a message
    /// that arrived before.
    pub(crate) fn packet(&mut self, reliable: bool, bytes: Bytes) {
        let packet = match DataPacket::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => return tracing::debug!(%error, "undecodable data packet"),
        };
        let Some(data_packet::Value::User(user)) = packet.value else { return };
        let sender = Member { identity: packet.participant_identity, sid: packet.participant_sid };
        let sender = Some(sender).filter(|sender| !sender.identity.is_empty());
        if let Some(sender) = &sender {
            if sender.identity == self.own.identity {
                return;
            }
            // Data and signalling have no common order.
            if !sender.sid.is_empty() {
                self.events.extend(self.roster.joined(sender.clone()));
            }
            if reliable && !self.roster.is_new(&sender.sid, packet.sequence) {
                return;
            }
        }
        let (payload, topic) = (user.payload.into(), user.topic);
        self.events.push_back(Event::Data(Data { sender, payload, topic, reliable }));
    }

    /// Adds an event of the participant itself.
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= MAX_EVENTS
    }

    pub(crate) fn sid(&self) -> &str {
        &self.own.sid
    }

    /// The last reliable message of each session, for a resumption.
    pub(crate) fn received(&self) -> impl Iterator<Item = (&str, u32)> {
        self.roster.received()
    }

    fn others<'a>(
        &self,
        infos: &'a [ParticipantInfo],
    ) -> impl Iterator<Item = &'a ParticipantInfo> + use<'a> {
        let own = self.own.identity.clone();
        infos.iter().filter(move |info| info.identity != own)
    }

    fn present(&self, infos: &[ParticipantInfo]) -> Vec<Member> {
        self.others(infos).filter(|info| is_present(info)).map(member).collect()
    }
}

fn member(info: &ParticipantInfo) -> Member {
    Member { identity: info.identity.clone(), sid: info.sid.clone() }
}

fn is_present(info: &ParticipantInfo) -> bool {
    info.state != State::Disconnected as i32
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{ParticipantPermission, UserPacket};

    use super::*;

    fn info(identity: &str, sid: &str, state: State) -> ParticipantInfo {
        let permission = Some(ParticipantPermission { can_publish_data: true, ..Default::default() });
        let (identity, sid) = (identity.to_owned(), sid.to_owned());
        ParticipantInfo { identity, sid, state: state as i32, permission, ..Default::default() }
    }

    fn view(others: &[(&str, &str)]) -> RoomView {
        let mut view = RoomView::default();
        view.begin(&JoinResponse {
            participant: Some(info("me", "PA_0", State::Joined)),
            other_participants: others
                .iter()
                .map(|(identity, sid)| info(identity, sid, State::Active))
                .collect(),
            ..Default::default()
        });
        view.joined();
        view
    }

    fn update(infos: &[(&str, &str, State)]) -> ParticipantUpdate {
        ParticipantUpdate {
            participants: infos.iter().map(|&(identity, sid, state)| info(identity, sid, state)).collect(),
        }
    }

    fn packet(identity: &str, sid: &str, sequence: u32) -> Bytes {
        let user = UserPacket { payload: b"hello".to_vec(), ..Default::default() };
        let (participant_identity, participant_sid) = (identity.to_owned(), sid.to_owned());
        let value = Some(data_packet::Value::User(user));
        let packet =
            DataPacket { participant_identity, participant_sid, sequence, value, ..Default::default() };
        packet.encode_to_vec().into()
    }

    /// The names of the events: `joined`, `+sid`, `-sid`, and for data the sender.
    fn events(view: &mut RoomView) -> Vec<String> {
        let name = |event| match event {
            Event::ParticipantJoined(member) => format!("+{}", member.sid),
            Event::ParticipantLeft(member) => format!("-{}", member.sid),
            Event::Data(data) => data.sender.map_or("server".to_owned(), |sender| sender.sid),
            Event::Joined { others, .. } => format!("joined {}", others.len()),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| view.pop()).map(name).collect()
    }

    #[test]
    fn join_is_announced_before_data_whatever_arrives_first() {
        let mut view = view(&[("one", "PA_1")]);
        view.packet(true, packet("two", "PA_2", 1));
        view.update(&update(&[("two", "PA_2", State::Active)]));
        view.packet(true, packet("one", "PA_1", 1));
        assert_eq!(events(&mut view), ["joined 1", "+PA_2", "PA_2", "PA_1"]);
    }

    #[test]
    fn message_after_the_leave_is_delivered_without_a_join() {
        let mut view = view(&[("one", "PA_1")]);
        view.update(&update(&[("one", "PA_1", State::Disconnected)]));
        view.packet(true, packet("one", "PA_1", 1));
        assert_eq!(events(&mut view), ["joined 1", "-PA_1", "PA_1"]);
    }

    #[test]
    fn own_and_repeated_messages_are_dropped() {
        let mut view = view(&[("one", "PA_1")]);
        view.packet(true, packet("me", "PA_0", 1));
        for sequence in [1, 1, 2] {
            view.packet(true, packet("one", "PA_1", sequence));
        }
        view.packet(false, packet("one", "PA_1", 0));
        view.packet(true, packet("", "", 0));
        view.packet(true, Bytes::from_static(&[0xff]));
        assert_eq!(events(&mut view), ["joined 1", "PA_1", "PA_1", "PA_1", "server"]);
    }

    #[test]
    fn list_after_a_resumption_reports_missed_leaves() {
        let mut view = view(&[("one", "PA_1"), ("two", "PA_2")]);
        view.resumed();
        view.update(&update(&[("three", "PA_3", State::Active)]));
        let may_publish =
            view.update(&update(&[("me", "PA_0", State::Active), ("two", "PA_2", State::Active)]));
        assert_eq!(may_publish, Some(true));
        assert_eq!(events(&mut view)[..2], ["joined 2", "+PA_3"]);
        view.update(&update(&[("me", "PA_0", State::Active)]));
        assert_eq!(events(&mut view), [""; 0], "only the first list is complete");
    }
}
