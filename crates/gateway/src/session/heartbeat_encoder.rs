//! Encodes the heartbeats that a gateway publishes for a client. Sans-IO.

use protocol::{
    IslandId, Message as _, NodeName, Position, ResumeHash, SessionId,
    atoll_bus::{GatewayHeartbeat, Told},
    v3::Heartbeat,
};

/// Encodes the heartbeats of one client: its position, and all data that a director needs to take over a peer
/// that it does not know yet (assignment, preferred island, transports, resumption).
#[derive(Debug)]
pub(crate) struct HeartbeatEncoder {
    /// All fields except the position.
    unchanging: GatewayHeartbeat,
    /// The encoded form of `unchanging`; empty if that has changed since.
    encoded_unchanging: Vec<u8>,
}

impl HeartbeatEncoder {
    /// An encoder for a client without a preferred island or an assignment. `transports`: those that it can
    /// join, separated by commas; `None` if it did not list any.
    pub(crate) fn new(transports: Option<&str>) -> Self {
        let told = Some(Told::default());
        let transports = transports.map(str::to_owned);
        let unchanging = GatewayHeartbeat { told, transports, ..GatewayHeartbeat::default() };
        Self { unchanging, encoded_unchanging: Vec::new() }
    }

    /// Sets the hash of the secret that resumes this session, and the older session that this one resumes, if
    /// any.
    pub(crate) fn set_resumption(&mut self, hash: ResumeHash, resumes: Option<SessionId>) {
        self.unchanging.resume_hash = hash.as_bytes().to_vec();
        self.unchanging.resumes = resumes.map(|session| session.to_string()).unwrap_or_default();
        self.encoded_unchanging.clear();
    }

    /// Sets the preferred island of the client; an empty `room` ends the preference. Every later heartbeat
    /// carries it, so that the director receives it even if one heartbeat is lost.
    pub(crate) fn set_preferred_island(&mut self, room: String) {
        if self.unchanging.desired_room.as_ref() != Some(&room) {
            self.unchanging.desired_room = Some(room);
            self.encoded_unchanging.clear();
        }
    }

    /// Sets the last assignment: the island, and the node of its room if it is known.
    pub(crate) fn set_assignment(&mut self, island: &IslandId, node: Option<&NodeName>) {
        let told = self.unchanging.told.get_or_insert_default();
        told.island = island.to_string();
        told.node = node.map(ToString::to_string).unwrap_or_default();
        self.encoded_unchanging.clear();
    }

    /// Encodes a `GatewayHeartbeat` at `position`; `None`: unknown. `epoch`: the highest one that the gateway
    /// has seen; 0: none.
    pub(crate) fn encode(&mut self, position: Option<Position>, epoch: u64) -> Vec<u8> {
        let told = self.unchanging.told.get_or_insert_default();
        if told.epoch != epoch || self.encoded_unchanging.is_empty() {
            told.epoch = epoch;
            self.encoded_unchanging = self.unchanging.encode_to_vec();
        }
        let heartbeat = GatewayHeartbeat { position: position.map(Into::into), ..Default::default() };
        // Concatenated encodings decode as one merged message (protobuf).
        let mut bytes = Vec::with_capacity(heartbeat.encoded_len() + self.encoded_unchanging.len());
        heartbeat.encode_raw(&mut bytes);
        bytes.extend_from_slice(&self.encoded_unchanging);
        bytes
    }

    /// Encodes a `Heartbeat`, for services that decode only that message.
    pub(crate) fn encode_client_heartbeat(&self, position: Position) -> Vec<u8> {
        let desired_room = self.unchanging.desired_room.clone();
        Heartbeat { position: Some(position.into()), desired_room }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(encoder: &mut HeartbeatEncoder, node: Option<&str>) {
        let node = node.map(|node| node.parse().unwrap());
        encoder.set_assignment(&"I1".parse().unwrap(), node.as_ref());
    }

    #[test]
    fn heartbeat_carries_assignment_preference_and_transports() {
        let mut encoder = HeartbeatEncoder::new(Some("p2p,ws-room"));
        let position = Position::new(1.0, 2.0, 3.0);
        let mut expected = GatewayHeartbeat {
            position: Some(position.into()),
            desired_room: None,
            told: Some(Told::default()),
            transports: Some("p2p,ws-room".to_owned()),
            resume_hash: Vec::new(),
            resumes: String::new(),
        };
        let decode = |encoder: &mut HeartbeatEncoder, epoch| {
            GatewayHeartbeat::decode(&encoder.encode(Some(position), epoch)[..]).unwrap()
        };
        assert_eq!(decode(&mut encoder, 0), expected);
        assign(&mut encoder, Some("rooms-1"));
        encoder.set_preferred_island("I2".to_owned());
        expected.desired_room = Some("I2".to_owned());
        let assignment =
            |node: &str, epoch| Some(Told { island: "I1".to_owned(), node: node.to_owned(), epoch });
        expected.told = assignment("rooms-1", 7);
        assert_eq!(decode(&mut encoder, 7), expected);
        // The end of a preference is sent too, for a director that did not know the preference.
        encoder.set_preferred_island(String::new());
        assign(&mut encoder, None);
        expected.desired_room = Some(String::new());
        expected.told = assignment("", 8);
        assert_eq!(decode(&mut encoder, 8), expected);
        assert_eq!(decode(&mut encoder, 8), expected);
        let session = SessionId::new(1, 2);
        encoder.set_resumption(ResumeHash::new([5; 16]), Some(session));
        (expected.resume_hash, expected.resumes) = (vec![5; 16], session.to_string());
        assert_eq!(decode(&mut encoder, 8), expected);
    }

    #[test]
    fn encoded_heartbeat_decodes_as_client_heartbeat() {
        let mut encoder = HeartbeatEncoder::new(None);
        encoder.set_preferred_island("I2".to_owned());
        assign(&mut encoder, Some("rooms-1"));
        let position = Position::new(1.0, 0.0, -3.0);
        let plain = Heartbeat { position: Some(position.into()), desired_room: Some("I2".to_owned()) };
        assert_eq!(Heartbeat::decode(&encoder.encode(Some(position), 3)[..]), Ok(plain.clone()));
        assert_eq!(
            encoder.encode_client_heartbeat(position),
            plain.encode_to_vec(),
            "without any field of Atoll"
        );
    }
}
