//! A participant, as an event or a list reports it.

use livekit_protocol::{
    ParticipantInfo,
    participant_info::{Kind, State},
};

use crate::livekit::webhook::{EventParticipant, join_time_ms};

/// A participant of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its identity: for clients of this realm the address.
    pub identity: String,
    /// Its id on the server. Each time it joins it has another one.
    pub sid: String,
    /// When it joined, in milliseconds since the Unix epoch by the clock of the server; 0 if not known.
    pub joined_ms: u64,
    /// Whether it counts as occupancy: it is neither an agent nor hidden from the others.
    pub counted: bool,
}

impl From<&EventParticipant> for Participant {
    fn from(participant: &EventParticipant) -> Self {
        Self {
            identity: participant.identity.clone(),
            sid: participant.sid.clone(),
            joined_ms: participant.joined_ms,
            counted: participant.kind != Some(Kind::Agent) && !participant.hidden,
        }
    }
}

/// The participants in the server's list of a room (`ListParticipants`), without those that have disconnected
/// already.
pub fn snapshot(list: &[ParticipantInfo]) -> Vec<Participant> {
    let is_present =
        |info: &&ParticipantInfo| info.state != State::Disconnected as i32 && !info.sid.is_empty();
    let participant = |info: &ParticipantInfo| {
        let time = |time: i64| u64::try_from(time).unwrap_or(0);
        let hidden = info.permission.as_ref().is_some_and(|permission| permission.hidden);
        Participant {
            identity: info.identity.clone(),
            sid: info.sid.clone(),
            joined_ms: join_time_ms(time(info.joined_at_ms), time(info.joined_at)),
            counted: info.kind != Kind::Agent as i32 && !hidden,
        }
    };
    list.iter().filter(is_present).map(participant).collect()
}
