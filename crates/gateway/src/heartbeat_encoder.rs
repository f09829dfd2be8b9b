//! What the bus is told of a client with each heartbeat. Sans-IO.

use protocol::{
    IslandId, Message as _, NodeName, Position, ResumeHash, SessionId,
    atoll_bus::{GatewayHeartbeat, Told},
    v3::Heartbeat,
};

/// A client's heartbeats as the bus hears them: where it is, and all else that a director has to
/// know of somebody of whom it never heard.
#[derive(Debug)]
pub struct HeartbeatEncoder {
    /// All but the position.
    unchanging: GatewayHeartbeat,
    /// The same, encoded; empty when it has changed since.
    encoded_unchanging: Vec<u8>,
}

impl HeartbeatEncoder {
    /// Of a client that wishes nothing and was told nothing yet, and can join these transports.
    pub fn new(transports: Option<&str>) -> Self {
        let told = Some(Told::default());
        let transports = transports.map(str::to_owned);
        let rest = GatewayHeartbeat { told, transports, ..GatewayHeartbeat::default() };
        Self { unchanging: rest, encoded_unchanging: Vec::new() }
    }

    /// The session can be resumed, by the secret that has this hash, and perhaps resumes an older one.
    pub fn set_resumption(&mut self, hash: ResumeHash, resumes: Option<SessionId>) {
        self.unchanging.resume_hash = hash.as_bytes().to_vec();
        self.unchanging.resumes = resumes.map(|session| session.to_string()).unwrap_or_default();
        self.encoded_unchanging.clear();
    }

    /// The client wishes to be in this island, or, where it is empty, in none in particular. Either
    /// is said from now on, so that it gets about even where a heartbeat does not.
    pub fn set_preferred_island(&mut self, room: String) {
        if self.unchanging.desired_room.as_ref() != Some(&room) {
            self.unchanging.desired_room = Some(room);
            self.encoded_unchanging.clear();
        }
    }

    /// The client was told of an island, and perhaps of the node of its room.
    pub fn set_assignment(&mut self, island: &IslandId, node: Option<&NodeName>) {
        let told = self.unchanging.told.get_or_insert_default();
        told.island = island.to_string();
        told.node = node.map(ToString::to_string).unwrap_or_default();
        self.encoded_unchanging.clear();
    }

    /// An encoded `GatewayHeartbeat` of a client at `position`, which may be unknown, on a gateway that has
    /// seen this epoch.
    pub fn encode(&mut self, position: Option<Position>, epoch: u64) -> Vec<u8> {
        let told = self.unchanging.told.get_or_insert_default();
        if told.epoch != epoch || self.encoded_unchanging.is_empty() {
            told.epoch = epoch;
            self.encoded_unchanging = self.unchanging.encode_to_vec();
        }
        let heartbeat = GatewayHeartbeat { position: position.map(Into::into), ..Default::default() };
        // Encoded messages put one after the other decode as one.
        let mut bytes = Vec::with_capacity(heartbeat.encoded_len() + self.encoded_unchanging.len());
        heartbeat.encode_raw(&mut bytes);
        bytes.extend_from_slice(&self.encoded_unchanging);
        bytes
    }

    /// An encoded `Heartbeat` of it, for those who know nothing else.
    pub(crate) fn encode_client_heartbeat(&self, position: Position) -> Vec<u8> {
        let desired_room = self.unchanging.desired_room.clone();
        Heartbeat { position: Some(position.into()), desired_room }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(report: &mut HeartbeatEncoder, node: Option<&str>) {
        let node = node.map(|node| node.parse().unwrap());
        report.set_assignment(&"I1".parse().unwrap(), node.as_ref());
    }

    #[test]
    fn heartbeat_carries_assignment_preference_and_transports() {
        let mut report = HeartbeatEncoder::new(Some("p2p,ws-room"));
        let place = Position::new(1.0, 2.0, 3.0);
        let mut expected = GatewayHeartbeat {
            position: Some(place.into()),
            desired_room: None,
            told: Some(Told::default()),
            transports: Some("p2p,ws-room".to_owned()),
            resume_hash: Vec::new(),
            resumes: String::new(),
        };
        let said = |report: &mut HeartbeatEncoder, epoch| {
            GatewayHeartbeat::decode(&report.encode(Some(place), epoch)[..]).unwrap()
        };
        assert_eq!(said(&mut report, 0), expected);
        assign(&mut report, Some("rooms-1"));
        report.set_preferred_island("I2".to_owned());
        expected.desired_room = Some("I2".to_owned());
        let says = |node: &str, epoch| Some(Told { island: "I1".to_owned(), node: node.to_owned(), epoch });
        expected.told = says("rooms-1", 7);
        assert_eq!(said(&mut report, 7), expected);
        // A wish that has ended is ended for whoever hears of it first, too.
        report.set_preferred_island(String::new());
        assign(&mut report, None);
        expected.desired_room = Some(String::new());
        expected.told = says("", 8);
        assert_eq!(said(&mut report, 8), expected);
        assert_eq!(said(&mut report, 8), expected);
        let session = SessionId::new(1, 2);
        report.set_resumption(ResumeHash::new([5; 16]), Some(session));
        (expected.resume_hash, expected.resumes) = (vec![5; 16], session.to_string());
        assert_eq!(said(&mut report, 8), expected);
    }

    #[test]
    fn encoded_heartbeat_decodes_as_client_heartbeat() {
        let mut report = HeartbeatEncoder::new(None);
        report.set_preferred_island("I2".to_owned());
        assign(&mut report, Some("rooms-1"));
        let place = Position::new(1.0, 0.0, -3.0);
        let plain = Heartbeat { position: Some(place.into()), desired_room: Some("I2".to_owned()) };
        assert_eq!(Heartbeat::decode(&report.encode(Some(place), 3)[..]), Ok(plain.clone()));
        assert_eq!(
            report.encode_client_heartbeat(place),
            plain.encode_to_vec(),
            "and nothing else is said to them"
        );
    }
}
