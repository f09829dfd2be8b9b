//! The sign-in, as a state machine: packets in, answers and ends out.

use identity::Challenge;
use protocol::{
    Address, Close,
    v3::{ChallengeResponseMessage, ClientPacket, ServerPacket, client_packet, server_packet},
};

/// Where a sign-in stands.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// Nothing was said yet.
    AwaitRequest,
    /// This challenge was sent, and no other will be.
    AwaitSignature { address: Address, challenge: Challenge },
}

/// What to do about a packet.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: a packet from the future.
    Ignore,
    /// Somebody asks to sign in: send it a challenge, then come back with [`Handshake::challenge`].
    Challenge(Address),
    /// See whether this chain is valid; the challenge is used up.
    Verify { address: Address, challenge: Challenge, auth_chain_json: String },
}

impl Handshake {
    /// Takes in a packet.
    pub(crate) fn receive(self, packet: ClientPacket) -> Result<(Self, Step), (Close, String)> {
        use client_packet::Message::{ChallengeRequest, SignedChallenge};
        match (self, packet.message) {
            (state, None) => Ok((state, Step::Ignore)),
            (Self::AwaitRequest, Some(ChallengeRequest(request))) => {
                let address = request
                    .address
                    .parse()
                    .map_err(|error: protocol::AddressError| (Close::AuthRefused, error.to_string()))?;
                Ok((Self::AwaitRequest, Step::Challenge(address)))
            }
            (Self::AwaitSignature { address, challenge }, Some(SignedChallenge(signed))) => {
                let auth_chain_json = signed.auth_chain_json;
                Ok((Self::AwaitRequest, Step::Verify { address, challenge, auth_chain_json }))
            }
            _ => Err((Close::OutOfOrder, Close::OutOfOrder.reason().to_owned())),
        }
    }

    /// The state after `challenge` was made for `address`, and the packet that carries it.
    pub(crate) fn challenge(address: Address, challenge: Challenge, connected: bool) -> (Self, ServerPacket) {
        let response = ChallengeResponseMessage {
            challenge_to_sign: challenge.as_str().to_owned(),
            already_connected: connected,
        };
        let message = Some(server_packet::Message::ChallengeResponse(response));
        (Self::AwaitSignature { address, challenge }, ServerPacket { message })
    }
}

#[cfg(test)]
mod tests {
    use protocol::v3::{ChallengeRequestMessage, Heartbeat, SignedChallengeMessage};

    use super::*;

    fn packet(message: client_packet::Message) -> ClientPacket {
        ClientPacket { message: Some(message) }
    }

    fn request(address: &str) -> ClientPacket {
        let transports = Vec::new();
        let request = ChallengeRequestMessage { address: address.to_owned(), transports };
        packet(client_packet::Message::ChallengeRequest(request))
    }

    fn signed() -> ClientPacket {
        let auth_chain_json = "[]".to_owned();
        packet(client_packet::Message::SignedChallenge(SignedChallengeMessage { auth_chain_json }))
    }

    fn challenged() -> Handshake {
        Handshake::challenge(Address::new([1; 20]), Challenge::new([7; 16]), false).0
    }

    #[test]
    fn a_request_is_challenged_and_the_signature_verified() {
        let address = Address::new([0xab; 20]);
        let upper = address.to_string().to_uppercase().replace("0X", "0x");
        let (_, step) = Handshake::AwaitRequest.receive(request(&upper)).unwrap();
        assert!(matches!(step, Step::Challenge(announced) if announced == address));
        let (state, step) = challenged().receive(signed()).unwrap();
        assert!(matches!(step, Step::Verify { auth_chain_json, .. } if auth_chain_json == "[]"));
        let again = state.receive(signed()).unwrap_err();
        assert_eq!(again.0, Close::OutOfOrder, "a challenge is used once");
    }

    #[test]
    fn packets_out_of_order_end_it_and_unknown_ones_do_not() {
        let heartbeat = || packet(client_packet::Message::Heartbeat(Heartbeat::default()));
        for (state, packet) in [
            (Handshake::AwaitRequest, signed()),
            (Handshake::AwaitRequest, heartbeat()),
            (challenged(), heartbeat()),
            (challenged(), request("0x0000000000000000000000000000000000000001")),
        ] {
            assert_eq!(state.receive(packet).unwrap_err().0, Close::OutOfOrder);
        }
        assert_eq!(Handshake::AwaitRequest.receive(request("me")).unwrap_err().0, Close::AuthRefused);
        let (state, step) = challenged().receive(ClientPacket { message: None }).unwrap();
        assert!(matches!((state, step), (Handshake::AwaitSignature { .. }, Step::Ignore)));
    }
}
