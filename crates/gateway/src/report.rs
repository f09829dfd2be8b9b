//! What the bus is told of a client with each heartbeat. Sans-IO.

use protocol::{
    IslandId, Message as _, NodeName, Position, ResumeHash, SessionId,
    atoll_bus::{GatewayHeartbeat, Told},
    v3::Heartbeat,
};

/// A client's heartbeats as the bus hears them: where it is, and all else that a director has to
/// know of somebody of whom it never heard.
#[derive(Debug)]
pub struct Report {
    /// All but the position.
    rest: GatewayHeartbeat,
    /// The same, encoded; empty when it has changed since.
    encoded: Vec<u8>,
}

impl Report {
    /// Of a client that wishes nothing and was told nothing yet, and can join these transports.
    pub fn new(transports: Option<&str>) -> Self {
        let told = Some(Told::default());
        let transports = transports.map(str::to_owned);
        let rest = GatewayHeartbeat { told, transports, ..GatewayHeartbeat::default() };
        Self { rest, encoded: Vec::new() }
    }

    /// The session can be resumed, by the secret that has this hash, and perhaps resumes an older one.
    pub fn resumption(&mut self, hash: ResumeHash, resumes: Option<SessionId>) {
        self.rest.resume_hash = hash.as_bytes().to_vec();
        self.rest.resumes = resumes.map(|session| session.to_string()).unwrap_or_default();
        self.encoded.clear();
    }

    /// The client wishes to be in this island, or, where it is empty, in none in particular. Either
    /// is said from now on, so that it gets about even where a heartbeat does not.
    pub fn wishes(&mut self, room: String) {
        if self.rest.desired_room.as_ref() != Some(&room) {
            self.rest.desired_room = Some(room);
            self.encoded.clear();
        }
    }

    /// The client was told of an island, and perhaps of the node of its room.
    pub fn told(&mut self, island: &IslandId, node: Option<&NodeName>) {
        let told = self.rest.told.get_or_insert_default();
        told.island = island.to_string();
        told.node = node.map(ToString::to_string).unwrap_or_default();
        self.encoded.clear();
    }

    /// An encoded `GatewayHeartbeat` of a client at `position`, which may be unknown, on a gateway that has
    /// seen this epoch.
    pub fn encode(&mut self, position: Option<Position>, epoch: u64) -> Vec<u8> {
        let told = self.rest.told.get_or_insert_default();
        if told.epoch != epoch || self.encoded.is_empty() {
            told.epoch = epoch;
            self.encoded = self.rest.encode_to_vec();
        }
        let heartbeat = GatewayHeartbeat { position: position.map(Into::into), ..Default::default() };
        // Encoded messages put one after the other decode as one.
        let mut bytes = Vec::with_capacity(heartbeat.encoded_len() + self.encoded.len());
        heartbeat.encode_raw(&mut bytes);
        bytes.extend_from_slice(&self.encoded);
        bytes
    }

    /// An encoded `Heartbeat` of it, for those who know nothing else.
    pub(crate) fn encode_plain(&self, position: Position) -> Vec<u8> {
        let desired_room = self.rest.desired_room.clone();
        Heartbeat { position: Some(position.into()), desired_room }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(report: &mut Report, node: Option<&str>) {
        let node = node.map(|node| node.parse().unwrap());
        report.told(&"I1".parse().unwrap(), node.as_ref());
    }

    #[test]
    fn a_report_says_what_the_client_was_told_wishes_and_can_join() {
        let mut report = Report::new(Some("p2p,ws-room"));
        let place = Position::new(1.0, 2.0, 3.0);
        let mut expected = GatewayHeartbeat {
            position: Some(place.into()),
            desired_room: None,
            told: Some(Told::default()),
            transports: Some("p2p,ws-room".to_owned()),
            resume_hash: Vec::new(),
            resumes: String::new(),
        };
        let said = |report: &mut Report, epoch| {
            GatewayHeartbeat::decode(&report.encode(Some(place), epoch)[..]).unwrap()
        };
        assert_eq!(said(&mut report, 0), expected);
        told(&mut report, Some("rooms-1"));
        report.wishes("I2".to_owned());
        expected.desired_room = Some("I2".to_owned());
        let says = |node: &str, epoch| Some(Told { island: "I1".to_owned(), node: node.to_owned(), epoch });
        expected.told = says("rooms-1", 7);
        assert_eq!(said(&mut report, 7), expected);
        // A wish that has ended is ended for whoever hears of it first, too.
        report.wishes(String::new());
        told(&mut report, None);
        expected.desired_room = Some(String::new());
        expected.told = says("", 8);
        assert_eq!(said(&mut report, 8), expected);
        assert_eq!(said(&mut report, 8), expected);
        let session = SessionId::new(1, 2);
        report.resumption(ResumeHash::new([5; 16]), Some(session));
        (expected.resume_hash, expected.resumes) = (vec![5; 16], session.to_string());
        assert_eq!(said(&mut report, 8), expected);
    }

    #[test]
    fn whoever_knows_heartbeats_alone_reads_them_too() {
        let mut report = Report::new(None);
        report.wishes("I2".to_owned());
        told(&mut report, Some("rooms-1"));
        let place = Position::new(1.0, 0.0, -3.0);
        let plain = Heartbeat { position: Some(place.into()), desired_room: Some("I2".to_owned()) };
        assert_eq!(Heartbeat::decode(&report.encode(Some(place), 3)[..]), Ok(plain.clone()));
        assert_eq!(report.encode_plain(place), plain.encode_to_vec(), "and nothing else is said to them");
    }
}
